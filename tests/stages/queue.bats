load helper

setup() {
    scratch
    mkdir -p "$FTAI_HOME/config" "$T/tools"
    export PATH=$T/tools:$PATH
    cat >"$FTAI_HOME/config/serenamaster.commands.ftai" <<'SPEC'
@ftai v2.0
@program
  name: "mark"
  run: ["sh", "-c", "echo \"$1\" >>marks; echo \"marked $1\"", "sh", "{what}"]
  timeout: 30
  output: 1000
  summary: "leaves a line in ~/marks"
@end
@program
  name: "later"
  run: ["ftai-test-tool", "{what}"]
  timeout: 30
  output: 1000
  summary: "a program that is installed later"
@end
@program
  name: "hang"
  run: ["sh", "-c", "echo $$ >pids.new; mv pids.new pids; exec sleep 600"]
  timeout: 600
  output: 1000
  summary: "never ends"
@end
@program
  name: "away"
  run: ["sh", "-c", "echo \"$1\" >>marks", "sh", "{what}"]
  timeout: 30
  output: 1000
  privacy: "cloud"
  summary: "takes it off the machine"
@end
SPEC
}

pair() { "$root/.venv/bin/python" "$root/tests/stages/pair.py" "$@"; }
# Queues a task: queue TARGET WHAT [FIELD=VALUE...]; its id.
queue() { pair "$1" "what=$2" | "$root/.venv/bin/python" "$root/tests/stages/put.py" "${@:3}"; }
install_tool() { printf '#!/bin/sh\necho "did $1"\n' >"$T/tools/ftai-test-tool" && chmod +x "$T/tools/ftai-test-tool"; }
kinds() { jq -r '."@tag"' "$1" | tr '\n' ' '; }
state_db() { sqlite3 -cmd '.timeout 10000' "$FTAI_HOME/state/state.db" "$@"; }
# What the journal holds of a route: tag and status of each record it caused.
journaled() { ftai-recall --limit 1000 --tag result | jq -r "select(.parent == \"$1\") | .status"; }

@test "queue: nothing waits" {
    for verb in list wait "drain --dry-run"; do
        try ftai-queue $verb
        ended 0
        empty "$T/out"
        empty "$T/err"
    done
    [ ! -e "$FTAI_HOME/state" ]
    try ftai-queue drain
    ended 0
    empty "$T/out"
    empty "$T/err"
}

@test "queue: no verb, an unknown one, no id" {
    for args in "" nonsense show drop retry "retry --dead x"; do
        try ftai-queue $args
        ended 2
        empty "$T/out"
        [ -s "$T/err" ]
    done
    for args in "show x" "drop x" "retry x" "wait x"; do
        try ftai-queue $args
        ended 1
        empty "$T/out"
        grep -q "^ftai-queue: 'x' " "$T/err"
        grep -q "^hint: " "$T/err"
    done
}

@test "queue: list and show tell what waits, as reports that nothing acts on" {
    one=$(queue cmd:mark a)
    two=$(queue cmd:mark b priority=5 key=k deadline=2999-01-01T00:00:00Z "error=no network")
    try ftai-queue list
    ended 0
    empty "$T/err"
    same "$(jq -c '[."@tag", .subject, .about, .status, .priority, .key, .deadline, .error]' "$T/out")" \
        "[\"report\",\"queue\",\"$two\",\"waiting\",5,\"k\",\"2999-01-01T00:00:00.000Z\",\"no network\"]"$'\n'"[\"report\",\"queue\",\"$one\",\"waiting\",0,null,null,null]"
    ftai-queue list | ftai-validate
    try ftai-queue show "${one^^}"
    ended 0
    same "$(jq -r '."@blocks"[] | ."@tag"' "$T/out")" $'route\ncommand'
    same "$(jq -r '."@blocks"[1].body' "$T/out")" "cmd:mark a"
    ftai-queue show "$one" "$two" | ftai-exec >"$T/passed"
    same "$(kinds "$T/passed")" "report report "
    [ ! -e "$HOME/marks" ]
}

@test "queue: drain does the tasks by priority, journals and prints" {
    a=$(queue cmd:mark a)
    b=$(queue cmd:mark b priority=9)
    c=$(queue cmd:mark c priority=9)
    try ftai-queue drain --dry-run
    ended 0
    empty "$T/out"
    same "$(cat "$T/err")" "$(for id in $b $c $a; do echo "ftai-queue: would do 'cmd:mark' of $id"; done)"
    [ ! -e "$HOME/marks" ]
    try ftai-queue drain
    ended 0
    empty "$T/err"
    same "$(cat "$HOME/marks")" $'b\nc\na'
    same "$(kinds "$T/out")" "audit audit attempt result audit audit attempt result audit audit attempt result "
    same "$(jq -r .from "$T/out" | sort -u)" ftai-queue
    same "$(jq -r 'select(."@tag" == "result") | .parent, .body' "$T/out")" "$(printf '%s\nmarked %s\n' "$b" b "$c" c "$a" a)"
    # The same records are in the journal, each once, in the thread of the command.
    ftai-log --verify >/dev/null
    ftai-recall --limit 100 --thread "$(jq -r 'select(.parent == "'"$a"'") | .thread' "$T/out" | head -n 1)" >thread
    same "$(kinds thread)" "audit audit attempt result "
    same "$(ftai-archive stats | jq .records)" "$(($(wc -l <"$T/out")))"
    same "$(state_db 'SELECT count(*) FROM queue')" 0
    same "$(state_db 'SELECT count(*) FROM outbox')" 0
    same "$(state_db 'SELECT DISTINCT state FROM claims')" done
    same "$(ls "$FTAI_HOME/state/runs")" ""
    try ftai-queue drain
    ended 0
    empty "$T/out"
    # What it printed may be piped on: nothing is journaled twice.
    before=$(ftai-archive stats | jq .records)
    ftai-log --sink <thread
    same "$(ftai-archive stats | jq .records)" "$before"
}

@test "queue: what cannot be had now waits on, and is done when it can" {
    id=$(queue cmd:later x)
    try ftai-queue drain
    ended 75
    grep -q "^ftai-queue: cannot run 'ftai-test-tool'" "$T/err"
    same "$(kinds "$T/out")" "attempt error "
    same "$(jq -r 'select(."@tag" == "error") | .recovery' "$T/out")" queue
    same "$(journaled "$id")" ""
    same "$(ftai-queue list | jq -c '[.tries, .error, .not_before > .queued]')" "[1,\"cannot run 'ftai-test-tool': no such program\",true]"
    # It is put off, so nothing is due; a route that waits is nobody else's.
    install_tool
    try ftai-queue drain
    ended 0
    empty "$T/out"
    try ftai-queue retry "$id"
    ended 0
    same "$(jq -c '[.act, .outcome]' "$T/out")" '["queue-retry","intended"]'$'\n''["queue-retry","done"]'
    try ftai-queue drain
    ended 0
    same "$(jq -r 'select(."@tag" == "result") | .body' "$T/out")" "did x"
    same "$(journaled "$id")" "done"
}

@test "queue: five failures are a dead letter, with the last error and one result" {
    id=$(queue cmd:later x)
    for n in 1 2 3 4; do
        try ftai-queue drain
        ended 75
        state_db "UPDATE queue SET not_before = NULL"
    done
    try ftai-queue drain
    ended 1
    same "$(kinds "$T/out")" "attempt error result "
    same "$(jq -r 'select(."@tag" == "error") | .recovery' "$T/out")" none
    same "$(journaled "$id")" failed
    same "$(ftai-queue list | jq -c '[.status, .tries, .error]')" "[\"dead\",5,\"cannot run 'ftai-test-tool': no such program\"]"
    same "$(state_db "SELECT state FROM claims")" "done"
    try ftai-queue drain
    ended 0
    ftai-queue wait
    install_tool
    try ftai-queue retry --dead --dry-run
    ended 0
    same "$(cat "$T/err")" "ftai-queue: would retry 'cmd:later' of $id"
    ftai-queue retry --dead >/dev/null
    same "$(state_db "SELECT state FROM claims")" queued
    same "$(ftai-queue drain | jq -r 'select(."@tag" == "result") | .body')" "did x"
    same "$(ftai-queue list)" ""
}

@test "queue: past its deadline it is not done" {
    id=$(queue cmd:mark a deadline=2026-01-01T00:00:00Z not_before=2999-01-01T00:00:00Z "error=no network")
    try ftai-queue drain
    ended 1
    same "$(jq -c '[."@tag", .class, .recovery, .status]' "$T/out")" '["error","timeout","none",null]'$'\n''["result",null,null,"failed"]'
    grep -q "no network" "$T/out"
    [ ! -e "$HOME/marks" ]
    same "$(ftai-queue list | jq -r .status)" dead
    try ftai-queue retry "$id"
    ended 1
    same "$(jq -r .outcome "$T/out")" $'intended\nfailed'
    same "$(ftai-queue list | jq -r .status)" dead
    # It has its end already, so that nothing but the letter goes.
    try ftai-queue drop "$id"
    ended 0
    same "$(kinds "$T/out")" "audit audit "
    same "$(ftai-queue list)" ""
    same "$(journaled "$id")" failed
}

@test "queue: drop ends a route as cancelled" {
    id=$(queue cmd:mark a)
    keep=$(queue cmd:mark b)
    try ftai-queue drop --dry-run "$id"
    ended 0
    same "$(cat "$T/err")" "ftai-queue: would drop 'cmd:mark' of $id"
    try ftai-queue drop "$id" "$id"
    ended 0
    same "$(jq -c '[."@tag", .outcome, .status]' "$T/out")" '["audit","intended",null]'$'\n''["audit","done",null]'$'\n''["result",null,"cancelled"]'
    same "$(journaled "$id")" cancelled
    same "$(ftai-queue list | jq -r .about)" "$keep"
    same "$(ftai-recall --tag audit --limit 10 | jq -r .act | sort | uniq -c | xargs)" "2 queue-drop"
}

@test "queue: a target that is gone, and consent that was withdrawn, end it" {
    gone=$(queue cmd:nothing x)
    try ftai-queue drain
    ended 78
    same "$(journaled "$gone")" failed
    away=$(pair cmd:away what=x | jq -c '.privacy = "cloud"' | "$root/.venv/bin/python" "$root/tests/stages/put.py")
    ftai-keys consent grant cmd:away >/dev/null
    ftai-keys consent withdraw cmd:away >/dev/null
    try ftai-queue drain
    ended 77
    same "$(journaled "$away")" refused
    same "$(jq -r 'select(."@tag" == "result") | .privacy' "$T/out")" cloud
    [ ! -e "$HOME/marks" ]
    same "$(ftai-queue list)" ""
}

@test "queue: the specs of now count" {
    id=$(queue cmd:mark x)
    sed -i 's/marked/now marked/' "$FTAI_HOME/config/serenamaster.commands.ftai"
    same "$(ftai-queue drain | jq -r 'select(."@tag" == "result") | .body')" "now marked x"
    id=$(queue cmd:mark y)
    sed -i '0,/^  name: "mark"/s//  off: true\n  name: "mark"/' "$FTAI_HOME/config/serenamaster.commands.ftai"
    try ftai-queue drain
    ended 77
    same "$(cat "$HOME/marks")" x
    same "$(journaled "$id")" refused
}

@test "queue: what cannot be opened waits on, and no failure is counted" {
    export FTAI_ENCRYPT=local
    id=$(queue cmd:mark Zoltan)
    other=$(queue cmd:mark Zoltan)
    same "$(grep -rlaF Zoltan "$FTAI_HOME/state" | cat)" ""
    mv "$FTAI_HOME/state/keys/identity" "$T/identity"
    try ftai-queue drain
    ended 75
    empty "$T/out"
    same "$(grep -c "cannot be opened here" "$T/err")" 2
    same "$(ftai-queue list | jq -c '[.status, .tries, .not_before]')" $'["waiting",0,null]\n["waiting",0,null]'
    mv "$T/identity" "$FTAI_HOME/state/keys/identity"
    try ftai-queue drain
    ended 0
    same "$(jq -r 'select(."@tag" == "result") | .body' "$T/out")" $'marked Zoltan\nmarked Zoltan'
    same "$(ftai-recall --tag result --limit 10 | jq -r .body)" $'marked Zoltan\nmarked Zoltan'
    same "$(grep -rlaF Zoltan "$FTAI_HOME/state" | cat)" ""
}

@test "queue: the last error of a sealed task is its class alone" {
    export FTAI_ENCRYPT=local
    queue cmd:later Zoltan
    try ftai-queue drain
    ended 75
    same "$(ftai-queue list | jq -r .error)" spec
}

@test "queue: what a drain that died left in the outbox is journaled by the next, once" {
    id=$(queue cmd:mark a)
    ftai-queue drain >out
    thread=$(jq -r .thread out | head -n 1)
    # As if it had died before the delete (the result, which the journal holds), and another before it journaled (a note).
    tail -n 1 out >left
    jq -c '.id = "0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e" | .body = "left behind"' left >>left.new
    cat left.new >>left
    while read -r line; do state_db "INSERT INTO outbox (route, line) VALUES ('$id', CAST('${line//\'/\'\'}' AS BLOB))"; done <left
    before=$(ftai-archive stats | jq .records)
    try ftai-queue drain
    ended 0
    same "$(jq -r .body "$T/out")" $'marked a\nleft behind'
    same "$(ftai-archive stats | jq .records)" $((before + 1))
    same "$(state_db 'SELECT count(*) FROM outbox')" 0
    # The same without an archive to ask.
    while read -r line; do state_db "INSERT INTO outbox (route, line) VALUES ('$id', CAST('${line//\'/\'\'}' AS BLOB))"; done <left
    rm "$FTAI_HOME/state/"archive.db*
    mkdir "$FTAI_HOME/state/archive.db"
    try ftai-queue drain
    rmdir "$FTAI_HOME/state/archive.db"
    same "$(ftai-archive stats | jq .records)" $((before + 1))
}

@test "queue: kill -9 in the middle, and the next drain does it" {
    id=$(queue cmd:hang x)
    ftai-queue drain >out &
    pid=$!
    until_true test -e "$HOME/pids"
    same "$(ftai-queue list | jq -r .status)" held
    for verb in drop retry; do
        try ftai-queue $verb "$id"
        ended 75
        same "$(jq -r .outcome "$T/out")" $'intended\nfailed'
    done
    try ftai-queue wait "$id" --timeout 0.1
    ended 75
    kill -9 $pid
    wait $pid || true
    sed -i 's/^  run: .*pids.*/  run: ["echo", "this time"]/' "$FTAI_HOME/config/serenamaster.commands.ftai"
    try ftai-queue drain
    ended 0
    same "$(jq -r 'select(."@tag" == "result") | .body' "$T/out")" "this time"
    same "$(journaled "$id")" "done"
    same "$(ls "$FTAI_HOME/state/runs")" ""
}

@test "queue: SIGTERM gives the task in hand back" {
    id=$(queue cmd:hang x)
    queue cmd:mark never
    ftai-queue drain >out 2>err &
    pid=$!
    until_true test -e "$HOME/pids"
    kill -TERM $pid
    rc=0
    wait $pid || rc=$?
    same "$rc" 143
    empty err
    same "$(kinds out)" "audit audit attempt "
    same "$(ftai-queue list | jq -c '[.status, .tries]')" $'["waiting",0]\n["waiting",0]'
    same "$(journaled "$id")" ""
    [ ! -e "$HOME/marks" ]
    ! kill -0 "$(cat "$HOME/pids")" 2>/dev/null
}

@test "queue: --watch goes on until a signal" {
    queue cmd:mark a
    ftai-queue drain --watch >out 2>err &
    pid=$!
    until_true grep -q '"result"' out
    kill -TERM $pid
    rc=0
    wait $pid || rc=$?
    same "$rc" 143
    # It sleeps until this is due, not to the next look.
    queue cmd:mark b "not_before=$(date -u -d '+2 seconds' +%FT%TZ)"
    ftai-queue drain --watch >out2 2>err &
    pid=$!
    until_true grep -q '"result"' out2
    same "$(cat "$HOME/marks")" $'a\nb'
    kill -TERM $pid
    rc=0
    wait $pid || rc=$?
    same "$rc" 143
    empty err
    same "$(ls "$FTAI_HOME/state/runs")" ""
}

@test "queue: wait ends when all is answered" {
    id=$(queue cmd:mark a)
    queue cmd:later b
    ftai-queue wait "$id" &
    pid=$!
    try ftai-queue drain
    ended 75
    wait $pid
    try ftai-queue wait --timeout 0
    ended 75
    grep -q "^ftai-queue: 1 task of the queue not answered yet" "$T/err"
    install_tool
    ftai-queue retry "$(ftai-queue list | jq -r .about)" >/dev/null
    ftai-queue drain >/dev/null
    try ftai-queue wait
    ended 0
}

@test "queue: several drains at once do each task once" {
    for n in $(seq 12); do queue cmd:mark "$n" >/dev/null; done
    for k in 1 2 3 4; do ftai-queue drain >"out$k" 2>"err$k" & done
    wait
    same "$(sort -n "$HOME/marks")" "$(seq 12)"
    same "$(cat out? | jq -r 'select(."@tag" == "result") | .status' | sort | uniq -c | xargs)" "12 done"
    cat err? >err
    empty err
    ftai-log --verify >/dev/null
    same "$(ftai-recall --tag result --limit 100 | jq -r .parent | sort -u | wc -l)" 12
}

@test "queue: ftai-exec leaves alone what waits, --again too, and says so" {
    pair cmd:mark what=a >in
    id=$("$root/.venv/bin/python" "$root/tests/stages/put.py" <in)
    try ftai-exec in
    ended 0
    same "$(cat "$T/out")" "$(cat in)"
    try ftai-exec --again in
    ended 75
    same "$(cat "$T/out")" "$(cat in)"
    grep -q "^hint: ftai-queue retry $id" "$T/err"
    [ ! -e "$HOME/marks" ]
    ftai-queue drain >/dev/null
    same "$(cat "$HOME/marks")" a
    ftai-exec --again in >/dev/null
    same "$(cat "$HOME/marks")" $'a\na'
}

@test "queue: a closed reader loses nothing" {
    queue cmd:mark a >/dev/null
    queue cmd:mark b >/dev/null
    set +o pipefail
    { rc=0; ftai-queue drain 2>err || rc=$?; echo $rc >code; } | true
    same "$(cat code)" 141
    ftai-queue drain >/dev/null
    ftai-log --verify >/dev/null
    same "$(ftai-recall --tag result --limit 10 | jq -r .parent | sort | uniq -c | awk '{print $1}' | xargs)" "1 1"
}

@test "queue: the journal cannot be written: 74, and the result is not lost" {
    id=$(queue skill:time x)
    mkdir -p -m 700 "$FTAI_HOME/state/journal/current.ftai"
    try ftai-queue drain
    ended 74
    empty "$T/out"
    grep -q "current.ftai" "$T/err"
    same "$(state_db 'SELECT count(*) FROM outbox')" 2
    rmdir "$FTAI_HOME/state/journal/current.ftai"
    same "$(ftai-queue drain | jq -r '[."@tag", .parent] | @tsv' | tail -n 1)" "result"$'\t'"$id"
    same "$(journaled "$id")" "done"
}

@test "queue: with a broken spec all waits on: 78" {
    id=$(queue cmd:mark x)
    cp "$FTAI_HOME/config/serenamaster.commands.ftai" whole
    echo '@program' >>"$FTAI_HOME/config/serenamaster.commands.ftai"
    try ftai-queue drain
    ended 78
    empty "$T/out"
    [ ! -e "$HOME/marks" ]
    cp whole "$FTAI_HOME/config/serenamaster.commands.ftai"
    same "$(ftai-queue list | jq -c '[.status, .tries]')" '["waiting",0]'
    same "$(state_db 'SELECT lost FROM queue')" 0
    same "$(ftai-queue drain | jq -r 'select(."@tag" == "result") | .status')" "done"
}

@test "queue: the cron entry of the page works under env -i" {
    id=$(queue cmd:mark a)
    line=$(sed -n 's/^\*\/5 \* \* \* \*  //p' "$root/man/ftai-queue.1")
    [ -n "$line" ]
    rc=0
    env -i HOME="$HOME" FTAI_HOME="$FTAI_HOME" PATH="$root/bin:/usr/bin:/bin" SHELL=/bin/sh /bin/sh -c "$line" >"$T/out" 2>"$T/err" || rc=$?
    ended 0
    empty "$T/out"
    empty "$T/err"
    same "$(cat "$HOME/marks")" a
    same "$(journaled "$id")" "done"
}

@test "queue: the launchd entry of the page is well-formed" {
    sed -n '/^<?xml/,/^<\/plist>/p' "$root/man/ftai-queue.1" >plist
    [ -s plist ]
    "$root/.venv/bin/python" -c 'import plistlib, sys; print(*plistlib.load(open("plist", "rb"))["ProgramArguments"][1:])' >words
    same "$(cat words)" "drain --watch --quiet"
}

@test "queue: a purge takes what waits along, and nothing else" {
    id=$(queue cmd:mark "Zoltan the Great")
    keep=$(queue cmd:mark other)
    [ -n "$(grep -rlaF Zoltan "$FTAI_HOME/state")" ]
    try ftai-archive purge --pattern Zoltan --because x
    ended 0
    grep -q "warning: 1 task waited in the queue" "$T/err"
    same "$(grep -rlaF Zoltan "$FTAI_HOME" | cat)" ""
    same "$(ftai-queue list | jq -r .about)" "$keep"
    # One that was journaled goes by what names it in the journal.
    pair cmd:mark "what=Zoltan the Great" >in
    ftai-log --sink <in
    "$root/.venv/bin/python" "$root/tests/stages/put.py" <in
    try ftai-archive purge --thread "$(jq -r .thread in | head -n 1)" --because x
    ended 0
    same "$(grep -rlaF Zoltan "$FTAI_HOME" | cat)" ""
    same "$(ftai-queue list | jq -r .about)" "$keep"
    # What has nothing to do with it stays.
    ftai-run "remember to call Ottokar" >/dev/null
    ftai-archive purge --pattern Ottokar --because x >/dev/null
    same "$(ftai-queue list | jq -r .about)" "$keep"
    ftai-queue drain >/dev/null
    same "$(cat "$HOME/marks")" other
}
