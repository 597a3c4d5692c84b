# fish completion for ftai-run; made from the options of bin/ftai-run by `make completions`: do not edit
complete -c ftai-run -f
complete -c ftai-run -s f -l file -l attach -r -F -d 'Take in a document; beside words, as part of them'
complete -c ftai-run -l privacy -x -a 'local cloud' -d 'Who may see this command and what comes of it'
complete -c ftai-run -l no-log -d 'Keep the texts out of journal and archive; the fact stays'
complete -c ftai-run -l stream -d 'Have the answer of a model piece by piece, as it comes'
complete -c ftai-run -l thread -x -d 'Join this thread'
complete -c ftai-run -l continue -d 'Join the thread in FTAI_THREAD, else the newest one'
complete -c ftai-run -l via -x -a 'text voice file cron' -d 'How the command came in (else text, or file)'
complete -c ftai-run -s n -l dry-run -d 'Act on nothing; say what would be done'
complete -c ftai-run -s q -l quiet -d 'No warnings'
complete -c ftai-run -s v -l verbose -d 'Tell more on stderr'
complete -c ftai-run -l version -d 'Show the version'
complete -c ftai-run -s h -l help -d 'Show this message and exit'
