# fish completion for ftai-recall; made from the options of bin/ftai-recall by `make completions`: do not edit
complete -c ftai-recall -f
complete -c ftai-recall -l since -x -d 'From this time on: monday, yesterday, 2026-11-22, RFC 3339'
complete -c ftai-recall -l until -x -d 'Up to the end of this time'
complete -c ftai-recall -l tag -x -d 'Only records with this tag; may be given more than once'
complete -c ftai-recall -l thread -x -d 'Only this thread; without words, all of it in order'
complete -c ftai-recall -s n -l limit -x -d 'At most so many hits (20)'
complete -c ftai-recall -l threads -d 'One record for each thread'
complete -c ftai-recall -s C -l context -x -d 'So many neighbours in the thread on each side of a hit (2)'
complete -c ftai-recall -l after -x -d 'Only what was journaled behind this number, in order, each record once'
complete -c ftai-recall -s q -l quiet -d 'No warnings'
complete -c ftai-recall -s v -l verbose -d 'Tell more on stderr'
complete -c ftai-recall -l version -d 'Show the version'
complete -c ftai-recall -s h -l help -d 'Show this message and exit'
