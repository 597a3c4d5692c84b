# fish completion for ftai-validate; made from the options of bin/ftai-validate by `make completions`: do not edit
complete -c ftai-validate -l format -x -a 'text json github sarif' -d 'How findings are written'
complete -c ftai-validate -l fix -d 'Rewrite what can be put right without loss, in place'
complete -c ftai-validate -l dry-run -d 'With --fix: say what would be fixed'
complete -c ftai-validate -l strict -d 'Read as strictly as ftai(5) allows'
complete -c ftai-validate -s q -l quiet -d 'No warnings'
complete -c ftai-validate -s v -l verbose -d 'Tell more on stderr'
complete -c ftai-validate -l version -d 'Show the version'
complete -c ftai-validate -s h -l help -d 'Show this message and exit'
