# fish completion for ftai-exec; made from the options of bin/ftai-exec by `make completions`: do not edit
complete -c ftai-exec -l again -d 'Act on routes that were acted on before, too'
complete -c ftai-exec -s n -l dry-run -d 'Act on nothing; say on standard error what would be done'
complete -c ftai-exec -l strict -d 'Stop at the first bad record'
complete -c ftai-exec -s q -l quiet -d 'No warnings'
complete -c ftai-exec -s v -l verbose -d 'Tell more on stderr'
complete -c ftai-exec -l version -d 'Show the version'
complete -c ftai-exec -s h -l help -d 'Show this message and exit'
