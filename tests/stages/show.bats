#!/usr/bin/env bats
# ftai-show: records for people.

load helper

setup() {
    scratch
    export TERM=xterm
    unset NO_COLOR
    cat >"$T/thread" <<'END'
{"@tag":"command","id":"019ab9c4-7d1e-7a31-9c1b-000000000001","ts":"2026-11-22T13:25:00.000Z","thread":"019ab9c4-7d1e-7a31-9c1b-000000000001","from":"ftai-listen","body":"what is the time"}
{"@tag":"route","id":"019ab9c4-7d1e-7a31-9c1b-000000000002","ts":"2026-11-22T13:25:00.041Z","thread":"019ab9c4-7d1e-7a31-9c1b-000000000001","parent":"019ab9c4-7d1e-7a31-9c1b-000000000001","from":"ftai-route","target":"skill:time"}
{"@tag":"partial","parent":"019ab9c4-7d1e-7a31-9c1b-000000000002","n":1,"body":"It is "}
{"@tag":"result","id":"019ab9c4-7d1e-7a31-9c1b-000000000003","ts":"2026-11-22T13:25:00.087Z","thread":"019ab9c4-7d1e-7a31-9c1b-000000000001","parent":"019ab9c4-7d1e-7a31-9c1b-000000000002","from":"ftai-exec","status":"done","body":"It is noon."}
END
}

# Runs a command line on a terminal of 40 columns; what it shows is in $T/out.
on_terminal() {
    "$root/.venv/bin/python" -c 'import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(["sh", "-c", "stty cols 40; " + sys.argv[1]])))' "$1" </dev/null |
        sed "s/\^D$(printf '\b\b')//" >"$T/out" # the terminal echoes its end of input
}

@test "a line each, without the pieces of an answer" {
    try ftai-show "$T/thread"
    ended 0
    empty "$T/err"
    same "$(cat "$T/out")" "2026-11-22 13:25  000001  listen  command  what is the time
2026-11-22 13:25  000001  route   route    -> skill:time
2026-11-22 13:25  000001  exec    result   It is noon."
}

@test "the time is that of the time zone" {
    TZ=Asia/Tokyo try ftai-show "$T/thread"
    grep -q '^2026-11-22 22:25 ' "$T/out"
}

@test "-a prints the answer once" {
    try ftai-show -a <"$T/thread"
    ended 0
    same "$(cat "$T/out")" "It is noon."
}

@test "-a prints the pieces of an answer as they come" {
    mkfifo "$T/in"
    ftai-show -a <"$T/in" >"$T/out" 3>&- &
    exec 9>"$T/in"
    head -3 "$T/thread" >&9
    until_true grep -q "It is " "$T/out"
    same "$(cat "$T/out")" "It is "
    tail -1 "$T/thread" >&9
    exec 9>&-
    wait $!
    same "$(cat "$T/out")" "It is noon."
}

@test "-a ends the line of an answer that was cut off" {
    head -3 "$T/thread" | ftai-show -a >"$T/out"
    same "$(tail -c 1 "$T/out" | od -An -c | tr -d ' ')" '\n'
}

@test "-l prints every field, lines of text below their field, and blocks" {
    printf '%s\n' '{"@tag":"note","body":"one\ntwo","@blocks":[{"@tag":"slots","what":"x"}]}' | ftai-show -l >"$T/out"
    same "$(cat "$T/out")" "note
  body:
    one
    two
  slots
    what: x"
}

@test "text form is read as well" {
    printf '@ftai v2.0\n\n@note\n  body: "from text"\n@end\n' >"$T/notes.ftai"
    try ftai-show "$T/notes.ftai"
    ended 0
    grep -q 'note .*from text' "$T/out"
}

@test "a terminal gets colour and lines cut to its width, a pipe neither" {
    python3 -c 'print("{\"@tag\":\"command\",\"body\":\"" + "word " * 100 + "\"}")' >"$T/long"
    on_terminal "ftai-show '$T/long'"
    grep -q "$(printf '\033')\\[36mcommand" "$T/out"
    same "$(sed "s/$(printf '\033')\\[[0-9]*m//g" "$T/out" | tr -d '\r\n' | python3 -c 'print(len(input()))')" 40
    ftai-show "$T/long" >"$T/piped"
    same "$(tr -cd '\033' <"$T/piped" | wc -c)" 0
    [ "$(wc -c <"$T/piped")" -gt 500 ]
}

@test "NO_COLOR and a dumb terminal mean no colour" {
    on_terminal "NO_COLOR=1 ftai-show '$T/thread'"
    same "$(tr -cd '\033' <"$T/out" | wc -c)" 0
    on_terminal "TERM=dumb ftai-show '$T/thread'"
    same "$(tr -cd '\033' <"$T/out" | wc -c)" 0
    on_terminal "ftai-show '$T/thread'"
    [ "$(tr -cd '\033' <"$T/out" | wc -c)" -gt 0 ]
}

@test "nothing that a record holds steers the terminal, in no view" {
    printf '%s\n' '{"@tag":"route","id":"r\u001b[2J","target":"\u001b]0;x\u0007"}' \
        '{"@tag":"result","parent":"r\u001b[2J","from":"a\rb","thread":"\u001b[1m","ts":"\u009b31m","status":"\u0007","body":"\u001b[31mred\u009b0m\u202egnp\b\b"}' >"$T/hostile"
    for how in "" -a -l; do
        try ftai-show $how "$T/hostile"
        ended 0
        [ -s "$T/out" ]
        same "$(python3 -c 'import sys; print(sorted({hex(ord(c)) for c in sys.stdin.read() if ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160 or ord(c) == 0x202e}))' <"$T/out")" "[]"
    done
}

@test "bad lines become error records in their place, and status 1" {
    { head -1 "$T/thread"; echo '{"a":null}'; tail -1 "$T/thread"; } >"$T/mixed"
    try ftai-show "$T/mixed"
    ended 1
    same "$(cut -c35-41 "$T/out" | tr -d ' ' | tr '\n' ' ')" "command error result "
    grep -q '^ftai-show: .*/mixed:2: ' "$T/err"
    try ftai-show --strict "$T/mixed"
    ended 1
    same "$(wc -l <"$T/out")" 1
}

@test "empty input, a missing file, a folder, plain text, a binary file" {
    try ftai-show </dev/null
    ended 0
    empty "$T/out"
    try ftai-show "$T/none"
    ended 66
    try ftai-show "$T"
    ended 65
    try ftai-show < <(echo hello)
    ended 65
    try ftai-show < <(head -c 3000 /dev/urandom | tr -d '{')
    ended 65
    empty "$T/out"
}

@test "a line of 15 MB is one line" {
    python3 -c 'print("{\"@tag\":\"note\",\"body\":\"" + "x" * 15000000 + "\"}")' | ftai-show >"$T/out"
    same "$(wc -l <"$T/out")" 1
    [ "$(wc -c <"$T/out")" -gt 15000000 ]
}

@test "a reader that goes away ends it silently by SIGPIPE" {
    lines 2000 "$(cat "$T/thread")" >"$T/many"
    bash -c 'ftai-show "$1" 2>"$2" | head -1 >/dev/null; exit ${PIPESTATUS[0]}' - "$T/many" "$T/err" || rc=$?
    same "$rc" 141
    empty "$T/err"
}

@test "a terminal on stdin and nothing to read is a usage error" {
    run on_terminal "ftai-show </dev/tty; echo status \$?"
    grep -q 'status 2' "$T/out"
}

@test "it starts with nothing in the environment" {
    try env -i "$root/bin/ftai-show" -a "$T/thread"
    ended 0
    same "$(cat "$T/out")" "It is noon."
}
