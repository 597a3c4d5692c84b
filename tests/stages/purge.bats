#!/usr/bin/env bats
# ftai-archive purge: gone for good, named in the chain, certified.

load helper

setup_file() {
    scratch
    for n in {1..20}; do echo "{\"@tag\":\"note\",\"body\":\"secret$n or not\"}"; done | ftai-log --sink
}

setup() {
    scratch
    journal=$FTAI_HOME/state/journal db=$FTAI_HOME/state/archive.db
}

# Files below the home in which a word stands.
traces() { grep -rlF -- "$1" "$FTAI_HOME"; }

# Runs a command on a terminal of its own and types each of the words behind `--` when there is a new question; $rc, and $T/screen.
asked() {
    rc=0
    timeout 60 "$root/.venv/bin/python" - "$@" >"$T/screen" <<'END' || rc=$?
import os, pty, sys
at = sys.argv.index("--")
pid, fd = pty.fork()
if not pid:
    os.execvp(sys.argv[1], sys.argv[1:at])
answers, seen = sys.argv[at + 1 :], b""
while True:
    try:
        data = os.read(fd, 1000)
    except OSError:
        break
    seen += data
    if answers and seen.rstrip(b" \r\n").endswith((b"purge:", b"[y/N]")):
        os.write(fd, answers.pop(0).encode() + b"\n")
        os.write(1, seen)
        seen = b""
os.write(1, seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
END
}

verified() {
    try ftai-log --verify
    ended 0
    empty "$T/err"
    sh "$root/tests/vectors/verify.sh" "$journal"/0*.ftai "$journal/current.ftai"
}

@test "by pattern: nothing is left, and the certificate says so" {
    [ -n "$(traces secret7)" ]
    try ftai-archive purge --pattern secret7 --because "by request"
    ended 0
    empty "$T/err"
    same "$(jq -r '."@tag"' "$T/out" | xargs)" "audit report"
    same "$(tail -1 "$T/out" | jq -c '[.act, .outcome, .records, .seqs, .segments, .because]')" '["purge","done",1,[[7,7]],["000001.ftai"],"by request"]'
    same "$(traces secret7)" ""
    same "$(grep -c secret7 "$T/out")" 0
    tail -1 "$T/out" | jq -S . >"$T/printed"
    verified
    # It is in the journal as it was printed.
    ftai-recall --tag report | jq -S 'del(."@blocks")' >"$T/held"
    cmp "$T/printed" "$T/held"
    same "$(sqlite3 -readonly "$db" "SELECT tag FROM records WHERE seq = 7")" tombstone
    sqlite3 -readonly "$db" "SELECT * FROM records" >"$T/before"
    ftai-archive rebuild >/dev/null
    sqlite3 -readonly "$db" "SELECT * FROM records" | cmp - "$T/before"
}

@test "a plain DELETE leaves traces" {
    sqlite3 "$db" "PRAGMA secure_delete = OFF; DELETE FROM records WHERE line LIKE '%secret7 %'" >"$T/out"
    cat "$db"* | grep -qaF secret7
}

@test "by id, thread, words and time" {
    to_noon
    id=$(ftai-recall -n 1 secret3 | jq -r .id)
    thread=$(ftai-recall -n 1 secret4 | jq -r .thread)
    try ftai-archive purge --id "$id" --because x
    same "$(tail -1 "$T/out" | jq -c '[.seqs, .ids, .asked]')" "[[[3,3]],[\"$id\"],[\"id\"]]"
    try ftai-archive purge --thread "$thread" --because x
    same "$(tail -1 "$T/out" | jq -c .seqs)" "[[4,4]]"
    try ftai-archive purge --subject "NOT secret5" --because x
    same "$(tail -1 "$T/out" | jq -c .seqs)" "[[5,5]]"
    try ftai-archive purge --since today --until today --because x
    ended 0
    same "$(tail -1 "$T/out" | jq .records)" 17
    same "$(traces secret)" ""
    verified
}

@test "the text can come from standard input, and from a terminal without echo" {
    try ftai-archive purge --pattern - --because x <<<"secret7"
    same "$(tail -1 "$T/out" | jq -c .seqs)" "[[7,7]]"
    asked ftai-archive purge --pattern - --because x -- "secret8 or" y
    same "$rc" 0
    same "$(grep -c secret8 "$T/screen")" 0
    same "$(traces secret8)" ""
    [ -n "$(traces 'secret9 ')" ]
}

@test "on a terminal it asks" {
    asked ftai-archive purge --pattern secret7 --because x -- n
    same "$rc" 1
    grep -q "1 record will be gone for good; go on?" "$T/screen"
    grep -q "nothing was purged" "$T/screen"
    [ -n "$(traces secret7)" ]
    [ ! -e "$journal/000001.ftai" ]
    asked ftai-archive purge --pattern secret7 --because x -- y
    same "$rc" 0
    same "$(traces secret7)" ""
}

@test "--dry-run tells and changes nothing" {
    sum=$(cat "$journal"/*.ftai | sha256sum)
    try ftai-archive purge --pattern secret --dry-run
    ended 0
    same "$(jq -c '[.records, .would]' "$T/out")" '[20,["close current.ftai","rewrite current.ftai","clean the archive"]]'
    same "$(cat "$journal"/*.ftai | sha256sum)" "$sum"
}

@test "nothing found is no failure, and nothing changes" {
    try ftai-archive purge --pattern never --because x
    ended 0
    same "$(jq -c '[."@tag", .records]' "$T/out")" '["report",0]'
    [ ! -e "$journal/000001.ftai" ]
}

@test "usage" {
    for words in "" "--because x" "--pattern secret" "--pattern /(/ --because x" "--since never --because x" "--finish --pattern x" "--pattern secret7 --because secret7"; do
        try ftai-archive purge $words
        ended 2
        empty "$T/out"
        same "$(grep -c secret7 "$T/err")" 0
    done
    [ ! -e "$journal/000001.ftai" ]
}

@test "an empty text is refused, not left out" {
    for option in --subject --pattern --id --thread; do
        for more in "--since=today" "--pattern=secret" "--finish"; do
            try ftai-archive purge "$more" --because x "$option" ""
            ended 2
            empty "$T/out"
        done
    done
    try ftai-archive purge --since today --pattern - --because x </dev/null
    ended 2
    grep -q "empty text" "$T/err"
    [ ! -e "$journal/000001.ftai" ]
}

@test "what is no UTF-8 is refused" {
    for option in --id --thread --pattern --subject --because; do
        try ftai-archive purge --pattern never --because x "$option" $'secret7\xff'
        ended 2
        grep -q "no UTF-8" "$T/err"
    done
}

@test "another purge is 75" {
    exec 9>"$journal/.purge"
    flock 9
    ftai-archive purge --pattern secret7 --because x >"$T/out" 2>"$T/err" 9>&- || rc=$?
    exec 9>&-
    same "$rc" 75
    grep -q "another purge is under way" "$T/err"
}

@test "interrupted, it is told and ended" {
    # Nobody may read what is to go; a reader in the middle of it makes it give up, with the names on the disk.
    exec 9>"$db.lock"
    flock 9
    ftai-archive purge --pattern secret7 --because x >"$T/out" 2>"$T/err" 9>&- || rc=$?
    exec 9>&-
    same "$rc" 75
    try ftai-log --verify
    ended 0
    grep -q "was interrupted: ftai-archive purge --finish ends it" "$T/err"
    try ftai-archive purge --finish
    ended 0
    same "$(jq -c '[.outcome, .records]' "$T/out")" '["done",1]'
    same "$(traces secret7)" ""
    verified
}

@test "what routes that are done left in state.db goes too" {
    to_noon
    ftai-run "remember to call Zoltan" >/dev/null
    sqlite3 "$FTAI_HOME/state/state.db" "UPDATE claims SET target = 'Zoltan'"
    [ -n "$(traces Zoltan)" ]
    try ftai-archive purge --since today --because x
    ended 0
    same "$(traces Zoltan | grep -v /data/)" ""
    verified
}

@test "encrypted texts are found, and the keys of threads that are gone are destroyed" {
    export FTAI_ENCRYPT=local
    echo '{"@tag":"note","body":"Zoltan was here"}' | ftai-log >"$T/passed"
    grep -q "sealed:" "$journal/current.ftai"
    cp "$journal/current.ftai" "$T/copy"
    keys() { sqlite3 "$FTAI_HOME/state/keys/threads.db" "SELECT count(*) FROM threads WHERE thread = $(jq .thread "$T/passed" | tr '"' "'")"; }
    same "$(keys)" 1
    try ftai-archive purge --pattern Zoltan --because x
    ended 0
    same "$(tail -1 "$T/out" | jq -c '[.seqs, .keys]')" "[[[21,21]],1]"
    same "$(keys)" 0
    verified
    # The reason is encrypted too, and can be read.
    same "$(ftai-recall --tag report | jq -r .because)" x
}

@test "encrypted texts that cannot be opened are counted, and it is not done" {
    export FTAI_ENCRYPT=local
    echo '{"@tag":"note","body":"Zoltan was here"}' | ftai-log --sink
    mv "$FTAI_HOME/state/keys/identity" "$T/identity"
    for more in "" --dry-run; do
        try ftai-archive purge --pattern Zoltan --because x $more
        ended 1
        same "$(jq -c '[.records, .unread]' "$T/out")" '[0,1]'
        grep -q "1 records are encrypted and could not be opened" "$T/err"
    done
    try ftai-archive purge --pattern secret7 --because x
    ended 1
    same "$(tail -1 "$T/out" | jq -c '[.outcome, .records, .unread]')" '["incomplete",1,1]'
    # The intent and the names of that purge are encrypted too.
    try ftai-archive purge --pattern Zoltan --since 2020-01-01 --until 2020-12-31 --because x
    ended 0
    mv "$T/identity" "$FTAI_HOME/state/keys/identity"
    try ftai-archive purge --pattern Zoltan --because x
    ended 0
    same "$(tail -1 "$T/out" | jq -c '[.outcome, .records, .unread]')" '["done",1,null]'
    verified
}

@test "files of skills are named and stay" {
    echo kept >"$T/note.txt"
    echo "{\"@tag\":\"file\",\"op\":\"write\",\"path\":\"$T/note.txt\",\"body\":\"secret77\"}" | ftai-log --sink
    try ftai-archive purge --pattern secret77 --because x
    ended 0
    grep -q "files that the records tell of stay: $T/note.txt" "$T/err"
    same "$(tail -1 "$T/out" | jq -c .files)" "[\"$T/note.txt\"]"
    same "$(cat "$T/note.txt")" kept
}

@test "a reader that is gone ends it, and it is done all the same" {
    rc=0
    bash -c 'ftai-archive purge --pattern secret7 --because x | :; exit ${PIPESTATUS[0]}' || rc=$?
    [ "$rc" -eq 141 ] || [ "$rc" -eq 0 ]
    same "$(traces secret7)" ""
    verified
}
