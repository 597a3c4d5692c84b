# fish completion for ftai-doctor; made from the options of bin/ftai-doctor by `make completions`: do not edit
complete -c ftai-doctor -f
complete -c ftai-doctor -l accept -d 'Take the damage that ftai-log --verify reports in closed segments as known'
complete -c ftai-doctor -l bench-model -r -F -d 'Measure the MLX model in this folder, as fp16 and with 8 and 4 bits'
complete -c ftai-doctor -l dry-run -d 'With --accept or trust: say what would be done'
complete -c ftai-doctor -l providers -d 'Tell how the providers of models, the budgets and the queue stand'
complete -c ftai-doctor -l records -d '`report` records in line form instead of lines for people'
complete -c ftai-doctor -l start -d 'Measure the start of every stage, five times'
complete -c ftai-doctor -s q -l quiet -d 'No warnings'
complete -c ftai-doctor -s v -l verbose -d 'Tell more on stderr'
complete -c ftai-doctor -l version -d 'Show the version'
complete -c ftai-doctor -s h -l help -d 'Show this message and exit'
complete -c ftai-doctor -n __fish_use_subcommand -a 'trust'
complete -c ftai-doctor -n '__fish_seen_subcommand_from trust' -a '(__fish_complete_directories)'
