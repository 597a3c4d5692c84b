#!/usr/bin/env bats
# ftai-log: what passes and when, what is journaled, how it ends.

load helper

ID=0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e

setup() {
    scratch
    J=$FTAI_HOME/state/journal
}

# What a failed test left in the background would keep bats from ending.
teardown() { kill $(jobs -p) 2>/dev/null || true; }

# $1 records of one thread, each with an id of its own.
records() {
    seq "$1" | awk -v thread="$ID" '{
        printf "{\"@tag\":\"note\",\"id\":\"0199c2f4-7d1e-7a31-9c1b-%012d\",\"ts\":\"2026-11-22T13:25:00.041Z\",\"thread\":\"%s\",\"body\":\"note %d\"}\n", $1, thread, $1
    }'
}

journaled() { ftai-parse "$J/current.ftai" | jq -c 'select(."@blocks"[-1]."@tag" == "chain")'; }
bodies() { journaled | jq -r .body; }
lines() { wc -l <"$1"; }
has_lines() { [ "$(lines "$1")" -ge "$2" ]; }

@test "records pass as the same bytes and are in the journal" {
    records 3 >in
    try ftai-log in
    ended 0
    cmp in "$T/out"
    empty "$T/err"
    same "$(bodies | tr '\n' ,)" "note 1,note 2,note 3,"
    try ftai-log --verify
    ended 0
    grep -q "3 records, seq 1 to 3, are as written" "$T/out"
    try ftai-log --verify -q
    ended 0
    empty "$T/out"
}

@test "what lacks id, ts or thread gets it, and an id that is no UUID becomes ref" {
    printf '{"@tag":"note","id":"T-1","body":"x"}\n' | ftai-log >"$T/out"
    jq -e '.ref == "T-1" and .thread == .id and (.ts | endswith("Z"))' "$T/out"
    same "$(journaled | jq -c 'del(."@blocks")')" "$(jq -c . "$T/out")"
}

@test "the same input twice is written once" {
    records 5 >in
    ftai-log in >/dev/null
    try ftai-log in
    ended 0
    cmp in "$T/out"
    ftai-log --verify | grep -q "5 records"
    # What comes out of the journal again is no news either.
    ftai-parse "$J/current.ftai" >again
    try ftai-log again
    ended 0
    cmp again "$T/out"
    ftai-log --verify | grep -q "5 records"
}

@test "another record under an id that is taken: an error record in its place, 1" {
    records 3 >in
    ftai-log --sink in
    sed 's/note 2/note two/' in >other
    try ftai-log other
    ended 1
    same "$(jq -r '."@tag"' "$T/out" | tr '\n' ,)" "note,error,note,"
    jq -se '.[1] | .class == "conflict" and .about == "0199c2f4-7d1e-7a31-9c1b-000000000002" and .from == "ftai-log"' "$T/out"
    grep -q "^ftai-log: cannot journal a record: id '0199c2f4" "$T/err"
    same "$(journaled | jq -r '."@tag"' | tr '\n' ,)" "note,note,note,error,"
    try ftai-log --strict other
    ended 1
    same "$(jq -r '."@tag"' "$T/out" | tr '\n' ,)" "note,error,"
}

@test "what text cannot hold: an error record in its place, the rest is journaled, 1" {
    { records 1; printf '{"@tag":"note","id":"%s","body":"bell \\u0007"}\n' "$ID"; records 2 | tail -n 1; } >in
    try ftai-log in
    ended 1
    same "$(jq -r '."@tag"' "$T/out" | tr '\n' ,)" "note,error,note,"
    same "$(jq -r 'select(."@tag" == "error") | .class, .parent, .message' "$T/out")" "input
$ID
field 'body': U+0007 cannot be written"
    same "$(journaled | jq -r '."@tag"' | tr '\n' ,)" "note,note,error,"
    ftai-log --verify
}

@test "each record passes before the next one is read" {
    mkfifo in
    ftai-log in >out &
    pid=$!
    exec 9>in
    records 1 >&9
    until_true has_lines out 1
    same "$(bodies)" "note 1"
    records 2 | tail -n 1 >&9
    until_true has_lines out 2
    exec 9>&-
    wait $pid
}

@test "--sync each writes the same journal" {
    records 20 >in
    try ftai-log --sync each in
    ended 0
    cmp in "$T/out"
    ftai-log --verify | grep -q "20 records"
    try ftai-log --sync never in
    ended 2
}

@test "--sync each syncs each record before it passes" {
    command -v strace >/dev/null || skip "STRACE IS MISSING: the order of sync and write is not seen"
    records 5 >in
    strace -f -o trace -e trace=write,fdatasync -y ftai-log --sync each in >out
    # Per record: into the journal, its sync, onto the output.
    grep -oE '(write|fdatasync)\([0-9]+<[^>]*(current\.ftai|/out)>' trace | sed -E 's/\(.*\//-/; s/>//' >order
    same "$(tr '\n' ' ' <order)" "$(for _ in 1 2 3 4 5; do printf 'write-current.ftai fdatasync-current.ftai write-out '; done)"
    strace -f -o trace -e trace=write,fdatasync -y ftai-log <(sed 's/b-0000/b-1111/' in) >out
    grep -oE '(write|fdatasync)\([0-9]+<[^>]*(current\.ftai|/out)>' trace | sed -E 's/\(.*\//-/; s/>//' >order
    same "$(tr '\n' ' ' <order)" "write-current.ftai fdatasync-current.ftai write-out "
}

@test "--sink prints nothing" {
    records 3 | ftai-log --sink >"$T/out"
    empty "$T/out"
    ftai-log --verify | grep -q "3 records"
}

@test "--dry-run writes nothing" {
    records 3 >in
    try ftai-log --dry-run in
    ended 0
    cmp in "$T/out"
    grep -qx "ftai-log: would write 3 records" "$T/err"
    [ ! -e "$J/current.ftai" ]
    head -n 1 in | ftai-log --sink
    try ftai-log --dry-run in
    grep -qx "ftai-log: would write 2 records" "$T/err"
    printf '{"@tag":"note","body":"\\u0007"}\n' >in
    try ftai-log --dry-run in
    ended 1
}

@test "partials pass at once, and a cut answer is a result" {
    piece() { printf '{"@tag":"partial","parent":"%s","thread":"%s","n":%d,"body":"%s"}\n' "$ID" "$ID" "$1" "$2"; }
    mkfifo in
    ftai-log in >out &
    pid=$!
    exec 9>in
    piece 1 "hel" >&9
    until_true has_lines out 1
    piece 2 "lo" >&9
    until_true has_lines out 2
    exec 9>&-
    wait $pid
    same "$(jq -r '[."@tag", .status, .parent, .body] | @csv' out | tail -n 1)" "\"result\",\"cut\",\"$ID\",\"hello\""
    same "$(journaled | jq -r '."@tag"')" "result"
    same "$(journaled | jq -c 'del(."@blocks")')" "$(tail -n 1 out)"
    { piece 1 x; printf '{"@tag":"result","parent":"%s","status":"done","body":"x"}\n' "$ID"; } | ftai-log --sink
    same "$(journaled | jq -r .status | tr '\n' ,)" "cut,done,"
}

@test "documents, narrative and heads" {
    cat >doc.ftai <<'END'
@ftai v2.0 lang:en

@document
  title: "x"
@end

@schema
  required_tags: ["@document"]
@end

words between

@note
  body: "n"
@end
END
    try ftai-log doc.ftai
    ended 0
    same "$(journaled | jq -r '."@tag" + " " + (.part_of // "")' | tr '\n' ,)" "prose ftai,prose document,prose schema,prose narrative,note ,"
    ftai-log --verify
    # Our own journal in again: its heads pass and are not written.
    cp "$J/current.ftai" copy.ftai
    try ftai-log copy.ftai
    ended 0
    ftai-log --verify | grep -q "5 records"
}

@test "a text of the specs leaves its mark when it is journaled" {
    printf '{"@tag":"specs","digest":"b1946ac92492","body":"x"}\n' | ftai-log --sink
    [ -e "$FTAI_HOME/state/specs/b1946ac92492" ]
}

@test "the reader goes away: everything is journaled, 141" {
    records 2000 >in
    set +e
    ftai-log in | head -n 1 >/dev/null
    same "${PIPESTATUS[0]}" 141
    set -e
    ftai-log --verify | grep -q "2000 records"
}

@test "SIGINT is ignored unless standard input is a terminal" {
    mkfifo in
    # A shell's background jobs ignore SIGINT from the start: a stage that is started so would prove nothing.
    python3 -c 'import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); os.execvp("ftai-log", ["ftai-log"])' <in >out &
    pid=$!
    exec 9>in
    records 1 >&9
    until_true has_lines out 1
    kill -INT $pid
    records 2 | tail -n 1 >&9
    until_true has_lines out 2
    exec 9>&-
    wait $pid
    same "$(bodies | tr '\n' ,)" "note 1,note 2,"
}

@test "SIGTERM ends it; what had passed is journaled" {
    mkfifo in
    ftai-log in >out &
    pid=$!
    exec 9>in
    records 1 >&9
    until_true has_lines out 1
    kill -TERM $pid
    rc=0
    wait $pid || rc=$?
    exec 9>&-
    same $rc 143
    same "$(bodies)" "note 1"
}

@test "--status: by the results that passed" {
    result() { printf '{"@tag":"result","id":"%s","ts":"2026-11-22T13:25:00.041Z","thread":"%s","status":"%s"}\n' "0199c2f4-7d1e-7a31-9c1b-$(printf %012d "$1")" "$ID" "$2"; }
    number=0
    check() { # expected status, then results
        local want=$1
        shift
        : >in
        for status; do result $((++number)) "$status" >>in; done
        try ftai-log --status in
        ended "$want"
        try ftai-log --sink in
        ended 0
    }
    check 0
    check 0 done asked
    check 77 refused
    check 77 done refused
    check 1 failed
    check 1 cut
    check 1 cancelled
    check 1 refused failed
    printf '{"@tag":"error","recovery":"queue","message":"later"}\n' >in
    try ftai-log --status in
    ended 75
    # History did not happen now.
    printf '{"@tag":"result","status":"failed","@blocks":[{"@tag":"chain","seq":1}]}\n' >in
    try ftai-log --status in
    ended 0
}

@test "--verify names file, line, seq and id of the first bad record" {
    records 5 | ftai-log --sink
    sed -i 's/note 3/note x/; s/note 5/note y/' "$J/current.ftai"
    try ftai-log --verify
    ended 1
    empty "$T/out"
    line=$(grep -n '000000000003"' "$J/current.ftai" | cut -d: -f1)
    same "$(head -n 1 "$T/err")" "ftai-log: $J/current.ftai:$((line - 1)): seq 3, id 0199c2f4-7d1e-7a31-9c1b-000000000003: its hash does not fit its content and the record before"
    same "$(grep -c '^ftai-log: ' "$T/err")" 2
    try ftai-log --verify none.ftai
    ended 66
    cp "$J/current.ftai" copy.ftai
    try ftai-log --verify copy.ftai
    ended 1
}

@test "--verify of nothing" {
    try ftai-log --verify
    ended 0
    same "$(cat "$T/out")" "no journal yet"
}

@test "--follow begins with the next record and ends when its reader goes" {
    records 2 | ftai-log --sink
    ftai-log --follow >out &
    pid=$!
    # When it begins can't be seen: so records come until it shows one.
    number=2
    shown() { number=$((number + 1)); records $number | tail -n 1 | ftai-log --sink; [ -s out ]; }
    until_true shown
    until_true grep -q "\"body\":\"note $number\"" out
    jq -se --argjson last $number 'map(."@blocks"[-1].seq) | .[0] > 2 and . == [range(.[0]; $last + 1)]' out
    kill $pid
    rc=0
    wait $pid || rc=$?
    same $rc 143
    # Its reader reads nothing, and goes.
    set +e
    ftai-log --follow | true
    same "${PIPESTATUS[0]}" 141
    set -e
}

@test "--follow --cursor shows each record once, also over a new segment" {
    follow() { # lines to wait for
        ftai-log --follow --cursor mail >"$T/part" &
        local pid=$!
        until_true has_lines "$T/part" "$1"
        until_true grep -q "^$2 " "$FTAI_HOME/state/cursors/mail"
        kill $pid
        wait $pid || true
        cat "$T/part" >>all
    }
    records 3 | ftai-log --sink
    follow 3 3
    records 5 | tail -n 2 | ftai-log --sink
    echo "5 1" >"$J/.suspect"
    records 6 | tail -n 1 | ftai-log --sink -q
    follow 4 7
    same "$(jq -r '."@blocks"[-1].seq' all | tr '\n' ,)" "1,2,3,4,5,6,7,"
    try ftai-log --follow --cursor ../x
    ended 2
    for name in '' .. a/b "$(printf 'x%.0s' {1..300})"; do
        try timeout 60 ftai-log --follow --cursor "$name"
        ended 2
    done
    try ftai-log --cursor mail
    ended 2
    try ftai-log --follow in
    ended 2
}

@test "a cursor in a segment that was lost goes on with the next, and says so" {
    records 9 | ftai-log --sink
    ftai-log --follow --cursor mail >out &
    pid=$!
    until_true grep -q "^9 " "$FTAI_HOME/state/cursors/mail"
    kill $pid
    wait $pid || true
    head -c 5000 /dev/zero >"$J/current.ftai"
    records 2 | ftai-log --sink -q
    # A file of its own: the lines of the first reader would count until the shell has emptied theirs.
    ftai-log --follow --cursor mail >again 2>err &
    pid=$!
    until_true has_lines again 4
    kill $pid
    wait $pid || true
    same "$(jq -r 'select(."@tag" == "note").body' again | paste -sd , -)" "note 1,note 2"
    same "$(grep -c "warning: the journal does not hold seq 9 as it was read" err)" 1
    try ftai-recall --after 9
    ended 0
    empty "$T/out"
    same "$(cat "$T/err")" "ftai-recall: warning: the journal ends at seq 4, before --after 9: a part of it may be lost"
    try ftai-recall --after 4
    empty "$T/err"
}

@test "a second reader with the same cursor: 75" {
    records 1 | ftai-log --sink
    ftai-log --follow --cursor mail >out &
    pid=$!
    until_true has_lines out 1
    try ftai-log --follow --cursor mail
    ended 75
    kill $pid
    wait $pid || true
}

@test "the lock is held by another for too long: 75, and nothing passes" {
    records 1 | ftai-log --sink
    records 2 >in
    exec 8>>"$J/.lock"
    flock 8
    try ftai-log in
    exec 8>&-
    ended 75
    empty "$T/out"
    grep -q "^ftai-log: the journal is locked" "$T/err"
    ftai-log in | cmp in
}

@test "a record with an id and no ts, twice, is a repeat" {
    echo "{\"@tag\":\"note\",\"id\":\"$ID\",\"body\":\"hello\"}" >in
    ftai-log in >first
    sleep 0.01
    try ftai-log in
    ended 0
    cmp "$T/out" first
    # Without an archive the journal itself says what is held, to the same process.
    rm "$FTAI_HOME"/state/archive.db*
    mkfifo twice
    ftai-log twice >second &
    exec 9>twice
    cat in >&9
    until_true has_lines second 1
    cat in >&9
    exec 9>&-
    wait $!
    has_lines second 2
    same "$(bodies | sort -u)" hello
    same "$(jq -r .ts second | sort -u | wc -l)" 1
}

@test "a live segment that is no regular file: 74, and nobody waits for it" {
    records 1 | ftai-log --sink
    rm "$J/current.ftai"
    mkfifo "$J/current.ftai"
    records 1 >in
    for command in "ftai-log in" "ftai-log --verify" "ftai-log --follow"; do
        try timeout 60 $command
        ended 74
        grep -q "current.ftai': it is no regular file" "$T/err"
    done
    rm "$J/current.ftai"
    mkdir "$J/current.ftai"
    try timeout 60 ftai-log in
    ended 74
}

@test "what lies beside the segments is no regular file: 74, and nobody waits for it" {
    records 1 | ftai-log --sink
    records 1 >in
    for name in ledger .suspect .accepted; do
        mkfifo "$J/$name"
        for command in "ftai-log --verify" "ftai-doctor --accept" "ftai-rotate --now"; do
            [ "$name $command" = ".accepted ftai-rotate --now" ] && continue
            try timeout 60 $command
            ended 74
            grep -q "$name': it is no regular file" "$T/err"
        done
        rm "$J/$name"
    done
    try ftai-log in
    ended 0
}

@test "the journal can't be made: 73" {
    mkdir -p "$FTAI_HOME/state"
    chmod 700 "$FTAI_HOME/state"
    echo >"$FTAI_HOME/state/journal"
    records 1 >in
    try ftai-log in
    ended 73
    empty "$T/out"
}

@test "a folder that others can write to: 77" {
    mkdir -p "$J"
    chmod 777 "$J"
    records 1 >in
    try ftai-log in
    ended 77
    empty "$T/out"
}

@test "an archive that is damaged, locked, a folder or gone stops nothing" {
    records 9 >in
    db=$FTAI_HOME/state/archive.db
    head -n 1 in | ftai-log >/dev/null
    head -c 20000 /dev/urandom >"$db"
    sed -n 2p in >one
    try ftai-log one
    ended 0
    cmp one "$T/out"
    rm -rf "$db"*
    mkdir "$db"
    sed -n 3p in >one
    try ftai-log one
    ended 0
    cmp one "$T/out"
    rmdir "$db"
    exec 8>>"$db.lock"
    flock 8
    sed -n 4p in >one
    try ftai-log one
    exec 8>&-
    ended 0
    cmp one "$T/out"
    rm -rf "$db"*
    try ftai-log in
    ended 0
    ftai-log --verify | grep -q "9 records"
}

@test "files are the user's alone, under any umask" {
    (umask 0 && records 1 | ftai-log --sink)
    printf torn >>"$J/current.ftai"
    (umask 0 && records 2 | ftai-log --sink -q)
    [ -s "$J/.torn" ]
    same "$(find "$FTAI_HOME" -type f -perm /077; find "$FTAI_HOME" -type d -perm /077)" ""
    mv "$J/current.ftai" "$J/elsewhere"
    ln -s elsewhere "$J/current.ftai"
    try ftai-log <(records 3)
    [ "$rc" -ne 0 ]
}
