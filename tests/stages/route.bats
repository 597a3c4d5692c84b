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
    grep -q "not model:local  missing: no model is set up" "$T/out"
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
