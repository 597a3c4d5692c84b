#!/usr/bin/env bats
# ftai-archive: what is in it, in shape, made again.

load helper

setup_file() {
    scratch
    for n in {1..30}; do echo "{\"@tag\":\"note\",\"body\":\"invoice number $n\"}"; done | ftai-log --sink
}

setup() {
    scratch
    db=$FTAI_HOME/state/archive.db
}

dump() { sqlite3 -readonly "$db" "SELECT * FROM records ORDER BY seq"; }

@test "stats tells what is there" {
    try ftai-archive stats
    ended 0
    empty "$T/err"
    same "$(jq -c '[."@tag", .act, .records, .first, .last, .behind]' "$T/out")" '["report","stats",30,1,30,0]'
    same "$(jq -c '."@blocks"' "$T/out")" '[{"@tag":"count","name":"note","records":30}]'
}

@test "stats takes in what is new" {
    rm "$db"
    try ftai-archive stats
    same "$(jq .records "$T/out")" 30
}

@test "rebuild gives the same rows" {
    dump >"$T/before"
    try ftai-archive rebuild
    ended 0
    empty "$T/err"
    same "$(jq -c '[.records, .before]' "$T/out")" "[30,30]"
    dump | cmp - "$T/before"
    [ "$(wc -l <"$T/before")" -eq 30 ]
}

@test "rebuild makes a damaged or deleted one again" {
    dump >"$T/before"
    head -c 50000 /dev/urandom >"$db"
    try ftai-archive rebuild
    ended 0
    dump | cmp - "$T/before"
    rm -f "$db"*
    try ftai-archive rebuild
    dump | cmp - "$T/before"
}

@test "rebuild without a journal keeps what there is" {
    mv "$FTAI_HOME/state/journal" "$T/elsewhere"
    try ftai-archive rebuild
    ended 74
    empty "$T/out"
    same "$(dump | wc -l)" 30
    rm -f "$db"*
    try ftai-archive rebuild
    ended 0
    same "$(jq .records "$T/out")" 0
}

@test "records that the journal has lost are counted" {
    # A byte of the second record: the journal leaves it out, the archive still has it.
    sed -i 's/invoice number 2"/invoice number X"/' "$FTAI_HOME/state/journal/current.ftai"
    try ftai-archive rebuild
    ended 0
    same "$(jq -c '[.records, .before]' "$T/out")" "[29,30]"
    grep -q "1 record.* no longer in the journal; ftai-log --verify" "$T/err"
}

@test "--dry-run changes nothing" {
    before=$(stat -c '%i %s %Y' "$db")
    try ftai-archive rebuild --dry-run
    ended 0
    same "$(jq -c .would "$T/out")" '["rebuild"]'
    try ftai-archive maintain --dry-run
    ended 0
    same "$(jq -c .integrity "$T/out")" '"ok"'
    same "$(ftai-recall --tag audit -n 9 | wc -l)" 0
    same "$(stat -c '%i %s %Y' "$db")" "$before"
}

@test "maintain checks, and empties the log" {
    [ -s "$db-wal" ]
    try ftai-archive maintain
    ended 0
    empty "$T/err"
    same "$(jq -c 'select(."@tag" == "report") | [.integrity, .wal]' "$T/out")" '["ok",0]'
    # What it says of itself came in behind that.
    seq -f '{"@tag":"note","body":"more %.0f"}' 200 | ftai-log --sink
    before=$(stat -c %s "$db-wal")
    ftai-archive maintain >"$T/out"
    [ "$(stat -c %s "$db-wal")" -lt $((before / 2)) ]
}

@test "maintain is journaled: its intent before it, its outcome behind it" {
    try ftai-archive maintain
    ended 0
    same "$(sqlite3 -readonly "$db" "SELECT count(*) FROM records")" 32
    same "$(jq -rs 'map([."@tag", .act, .outcome // "-", .parent == null] | join(" ")) | join(", ")' "$T/out")" "audit maintain intended true, report maintain - false"
    same "$(jq -rs '.[1].parent == .[0].id and .[1].thread == .[0].thread' "$T/out")" true
    thread=$(jq -r .thread "$T/out" | head -1)
    ftai-recall --thread "$thread" -n 9 | jq -c 'del(."@blocks")' >"$T/held"
    same "$(jq -s 'sort_by(.id)' "$T/held")" "$(jq -s 'sort_by(.id)' "$T/out")"
    # Kept once where it goes into the journal again.
    ftai-log --sink <"$T/out"
    same "$(ftai-log --verify 2>&1 | grep -c conflict)" 0
    same "$(ftai-recall --thread "$thread" -n 9 | wc -l)" 2
}

@test "maintain that cannot work leaves its intent and why, and one whose intent cannot be written does nothing" {
    exec 9>"$db.lock"
    flock 9
    ftai-archive maintain >"$T/out" 2>"$T/err" 9>&- || rc=$?
    exec 9>&-
    same "$rc" 75
    same "$(jq -rs 'map(.outcome) | join(" ")' "$T/out")" "intended failed"
    same "$(jq -r 'select(.outcome == "failed").because' "$T/out")" "the archive is locked by another process"
    same "$(ftai-recall --tag audit -n 9 | jq -rs 'map(.outcome) | sort | join(" ")')" "failed intended"
    ftai-archive maintain >"$T/out"
    before=$(stat -c '%i %s %Y' "$db")
    chmod 777 "$FTAI_HOME/state/journal"
    try ftai-archive maintain
    ended 77
    empty "$T/out"
    same "$(stat -c '%i %s %Y' "$db")" "$before"
}

@test "maintain makes a damaged one again" {
    ftai-archive maintain >"$T/out"
    dump | head -30 >"$T/before"
    sqlite3 "$db" "DELETE FROM words_data WHERE id > 10"
    # A check that changes nothing does not look into the index.
    try ftai-archive maintain
    ended 0
    grep -q "the archive was damaged" "$T/err"
    same "$(jq -c 'select(.did).did' "$T/out")" '["rebuild"]'
    dump | head -30 | cmp - "$T/before"
    same "$(ftai-recall -C 0 "number 7" | jq -r .body)" "invoice number 7"
}

@test "a lock of another process is 75" {
    exec 9>"$db.lock"
    flock 9
    ftai-archive rebuild >"$T/out" 2>"$T/err" 9>&- || rc=$?
    exec 9>&-
    same "$rc" 75
    empty "$T/out"
}

@test "usage" {
    try ftai-archive
    ended 2
    try ftai-archive nonsense
    ended 2
    try ftai-archive stats extra
    ended 2
    empty "$T/out"
}

@test "killed in a rebuild, the old one stays" {
    # So many that it is seen at work: without a pause between two looks, as it may be done in one.
    seq -f '{"@tag":"note","body":"invoice number %.0f"}' 31 15000 | ftai-log --sink
    dump >"$T/before"
    ftai-archive rebuild >"$T/out" &
    pid=$!
    until [ -e "$db.new" ] || ! kill -0 $pid; do :; done
    kill -TERM $pid
    wait $pid || rc=$?
    same "$rc" 143
    dump | cmp - "$T/before"
    try ftai-archive rebuild
    ended 0
    [ ! -e "$db.new" ]
}

@test "a bar on a terminal only" {
    try ftai-archive rebuild
    empty "$T/err"
    "$root/.venv/bin/python" -c 'import pty; pty.spawn(["sh", "-c", "ftai-archive rebuild >/dev/null"])' </dev/null >"$T/bar"
    grep -q "30 of 30" "$T/bar"
}

@test "a reader that is gone ends it" {
    rc=0
    bash -c 'ftai-archive stats | :; exit ${PIPESTATUS[0]}' || rc=$?
    [ "$rc" -eq 141 ] || [ "$rc" -eq 0 ]
}
