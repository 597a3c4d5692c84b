# fish completion for ftai-redact; made from the options of bin/ftai-redact by `make completions`: do not edit
complete -c ftai-redact -l text -d 'Plain text in and out, line by line, in place of records'
complete -c ftai-redact -l strict -d 'Stop at the first bad record'
complete -c ftai-redact -s q -l quiet -d 'No warnings'
complete -c ftai-redact -s v -l verbose -d 'Tell more on stderr'
complete -c ftai-redact -l version -d 'Show the version'
complete -c ftai-redact -s h -l help -d 'Show this message and exit'
