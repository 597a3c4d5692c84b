#!/usr/bin/env bats
# ftai-archive export and import: what goes out, what comes in, and what of it is told.

load helper

setup_file() {
    scratch
    for n in 1 2 3; do echo "{\"@tag\":\"note\",\"body\":\"invoice number $n\"}"; done | ftai-log --sink
    ftai-keys consent grant export >"$T/granted"
}

# A home of another owner, or of the same on another machine where "$1" is given.
elsewhere() {
    mkdir -p "$T/b/state/keys"
    chmod -R go-rwx "$T/b"
    [ -z "${1-}" ] || cp "$FTAI_HOME/state/keys/identity" "$FTAI_HOME/state/keys/recipient" "$T/b/state/keys/"
    export FTAI_HOME=$T/b
}

# The bodies of the notes in the journal.
bodies() { ftai-recall --tag note -n 100 | jq -r .body | sort; }

@test "sealed there and back" {
    try ftai-archive export --tag note --to "$T/x"
    ended 0
    empty "$T/err"
    same "$(jq -c '[."@tag", .act, .outcome, .records, .format, .to]' "$T/out")" \
        "$(printf '["audit","export","intended",3,"sealed","%s/x.zst.sealed"]\n["report","export","done",3,"sealed","%s/x.zst.sealed"]' "$T" "$T")"
    same "$(stat -c %a "$T/x.zst.sealed")" 600
    ! grep -q invoice "$T/x.zst.sealed"
    before=$(bodies)
    elsewhere same
    try ftai-archive import "$T/x.zst.sealed"
    ended 0
    empty "$T/err"
    same "$(jq -c 'select(."@tag" == "report") | [.outcome, .records, .written, .repeats]' "$T/out")" '["done",3,3,0]'
    same "$(bodies)" "$before"
    try ftai-archive import - <"$T/x.zst.sealed"
    same "$(jq -c 'select(."@tag" == "report") | [.outcome, .written, .repeats]' "$T/out")" '["done",0,3]'
    ftai-log --verify >"$T/verified"
}

@test "somebody else does not open it" {
    ftai-archive export --tag note --to "$T/x" >"$T/said"
    elsewhere
    try ftai-archive import "$T/x.zst.sealed"
    ended 77
    empty "$T/out"
    [ ! -e "$T/b/state/journal" ]
}

@test "in the clear to standard output, and nothing but the export" {
    for form in ndjson ftai; do
        try ftai-archive export --tag note --format $form
        ended 0
        empty "$T/err"
        cp "$T/out" "$T/x.$form"
        ftai-parse "$T/x.$form" | jq -c 'select(."@tag" | IN("report", "note")) | [."@tag", .subject]' >"$T/tags"
        same "$(grep -c note "$T/tags")" 3
        same "$(sed -n '1p;$p' "$T/tags" | sort -u)" '["report","export"]'
        same "$(ftai-recall --tag audit -n 1 | jq -r .format)" $form
    done
    elsewhere
    ftai-archive import "$T/x.ndjson" "$T/x.ftai" | jq -c 'select(."@tag" == "report") | [.written, .repeats]' >"$T/counts"
    same "$(cat "$T/counts")" "$(printf '[3,0]\n[0,3]')"
}

@test "the trailer says what sha256sum says" {
    ftai-archive export --tag note --format ndjson >"$T/x"
    same "$(tail -n 1 "$T/x" | jq -r .sha256)" "$(head -n -1 "$T/x" | sha256sum | cut -d' ' -f1)"
    same "$(tail -n 1 "$T/x" | jq .records)" 3
}

@test "nothing leaves without consent" {
    ftai-keys consent withdraw export >"$T/said"
    for form in sealed ndjson ftai; do
        try ftai-archive export --since 1970-01-01 --format $form --to "$T/x"
        ended 77
        empty "$T/out"
        grep -q '^hint: ftai-keys consent grant export$' "$T/err"
    done
    try ftai-archive export --since 1970-01-01 --format ndjson
    ended 77
    empty "$T/out"
    same "$(ls "$T" | grep -c '^\.\?x')" 0
    same "$(ftai-recall --tag audit -n 100 | jq -r 'select(.act == "export") | .act' | wc -l)" 0
}

@test "consent that holds for some tags only" {
    ftai-keys consent grant export --scope note >"$T/said"
    try ftai-archive export --tag note --format ndjson
    ended 0
    try ftai-archive export --since 1970-01-01 --format ndjson
    ended 77
    empty "$T/out"
}

@test "usage" {
    for words in "" "--to $T/x" "--since 1970-01-01" "--since nonsense --to $T/x" "--thread= --to $T/x" "--tag note --format json" "--tag note --to="; do
        try ftai-archive export $words
        ended 2
        empty "$T/out"
    done
    try ftai-archive import
    ended 2
    same "$(ls "$T" | grep -c '^x')" 0
}

@test "--dry-run does nothing" {
    before=$(ftai-archive stats | jq .last)
    try ftai-archive export --tag note --to "$T/x" --dry-run
    ended 0
    same "$(jq -c '[.would, .records]' "$T/out")" '[["export"],3]'
    try ftai-archive export --tag note --format ndjson --dry-run
    same "$(jq -c '[.would, .records]' "$T/out")" '[["export"],3]'
    [ ! -e "$T/x.zst.sealed" ]
    echo '{"@tag":"note"}' >"$T/y"
    try ftai-archive import "$T/y" --dry-run
    same "$(jq -c '[.would, .records]' "$T/out")" '[["import"],1]'
    echo '{"@tag":"note",}' >"$T/y"
    try ftai-archive import "$T/y" --dry-run
    ended 65
    same "$(ftai-archive stats | jq .last)" "$before"
}

@test "a file that is there stays as it is" {
    echo mine >"$T/x"
    try ftai-archive export --tag note --format ndjson --to "$T/x"
    ended 73
    same "$(cat "$T/x")" mine
}

@test "a disk that is full leaves no file, and the journal says so" {
    [ -e /dev/full ] || skip "no /dev/full here"
    rc=0
    ftai-archive export --tag note --format ndjson >/dev/full 2>"$T/err" || rc=$?
    same "$rc" 74
    same "$(ftai-recall --tag report -n 100 | jq -r 'select(.act == "export") | .outcome')" failed
    (ulimit -f 0; ftai-archive export --tag note --format ndjson --to "$T/x") >"$T/out" 2>"$T/err" || rc=$?
    [ ! -e "$T/x" ]
    same "$(ls -A "$T" | grep -c '^\.x')" 0
}

@test "what is imported is acted on by nobody, and passed on to nobody" {
    cat >"$T/x" <<END
{"@tag":"command","id":"0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e","ts":"2026-11-22T13:25:00.041Z","thread":"0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e","body":"remember the milk"}
END
    try ftai-archive import "$T/x"
    ended 0
    same "$(jq -r '."@tag"' "$T/out" | paste -sd ' ')" "audit report"
    ftai-recall -C 0 milk | ftai-route | ftai-exec >"$T/done"
    same "$(jq -r '."@tag"' "$T/done")" command
}

@test "what is imported is nothing that was done here" {
    echo 'remember the milk' | ftai-listen - | ftai-log | ftai-route | ftai-exec | ftai-log --sink
    route=$(ftai-recall --tag route -n 1)
    id=$(jq -r .parent <<<"$route")
    ftai-keys audit >"$T/audit"
    ftai-why "$id" >"$T/why"
    ftai-report cost >"$T/cost"
    jq -c '{"@tag": "audit", from: "ftai-keys", act: "key-read", subject: "anthropic", who: "mallory", outcome: "done"},
        {"@tag": "attempt", parent: .id, thread, provider: "anthropic", target: "model:x", status: "done", cost: 5, currency: "USD"},
        {"@tag": "result", parent: .id, thread, status: "done", body: "it was mallory"}' <<<"$route" >"$T/x"
    try ftai-archive import "$T/x"
    ended 0
    same "$(jq -c 'select(."@tag" == "report") | .written' "$T/out")" 3
    same "$(ftai-keys audit)" "$(cat "$T/audit")"
    rm "$FTAI_HOME"/state/archive.db*
    same "$(ftai-keys audit 2>"$T/err")" "$(cat "$T/audit")"
    same "$(ftai-why "$id")" "$(cat "$T/why")"
    same "$(ftai-report cost)" "$(cat "$T/cost")"
}

@test "a message about standard input names no file of ours" {
    ftai-archive export --tag note --to "$T/x" >/dev/null
    head -c -5 "$T/x.zst.sealed" >"$T/cut"
    try ftai-archive import - <"$T/cut"
    ended 65
    grep -q "^ftai-archive: cannot open standard input: " "$T/err"
    elsewhere
    try ftai-archive import - <"$T/x.zst.sealed"
    ended 77
    grep -q "^ftai-archive: cannot open standard input: " "$T/err"
    ! grep -q "$FTAI_HOME" "$T/err"
}

@test "records that are in conflict are counted, and exit 1" {
    ftai-archive export --tag note --format ndjson | jq -c 'select(."@tag" == "note") | .body = "changed"' >"$T/x"
    try ftai-archive import "$T/x"
    ended 1
    same "$(jq -c 'select(."@tag" == "report") | [.written, .repeats, .conflicts, .refused]' "$T/out")" '[0,0,3,0]'
    grep -q "^ftai-archive: cannot import a record: id '" "$T/err"
    same "$(ftai-recall --tag error -n 100 | jq -r .class | sort -u)" conflict
    ! bodies | grep changed
}

@test "a bad file is refused as a whole" {
    { echo '{"@tag":"note","body":"fine"}'; echo nonsense; } >"$T/x"
    try ftai-archive import "$T/x"
    ended 65
    empty "$T/out"
    grep -q "^ftai-archive: $T/x:2:1: .*nothing was imported$" "$T/err"
    ! bodies | grep fine
    try ftai-archive import "$T/none"
    ended 66
    ln -s x "$T/link"
    try ftai-archive import "$T/link"
    ended 65
    try ftai-archive import /dev/null
    ended 65
    try ftai-archive import "$T"
    ended 65
}

@test "too much is refused" {
    seq -f '{"@tag":"note","n":%.0f}' 1 11 >"$T/x"
    FTAI_IMPORT_RECORDS=10 try ftai-archive import "$T/x"
    ended 65
    grep -q '^hint: FTAI_IMPORT_RECORDS=' "$T/err"
    head -c 1100000 /dev/zero | tr '\0' a | jq -Rc '{"@tag": "note", body: .}' >"$T/x"
    FTAI_IMPORT_MB=1 try ftai-archive import "$T/x"
    ended 65
    FTAI_IMPORT_MB=1 try ftai-archive import - <"$T/x"
    ended 65
    same "$(ls -A "$FTAI_HOME/state" | grep -c transfer)" 0
}

@test "a bar on a terminal only" {
    "$root/.venv/bin/python" -c 'import pty; pty.spawn(["sh", "-c", "ftai-archive export --tag note --to x >/dev/null"])' </dev/null >"$T/bar"
    grep -q "3 of 3" "$T/bar"
    "$root/.venv/bin/python" -c 'import pty; pty.spawn(["sh", "-c", "ftai-archive import x.zst.sealed >/dev/null"])' </dev/null >"$T/bar"
    grep -q " of " "$T/bar"
}

@test "a reader that is gone ends it" {
    seq -f '{"@tag":"note","body":"some more words of it, as a pipe holds 64 KB, and it is to be full: %.0f"}' 1 1000 | ftai-log --sink
    rc=0
    bash -c 'ftai-archive export --tag note --format ndjson | head -c 10 >/dev/null; exit ${PIPESTATUS[0]}' || rc=$?
    same "$rc" 141
}

@test "SIGTERM and SIGHUP leave no half of a file, nor what was begun of it" {
    seq -f '{"@tag":"note","body":"some more words of it: %.0f"}' 1 20000 | ftai-log --sink
    for signal in TERM HUP; do
        want=$((128 + $(kill -l $signal)))
        for n in $(seq 5); do
            rm -f "$T/x"
            ftai-archive export --tag note --format ndjson --to "$T/x" >"$T/out" &
            pid=$!
            until compgen -G "$T/.x.*.tmp" >/dev/null || ! kill -0 $pid 2>/dev/null; do :; done
            rc=0
            kill -$signal $pid 2>/dev/null || true
            wait $pid || rc=$?
            [ "$rc" -eq $want ] && break
        done
        same "$rc" $want
        [ ! -e "$T/x" ]
        ! compgen -G "$T/.x.*.tmp"
        same "$(ftai-recall --tag report -n 1 | jq -c '[.act, .outcome, .because]')" '["export","failed","ended by Terminated"]'
    done
}

@test "with nothing in the environment" {
    try env -i HOME="$HOME" FTAI_HOME="$FTAI_HOME" "$root/bin/ftai-archive" export --tag note --format ndjson
    ended 0
    same "$(jq -s length "$T/out")" 5
}
