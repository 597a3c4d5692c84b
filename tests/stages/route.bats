load helper

routes() { jq -c 'select(."@tag" == "route")' "$@"; }

@test "route: passes the command on as it came and puts specs and route behind it" {
    ftai-listen "remember to send the invoice tomorrow" >"$T/in"
    try ftai-route "$T/in"
    ended 0
    empty "$T/err"
    same "$(head -1 "$T/out")" "$(cat "$T/in")"
    same "$(jq -r '."@tag"' "$T/out" | xargs)" "command specs route"
    same "$(routes "$T/out" | jq -c '[.target, .rule, .parent == .thread, .from, ."@blocks"[0].what, ."@blocks"[0].when]')" \
        '["skill:task","task-add",true,"ftai-route","send the invoice","tomorrow"]'
}

@test "route: specs are told once in a stream, and not when the journal has them" {
    printf 'one\ntwo\nthree\n' | ftai-listen - | ftai-route >"$T/out"
    same "$(jq -r '."@tag"' "$T/out" | xargs)" "command specs route command route command route"
    mkdir -p "$FTAI_HOME/state/specs"
    touch "$FTAI_HOME/state/specs/$(jq -r 'select(."@tag" == "specs") | .digest' "$T/out")"
    ftai-listen one | ftai-route >"$T/out"
    same "$(jq -r '."@tag"' "$T/out" | xargs)" "command route"
}

@test "route: what has a route is not routed again" {
    seq 3000 | sed 's/^/remember to do number /' | ftai-listen - >"$T/in"
    ftai-route "$T/in" >"$T/once"
    same "$(routes "$T/once" | wc -l)" 3000
    ftai-route "$T/once" >"$T/twice"
    cmp "$T/once" "$T/twice"
    ftai-route <"$T/once" | cmp - "$T/once"
    cat "$T/once" | ftai-route | cmp - "$T/once"
    ftai-route "$T/in" | ftai-route | ftai-route | routes | wc -l | grep -qx 3000
    # The control: without their routes they are.
    grep -v '"@tag":"route"' "$T/once" | ftai-route | routes | wc -l | grep -qx 3000
}

@test "route: a command that comes twice is routed once" {
    ftai-listen "what time is it" >"$T/in"
    cat "$T/in" "$T/in" | ftai-route >"$T/out"
    same "$(routes "$T/out" | wc -l)" 1
}

@test "route: history, parts and the person's own tasks are passed on untouched" {
    cat >"$T/in" <<'END'
{"@tag":"command","id":"019ab9c4-7d1e-7a31-9c1b-000000000001","ts":"2026-11-22T13:25:00.000Z","thread":"019ab9c4-7d1e-7a31-9c1b-000000000001","body":"what time is it","@blocks":[{"@tag":"chain","seq":1,"salt":"x","hash":"y"}]}
{"@tag":"command","id":"019ab9c4-7d1e-7a31-9c1b-000000000002","body":"what time","provisional":true}
{"@tag":"partial","body":"what time is"}
{"@tag":"task","id":"019ab9c4-7d1e-7a31-9c1b-000000000003","title":"call Ada"}
{"@tag":"note", "body":"what time is it","@blocks":[{"@tag":"command","body":"what time is it"}]}
{"@text":"what time is it"}
END
    try ftai-route "$T/in"
    ended 0
    cmp "$T/in" "$T/out"
}

@test "route: a command without an id is given one, and what it was called moves to ref" {
    printf '@ftai v2.0\n\n@command\n  id: "C-1"\n  body: "what time is it"\n@end\n' | ftai-route >"$T/out"
    same "$(jq -r 'select(."@tag" == "command") | .ref' "$T/out")" C-1
    same "$(routes "$T/out" | jq -r .parent)" "$(jq -r 'select(."@tag" == "command") | .id' "$T/out")"
}

@test "route: a route comes out while the next command has not been written" {
    mkfifo "$T/in"
    ftai-route <"$T/in" >"$T/out" &
    exec 9>"$T/in"
    ftai-listen "what time is it" >&9
    until_true grep -q skill:time "$T/out"
    ftai-listen "status" >&9
    until_true grep -q skill:status "$T/out"
    exec 9>&-
    wait
}

@test "route: --explain tells people the decision and each candidate" {
    ftai-listen "remember to send the invoice tomorrow" | ftai-route --explain >"$T/out"
    same "$(sed -n 2p "$T/out" | xargs | sed 's/:[0-9]* / /')" "-> skill:task task-add serenamaster.commands.ftai confidence 1 local"
    grep -q "what: send the invoice" "$T/out"
    grep -q "not skill:remember  order: matches, but stands behind task-add" "$T/out"
    grep -q "not model:local  missing: model 'local' is not set up" "$T/out"
    ftai-listen "rember the milk" | ftai-route --explain | grep -q "near: "
}

@test "route: --dry-run says it and adds nothing" {
    ftai-listen "what time is it" >"$T/in"
    try ftai-route --dry-run "$T/in"
    ended 0
    cmp "$T/in" "$T/out"
    grep -q "would route to skill:time" "$T/err"
}

@test "route: --rules tries a file in place of the owner's own" {
    printf '@ftai v2.0\n\n@rule\n  name: "tried"\n  pattern: "weather"\n  target: "mcp:weather.today"\n  reason: "x"\n@end\n' >"$T/try.ftai"
    ftai-listen "how is the weather" >"$T/in"
    same "$(ftai-route "$T/in" | routes | jq -r .target)" ask
    ftai-route --rules "$T/try.ftai" "$T/in" >"$T/out"
    same "$(routes "$T/out" | jq -c '[.target, .rule, .rule_at]')" "[\"mcp:weather.today\",\"tried\",\"$T/try.ftai:3\"]"
    try ftai-route --rules "$T/missing" "$T/in"
    ended 66
    empty "$T/out"
}

@test "route: a bad line becomes an error record, the good ones around it are routed" {
    { ftai-listen "what time is it"; echo '{"@tag":null}'; ftai-listen status; } >"$T/in"
    try ftai-route "$T/in"
    ended 1
    same "$(routes "$T/out" | jq -r .target | xargs)" "skill:time skill:status"
    same "$(jq -r 'select(."@tag" == "error") | .class' "$T/out")" input
    try ftai-route --strict "$T/in"
    ended 1
    same "$(routes "$T/out" | jq -r .target | xargs)" "skill:time"
}

@test "route: an unreadable second file does not cost the route of what came before it" {
    ftai-listen "what time is it" >"$T/in"
    try ftai-route "$T/in" "$T/missing"
    ended 66
    same "$(routes "$T/out" | jq -r .target)" skill:time
}

@test "route: a command that the journal holds a route of is not routed again, in whatever pieces it comes" {
    printf '%s\n' '{"@tag":"command","id":"0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e","ts":"2026-01-01T00:00:00.000Z","thread":"0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e","body":"note once"}' >"$T/said"
    for _ in 1 2 3; do ftai-route "$T/said" | ftai-exec | ftai-log >>"$T/out"; done
    same "$(cat "$FTAI_HOME/data/notes/notes.txt")" once
    same "$(jq -r 'select(."@tag" == "route") | .id' "$T/out" | wc -l)" 1
    # --explain tells all the same.
    ftai-route --explain "$T/said" | grep -q 'skill:note'
}

@test "route: an archive that can't be read stops no command" {
    ftai-run status >/dev/null
    rm "$FTAI_HOME"/state/archive.db*
    mkdir "$FTAI_HOME/state/archive.db"
    echo '{"@tag":"command","id":"0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e","ts":"2026-01-01T00:00:00.000Z","thread":"0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e","body":"status"}' |
        ftai-route >"$T/out" 2>"$T/err"
    same "$(jq -r '."@tag"' "$T/out" | tail -1)" route
    grep -q 'warning: ' "$T/err"
}

# The owner's rule: drafts are for the cloud, which agreed.
drafts() {
    mkdir -p "$FTAI_HOME/config"
    printf '@ftai v2.0\n@rule\n  name: "drafts"\n  pattern: "draft"\n  target: "model:claude"\n  fallback: "model:gpt"\n  privacy: "cloud"\n  reason: "x"\n@end\n' \
        >"$FTAI_HOME/config/serenamaster.mcp.ftai"
    printf '@ftai v2.0\n@consent\n  name: "anthropic"\n  summary: "x"\n@end\n@consent\n  name: "openai"\n  summary: "x"\n@end\n' \
        >"$FTAI_HOME/config/serenamaster.config.ftai"
    chmod 600 "$FTAI_HOME"/config/*
}

@test "route: --simulate tells the whole chain, and asks nobody" {
    drafts
    ftai-listen "draft a reminder" >"$T/in"
    try ftai-route --explain --simulate 'anthropic=429:Retry-After=30,openai=down' "$T/in"
    ended 0
    empty "$T/err"
    same "$(grep '^  [0-9]' "$T/out")" "  1. ask model:claude: 429 (rate)
  2. wait 30 s, ask model:claude again: 429 (rate)
  3. wait 30 s, ask model:claude again: 429 (rate)
  4. ask model:gpt: down
  5. wait about 0.5 s, ask model:gpt again: down
  6. wait about 1 s, ask model:gpt again: down
  7. queued, exit 75: tried again with the next drain"
    # It shows the same without --explain; and no state is made.
    cp "$T/out" "$T/first"
    try ftai-route --simulate 'anthropic=429:Retry-After=30,openai=down' "$T/in"
    cmp "$T/first" "$T/out"
    [ ! -e "$FTAI_HOME/state/state.db" ]
    [ ! -e "$FTAI_HOME/state/journal" ]
}

@test "route: --simulate asks nobody in the cloud for what is local" {
    drafts
    ftai-listen --privacy local "draft a reminder" | ftai-route --simulate 'anthropic=ok,openai=ok' >"$T/out"
    same "$(grep -c 'ask model:' "$T/out")" 0
    # The control: what says nothing takes the rule's privacy.
    ftai-listen "draft a reminder" | ftai-route --simulate 'anthropic=ok' | grep -q '1. ask model:claude: ok'
}

@test "route: --simulate that says nothing is usage" {
    for faults in anthropic nobody=429 anthropic=200 'anthropic=429:Retry-After=soon'; do
        try ftai-route --simulate "$faults" </dev/null
        ended 2
        empty "$T/out"
    done
    try ftai-route --dry-run --simulate anthropic=429 </dev/null
    ended 2
    grep -q '^hint: ' "$T/err"
}

@test "route: --backtest shows what rules would change, and writes nothing" {
    ftai-run "what time is it" >/dev/null
    ftai-run status >/dev/null
    ftai-listen "never routed" | ftai-log --sink
    printf '@ftai v2.0\n@rule\n  name: "clock"\n  pattern: "time"\n  target: "ask"\n  privacy: "cloud"\n  reason: "x"\n@end\n' >"$T/try.ftai"
    sum() { cat "$FTAI_HOME"/state/journal/*.ftai | sha256sum; }
    before=$(sum)
    try ftai-route --backtest "$T/try.ftai"
    ended 0
    empty "$T/err"
    grep -qxE '....-..-.. ..:..  [0-9a-f]{6}  skill:time -> ask, rule time -> clock, privacy local -> cloud  what time is it' "$T/out" || { cat "$T/out"; false; }
    same "$(tail -n 1 "$T/out")" "1 of 2 routes would be other ones; 1 have no route"
    same "$(wc -l <"$T/out")" 2
    same "$(sum)" "$before"
    # The same from the journal alone.
    cp "$T/out" "$T/first"
    rm "$FTAI_HOME"/state/archive.db*
    mkdir "$FTAI_HOME/state/archive.db"
    try ftai-route --backtest "$T/try.ftai"
    ended 0
    cmp "$T/first" "$T/out"
    grep -q 'warning: .*the journal itself is read' "$T/err"
}

@test "route: --backtest of an empty journal, of no file, of a broken one, with more" {
    printf '@ftai v2.0\n@rule\n  name: "x"\n  pattern: "time"\n  target: "ask"\n  reason: "x"\n@end\n' >"$T/try.ftai"
    try ftai-route --backtest "$T/try.ftai"
    ended 0
    same "$(cat "$T/out")" "0 of 0 routes would be other ones"
    try ftai-route --backtest "$T/missing"
    ended 66
    printf '@ftai v2.0\n@rule\n  name: "x"\n@end\n' >"$T/broken.ftai"
    try ftai-route --backtest "$T/broken.ftai"
    ended 78
    for more in --explain --dry-run "--rules $T/try.ftai" "$T/in"; do
        try ftai-route --backtest "$T/try.ftai" $more
        ended 2
        empty "$T/out"
    done
}

@test "route: --backtest shows a bar on a terminal only" {
    ftai-run "what time is it" >/dev/null
    printf '@ftai v2.0\n@rule\n  name: "x"\n  pattern: "time"\n  target: "ask"\n  reason: "x"\n@end\n' >"$T/try.ftai"
    script -qec "ftai-route --backtest '$T/try.ftai' >'$T/out'" "$T/seen" >/dev/null
    grep -q '\[#' "$T/seen"
    same "$(tail -n 1 "$T/out")" "1 of 1 routes would be other ones"
    script -qec "ftai-route --quiet --backtest '$T/try.ftai' >'$T/out'" "$T/seen" >/dev/null
    same "$(grep -c '\[#' "$T/seen")" 0
}
