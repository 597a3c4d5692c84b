# fish completion for ftai-route; made from the options of bin/ftai-route by `make completions`: do not edit
complete -c ftai-route -l explain -d 'Show the decision and each candidate, for people, in place of records'
complete -c ftai-route -l rules -r -F -d 'Try other phrases and rules: FILE in place of your own'
complete -c ftai-route -l dry-run -d 'Say what would be decided on stderr, and add no record'
complete -c ftai-route -l strict -d 'Stop at the first bad record'
complete -c ftai-route -s q -l quiet -d 'No warnings'
complete -c ftai-route -s v -l verbose -d 'Tell more on stderr'
complete -c ftai-route -l version -d 'Show the version'
complete -c ftai-route -s h -l help -d 'Show this message and exit'
