# fish completion for ftai-why; made from the options of bin/ftai-why by `make completions`: do not edit
complete -c ftai-why -f
complete -c ftai-why -l with -x -d 'Add what the rules would do today, with the file RULES in place of your own'
complete -c ftai-why -l today -d 'Add what the rules as they are would do today'
complete -c ftai-why -s q -l quiet -d 'No warnings'
complete -c ftai-why -s v -l verbose -d 'Tell more on stderr'
complete -c ftai-why -l version -d 'Show the version'
complete -c ftai-why -s h -l help -d 'Show this message and exit'
