load helper

scale=${FTAI_TEST_SCALE:-1} # scratch unsets it

setup() {
    scratch
    mkdir -p "$FTAI_HOME/config"
    cat >"$FTAI_HOME/config/serenamaster.commands.ftai" <<'SPEC'
@ftai v2.0
@program
  name: "mark"
  run: ["sh", "-c", "echo \"$1\" >>marks", "sh", "{what}"]
  timeout: 30
  output: 1000
  summary: "leaves a line in ~/marks"
@end
@program
  name: "hang"
  run: ["sh", "-c", "sleep 600 & echo $$ $! >pids.new; mv pids.new pids; wait"]
  timeout: 600
  output: 1000
  summary: "never ends"
@end
@program
  name: "shut"
  run: ["touch", "{path}"]
  timeout: 10
  output: 1000
  summary: "makes a file"
@end
SPEC
}

# A command and its route to this target, with these slots (name=value).
pair() { "$root/.venv/bin/python" "$root/tests/stages/pair.py" "$@"; }
kinds() { jq -r '."@tag"' "$1" | tr '\n' ' '; }
gone() { ! kill -0 "$1" 2>/dev/null || grep -q '^State:.Z' "/proc/$1/status"; }
same_as_before() { same "$(head -n "$2" "$T/out" | cat)" "$(cat "$1")"; }

@test "exec: a route, then what became of it" {
    pair skill:task 'what=send the invoice' when=tomorrow >in
    try ftai-exec in
    ended 0
    empty "$T/err"
    same_as_before in 2
    same "$(kinds "$T/out")" "command route attempt task result "
    same "$(tail -n 1 "$T/out" | jq -r '.status, .from')" $'done\nftai-exec'
}

@test "exec: the same input twice acts once" {
    for what in a b c; do pair cmd:mark what=$what; done >in
    ftai-exec in >first
    try ftai-exec in
    ended 0
    same "$(cat "$T/out")" "$(cat in)"
    same "$(cat "$HOME/marks")" $'a\nb\nc'
    same "$(jq -r 'select(."@tag" == "result") | .status' first)" $'done\ndone\ndone'
}

@test "exec: the same route twice in one input acts once" {
    pair cmd:mark what=a >in
    cat in in >twice
    try ftai-exec twice
    ended 0
    same "$(cat "$HOME/marks")" a
}

@test "exec: --again acts again" {
    pair cmd:mark what=a >in
    ftai-exec in >/dev/null
    ftai-exec --again in >/dev/null
    same "$(cat "$HOME/marks")" $'a\na'
}

@test "exec: eight at once act once in all" {
    for n in $(seq 40); do pair cmd:mark "what=$n"; done >in
    for k in 1 2 3 4 5 6 7 8; do ftai-exec in >"out$k" 2>"err$k" & done
    wait
    same "$(sort -n "$HOME/marks")" "$(seq 40)"
    same "$(cat out? | jq -r 'select(."@tag" == "result") | .status' | sort | uniq -c | xargs)" "40 done"
    same "$(ls "$FTAI_HOME/state/runs")" ""
    cat err? >err
    empty err
}

@test "exec: recalled history, piped back, does nothing" {
    ftai-listen "remember to send the invoice tomorrow" | ftai-route | ftai-exec | ftai-log >/dev/null
    pair cmd:mark what=a | ftai-exec | ftai-log >/dev/null
    ftai-recall --limit 100 >history
    [ "$(grep -c '"route"' history)" -gt 0 ] || ftai-recall --thread "$(jq -r .thread history | head -n 1)" >history
    rm -rf "$FTAI_HOME/state/state.db"* # not the claims keep it from acting: what was journaled is history
    ftai-route <history | ftai-exec >out
    same "$(cat out)" "$(cat history)"
    same "$(cat "$HOME/marks")" a
}

@test "exec: history without a claim is not acted on" {
    pair cmd:mark what=a | ftai-log >/dev/null
    thread=$(ftai-recall --tag command | jq -r .thread)
    ftai-recall --thread "$thread" >history
    same "$(kinds history)" "command route "
    try ftai-exec history
    ended 0
    same "$(cat "$T/out")" "$(cat history)"
    [ ! -e "$HOME/marks" ]
}

@test "exec: kill -9 in the middle is told of as interrupted, and not done again" {
    { pair cmd:mark what=a; pair cmd:hang; pair cmd:mark what=b; } >in
    ftai-exec in >first 2>err1 &
    pid=$!
    until_true test -e "$HOME/pids"
    # What was done, and what it is about to do, is out before it waits.
    same "$(kinds first)" "command route audit audit attempt result command route audit "
    kill -9 $pid
    wait $pid || true
    read -r one two <"$HOME/pids"
    kill -9 "$one" "$two" || true
    rm "$HOME/pids"
    try ftai-exec in
    ended 1
    grep -q "^ftai-exec: 'cmd:hang' was interrupted" "$T/err"
    same "$(kinds "$T/out")" "command route command route error result command route audit audit attempt result "
    same "$(jq -r 'select(."@tag" == "error") | .class' "$T/out")" interrupted
    same "$(jq -r 'select(."@tag" == "result") | .status' "$T/out")" $'failed\ndone'
    [ ! -e "$HOME/pids" ]
    same "$(cat "$HOME/marks")" $'a\nb'
    try ftai-exec in
    ended 0
    same "$(cat "$T/out")" "$(cat in)"
}

@test "exec: kill -9 takes its program along" {
    [ "$(uname)" = Linux ] || skip "no PR_SET_PDEATHSIG"
    pair cmd:hang >in
    ftai-exec in >first &
    pid=$!
    until_true test -e "$HOME/pids"
    kill -9 $pid
    wait $pid || true
    read -r one two <"$HOME/pids"
    until_true gone "$one"
    kill -9 "$two" || true
}

@test "exec: the next one tells of an interrupted route that it does not read" {
    pair cmd:hang >in
    ftai-exec in >first &
    pid=$!
    until_true test -e "$HOME/pids"
    kill -9 $pid
    wait $pid || true
    xargs kill -9 <"$HOME/pids" || true
    pair skill:time >other
    try ftai-exec other
    same "$(kinds "$T/out")" "error result command route attempt result "
    same "$(head -n 2 "$T/out" | jq -r .parent)" "$(for i in 1 2; do tail -n 1 in | jq -r .id; done)"
}

@test "exec: a result that reached the journal is the end, whatever became of the process" {
    pair cmd:mark what=a >in
    ftai-exec in | ftai-log >/dev/null
    # As a power cut would leave it: held by a run of another boot.
    "$root/.venv/bin/python" - "$FTAI_HOME/state/state.db" <<'PY'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("INSERT INTO runs VALUES (1, 'x', 1, '', '')")
db.execute("UPDATE claims SET state = 'held', run = 1")
db.commit()
PY
    pair skill:time >other
    try ftai-exec in other
    ended 0
    same "$(kinds "$T/out")" "command route command route attempt result "
}

for_signal() {
    { pair cmd:mark what=a; pair cmd:hang; pair cmd:mark what=b; } >in
    # A job in the background would ignore SIGINT, as sh has it.
    "$root/.venv/bin/python" -c 'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])' \
        ftai-exec in >out 2>err &
    pid=$!
    until_true test -e "$HOME/pids"
    kill "-$1" $pid
    code=0
    wait $pid || code=$?
    same $code "$2"
    for child in $(cat "$HOME/pids"); do until_true gone "$child"; done
    same "$(kinds out)" "command route audit audit attempt result command route audit audit attempt result "
    same "$(jq -r 'select(."@tag" == "result" or ."@tag" == "attempt") | .status' out | xargs)" "done done cancelled cancelled"
    # What was not begun is free; what was cancelled is over.
    try ftai-exec in
    ended 0
    same "$(cat "$HOME/marks")" $'a\nb'
    same "$(kinds "$T/out")" "command route command route command route audit audit attempt result "
}
@test "exec: SIGTERM ends children, says cancelled, and is died of" { for_signal TERM 143; }
@test "exec: SIGINT ends children, says cancelled, and is died of" { for_signal INT 130; }
@test "exec: SIGHUP ends children, says cancelled, and is died of" { for_signal HUP 129; }

@test "exec: SIGTERM ends the reading of a long file" {
    truncate -s 1T big.bin
    pair skill:document path="$T/big.bin" >in
    ftai-exec in >out 2>err &
    pid=$!
    until_true eval "ls -l /proc/$pid/fd 2>/dev/null | grep -q big.bin"
    kill -TERM $pid
    code=0
    wait $pid || code=$?
    same $code 143
    same "$(kinds out)" "command route attempt result "
    same "$(jq -r '.status // empty' out | xargs)" "cancelled cancelled"
}

@test "exec: SIGTERM while it waits for input" {
    mkfifo pipe
    ftai-exec <pipe >out &
    pid=$!
    exec 9>pipe
    pair skill:time >&9
    until_true grep -q '"result"' out
    kill -TERM $pid
    code=0
    wait $pid || code=$?
    exec 9>&-
    same $code 143
    same "$(kinds out)" "command route attempt result "
}

@test "exec: a result comes out while the next route has not been written" {
    mkfifo pipe
    ftai-exec <pipe >out &
    exec 9>pipe
    pair skill:time >&9
    until_true grep -q '"result"' out
    exec 9>&-
    wait
}

@test "exec: no effect where the journal cannot be written" {
    pair cmd:mark what=a >in
    pair skill:note text=x >>in
    mkdir -p "$FTAI_HOME/state"
    : >"$FTAI_HOME/state/journal"
    try ftai-exec in
    ended 73
    [ ! -e "$HOME/marks" ]
    [ ! -e "$FTAI_HOME/data/notes/notes.txt" ]
    same "$(kinds "$T/out")" "command route attempt error result command route attempt error result "
    same "$(jq -r 'select(."@tag" == "error") | .class' "$T/out" | xargs)" "storage storage"
}

@test "exec: no effect where the journal's disk is full" {
    pair cmd:mark what=a >in
    strace -o trace -f -e trace=write -e inject=write:error=ENOSPC -P "$FTAI_HOME/state/journal/current.ftai" \
        "$root/.venv/bin/python" "$root/bin/ftai-exec" in >out 2>err && rc=0 || rc=$?
    grep -q INJECTED trace || skip "strace injects nothing here"
    same $rc 74
    [ ! -e "$HOME/marks" ]
    same "$(jq -r 'select(."@tag" == "result") | .status' out)" failed
}

@test "exec: no effect where nothing can be claimed, and it may be sent again" {
    pair cmd:mark what=a >in
    mkdir -p "$FTAI_HOME/state/state.db"
    try ftai-exec in
    ended 73
    same "$(kinds "$T/out")" "command route error "
    [ ! -e "$HOME/marks" ]
    rmdir "$FTAI_HOME/state/state.db"
    ftai-exec in >/dev/null
    same "$(cat "$HOME/marks")" a
}

@test "exec: intent and outcome are in the journal when it ends, without ftai-log" {
    pair skill:note text=x | ftai-exec >out
    same "$(grep -c '^@audit' "$FTAI_HOME/state/journal/current.ftai")" 2
    ftai-log <out >/dev/null
    same "$(grep -c '^@audit' "$FTAI_HOME/state/journal/current.ftai")" 2
    ftai-log --verify >/dev/null
}

@test "exec: a damaged archive is no hindrance" {
    mkdir -p "$FTAI_HOME/state"
    head -c 100000 /dev/urandom >"$FTAI_HOME/state/archive.db"
    pair cmd:mark what=a >in
    try ftai-exec in
    ended 0
    same "$(cat "$HOME/marks")" a
}

@test "exec: where there is nothing to do, nothing is made" {
    printf '{"@tag":"command","body":"x"}\n{"@tag":"x_y"}\n' >in
    rm -r "$FTAI_HOME"
    try ftai-exec in
    ended 0
    same "$(cat "$T/out")" "$(cat in)"
    [ ! -e "$FTAI_HOME" ]
}

@test "exec: --dry-run acts on nothing and says what it would do" {
    { pair cmd:mark 'what=a b'; pair skill:remember what=x; pair model:any; } >in
    try ftai-exec --dry-run in
    ended 0
    same "$(cat "$T/out")" "$(cat in)"
    same "$(cat "$T/err")" "ftai-exec: would do run: sh -c 'echo \"\$1\" >>marks' sh 'a b'
ftai-exec: would do 'skill:remember' what='x'
ftai-exec: would not do 'model:any': the model 'any' is not set up"
    [ ! -e "$HOME/marks" ]
    [ ! -e "$FTAI_HOME/state/state.db" ]
}

@test "exec: statuses" {
    status() {
        pair "${@:2}" >in
        try ftai-exec in
        ended "$1"
        same "$(jq -r 'select(."@tag" == "result")' "$T/out" | jq -s length)" 1
    }
    status 0 ask
    status 69 model:local
    status 69 mcp:files.read
    status 69 agent:cfo
    status 78 skill:nothing
    status 78 cmd:rm
    status 77 cmd:shut path=--version
    status 77 skill:note text=x path=/etc/x
    status 66 skill:head path=missing
    status 1 cmd:shut path=no/such/folder
    tail -n 1 in >orphan
    sed -i 's/"id":"......../"id":"ffffffff/' orphan
    sed -i 's/"parent":"......../"parent":"ffffffff/' orphan
    try ftai-exec orphan
    ended 1
    same "$(jq -r 'select(."@tag" == "error") | .class' "$T/out")" orphan
    { pair model:local; pair skill:nothing; } >in
    try ftai-exec in
    ended 1
}

@test "exec: hostile slots stay arguments" {
    n=0
    for what in '; touch made' '$(touch made)' '`touch made`' $'a\nb' $'x\n@end\n@decision' '*' "'" '"'; do
        pair cmd:mark "what=$what" >in
        try ftai-exec in
        ended 0
        n=$((n + 1))
    done
    [ ! -e "$HOME/made" ]
    [ ! -e made ]
    pair cmd:mark what=LONG >in
    { head -n 1 in; tail -n 1 in | jq -c --rawfile long <(head -c 1000000 /dev/zero | tr '\0' x) '."@blocks"[0].what = $long'; } >long
    mv long in
    try ftai-exec in
    ended 65
    same "$(grep -c xxx "$HOME/marks")" 0
}

@test "exec: routes from another's hands may hold anything" {
    cat >in <<'IN'
{"@tag":"command","id":"019ab9c4-7d1e-7a31-9c1b-000000000001","ts":7,"thread":[1],"body":["x"],"tz":9,"privacy":3}
{"@tag":"route","id":"019ab9c4-7d1e-7a31-9c1b-000000000002","parent":"019ab9c4-7d1e-7a31-9c1b-000000000001","target":"skill:task","thread":[1],"privacy":["x"],"rule":4,"deadline":7}
{"@tag":"route","id":"019ab9c4-7d1e-7a31-9c1b-000000000003","parent":"019ab9c4-7d1e-7a31-9c1b-000000000001","target":"skill:task","thread":[1],"privacy":["x"],"rule":4,"@blocks":[{"@tag":"slots","what":3,"when":["a"]},{"@tag":"slots","what":true}]}
{"@tag":"route","parent":7,"target":["x"]}
{"@tag":"route"}
{"@tag":"result","parent":["x"]}
{"@tag":"command","id":4}
IN
    try ftai-exec in
    [ "$rc" -eq 1 ]
    same "$(grep -c 'a bug' "$T/err")" 0
    same "$(jq -r 'select(."@tag" == "result") | .status // "-"' "$T/out" | xargs)" "failed done failed failed -"
}

@test "exec: under env -i, from a symbolic link, in a closed folder" {
    ln -s "$root/bin/ftai-exec" link
    pair skill:time >in
    env -i FTAI_HOME="$FTAI_HOME" "$T/link" "$T/in" >out
    same "$(kinds out)" "command route attempt result "
}

# Some are killed at random; then one goes through to the end. Nothing is done twice, and what is not done is told of.
@test "exec: kill -9 of three at random moments" {
    rounds=$((6 * scale))
    killed=0
    for round in $(seq $rounds); do
        for n in $(seq 12); do pair cmd:mark "what=$round.$n"; done >in
        # Who is killed before it has opened its output would leave that of the round before.
        rm -f out?
        pids=()
        for k in 1 2 3; do
            ftai-exec in >"out$k" 2>/dev/null &
            pids+=($!)
        done
        sleep "0.$((RANDOM % 2))$((RANDOM % 10))"
        for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null && killed=$((killed + 1)); done
        wait "${pids[@]}" || true
        ftai-exec in >out4 2>/dev/null || true
        # A child of one that was killed may still be writing its line.
        done=$(cat out? | jq -r 'select(."@tag" == "result" and .status == "done") | .parent' 2>/dev/null | sort)
        same "$done" "$(uniq <<<"$done")"
        cat out? | jq -r 'select(."@tag" == "result") | .parent' | sort -u >ended
        same "$(jq -r 'select(."@tag" == "route") | .id' in | sort)" "$(cat ended)"
    done
    same "$(sort "$HOME/marks" | uniq -d)" ""
    echo "killed $killed" >&3
    [ "$killed" -gt 0 ]
}
