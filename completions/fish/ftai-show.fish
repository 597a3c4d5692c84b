# fish completion for ftai-show; made from the options of bin/ftai-show by `make completions`: do not edit
complete -c ftai-show -s a -l answer -d 'The answer alone: what the results say'
complete -c ftai-show -s l -l long -d 'Whole records'
complete -c ftai-show -l strict -d 'Stop at the first bad record'
complete -c ftai-show -s q -l quiet -d 'No warnings'
complete -c ftai-show -s v -l verbose -d 'Tell more on stderr'
complete -c ftai-show -l version -d 'Show the version'
complete -c ftai-show -s h -l help -d 'Show this message and exit'
