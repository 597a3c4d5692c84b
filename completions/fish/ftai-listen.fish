# fish completion for ftai-listen; made from the options of bin/ftai-listen by `make completions`: do not edit
complete -c ftai-listen -f
complete -c ftai-listen -s f -l file -l attach -r -F -d 'Take in a document; beside words, as part of them'
complete -c ftai-listen -l privacy -x -a 'local cloud' -d 'Who may see this command and what comes of it'
complete -c ftai-listen -l no-log -d 'Keep the texts out of journal and archive; the fact stays'
complete -c ftai-listen -l stream -d 'Have the answer of a model piece by piece, as it comes'
complete -c ftai-listen -l thread -x -d 'Join this thread'
complete -c ftai-listen -l continue -d 'Join the thread in FTAI_THREAD, else the newest one'
complete -c ftai-listen -l via -x -a 'text voice file cron' -d 'How the command came in (else text, or file)'
complete -c ftai-listen -s q -l quiet -d 'No warnings'
complete -c ftai-listen -s v -l verbose -d 'Tell more on stderr'
complete -c ftai-listen -l version -d 'Show the version'
complete -c ftai-listen -s h -l help -d 'Show this message and exit'
