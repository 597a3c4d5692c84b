#!/usr/bin/env bats
# ftai-recall: finds records again.

load helper

setup_file() {
    scratch
    cat >"$T/records" <<'END'
{"@tag":"command","id":"019ab9c4-7d1e-7a31-9c1b-000000000001","ts":"2026-11-22T13:25:00.000Z","thread":"019ab9c4-7d1e-7a31-9c1b-000000000001","from":"ftai-listen","body":"remember to send the invoice tomorrow"}
{"@tag":"route","id":"019ab9c4-7d1e-7a31-9c1b-000000000002","ts":"2026-11-22T13:25:00.041Z","thread":"019ab9c4-7d1e-7a31-9c1b-000000000001","parent":"019ab9c4-7d1e-7a31-9c1b-000000000001","from":"ftai-route","target":"skill:task"}
{"@tag":"task","id":"019ab9c4-7d1e-7a31-9c1b-000000000003","ts":"2026-11-22T13:25:00.050Z","thread":"019ab9c4-7d1e-7a31-9c1b-000000000001","parent":"019ab9c4-7d1e-7a31-9c1b-000000000002","from":"ftai-exec","title":"send the invoice","status":"open"}
{"@tag":"note","id":"019ab9c4-7d1e-7a31-9c1b-000000000004","ts":"2020-05-05T10:00:00.000Z","thread":"019ab9c4-7d1e-7a31-9c1b-000000000004","from":"test","body":"an old invoice of Zürich"}
{"@tag":"task","id":"019ab9c4-7d1e-7a31-9c1b-000000000005","ts":"2026-11-23T08:00:00.000Z","thread":"019ab9c4-7d1e-7a31-9c1b-000000000005","from":"ftai-exec","updates":"019ab9c4-7d1e-7a31-9c1b-000000000003","status":"done"}
END
    ftai-log --sink "$T/records"
}

# The seqs of the records in $T/out, on one line.
seqs() { jq -r '.["@blocks"][-1].seq' "$T/out" | paste -sd ' ' -; }

@test "hits come with their neighbours, each record once" {
    try ftai-recall invoice
    ended 0
    empty "$T/err"
    same "$(seqs | tr ' ' '\n' | sort -n | paste -sd ' ' -)" "1 2 3 4"
    try ftai-recall -C 0 invoice tomorrow
    same "$(seqs)" "1"
    try ftai-recall -C 1 invoice tomorrow
    same "$(seqs)" "1 2"
}

@test "what comes out is history" {
    ftai-recall invoice | jq -e 'select(.["@blocks"][-1]["@tag"] != "chain")' >"$T/out" || :
    empty "$T/out"
}

@test "a record comes with its updates applied" {
    try ftai-recall -C 0 --tag task invoice
    same "$(jq -r .status "$T/out")" done
}

@test "--thread gives the whole thread as it was journaled" {
    try ftai-recall --thread 019ab9c4-7d1e-7a31-9c1b-000000000001
    ended 0
    same "$(seqs)" "1 2 3"
    same "$(sed -n 3p "$T/out" | jq -r .status)" open
    try ftai-recall --thread none
    ended 1
}

@test "--after gives each record once, and the end of it is no failure" {
    try ftai-recall --after 0 -n 2
    same "$(seqs)" "1 2"
    try ftai-recall --after 2
    same "$(seqs)" "3 4 5"
    try ftai-recall --after 5
    ended 0
    empty "$T/out"
    try ftai-recall --after 3 invoice
    same "$(seqs)" "4"
}

@test "--since and --until take words and RFC 3339" {
    try ftai-recall -C 0 --until 2020-12-31 invoice
    same "$(seqs)" "4"
    try ftai-recall -C 0 --since 2020-05-05T10:00:01Z --until 2026-11-22T13:25:00.001Z invoice
    same "$(seqs)" "1"
    try ftai-recall --since "2020-05-05" --until "5 may 2020"
    same "$(seqs)" "4"
    TZ=Asia/Tokyo try ftai-recall --since 2026-11-23 --until 2026-11-23 --tag task
    same "$(seqs)" "3"
    try ftai-recall --since "no such day" invoice
    ended 2
    empty "$T/out"
    same "$(head -1 "$T/err")" "ftai-recall: 'no such day' names no time"
}

@test "--threads gives one record a thread" {
    try ftai-recall --threads invoice
    same "$(jq -r .thread "$T/out" | sort -u | wc -l)" "$(wc -l <"$T/out")"
    try ftai-recall --threads
    same "$(seqs)" "1 4 5"
}

@test "words on standard input" {
    echo "zurich   INVOICES" | ftai-recall - >"$T/out"
    same "$(seqs)" "4"
}

@test "nothing found is 1, as with grep" {
    try ftai-recall nothing such
    ended 1
    empty "$T/out"
    empty "$T/err"
    try ftai-recall "+++"
    ended 1
    try ftai-recall - </dev/null
    ended 1
}

@test "nothing to look for is usage" {
    try ftai-recall
    ended 2
    empty "$T/out"
    try ftai-recall --limit 0 invoice
    ended 2
    try ftai-recall --after -1
    ended 2
}

@test "numbers beyond all reason are usage" {
    for option in --after -n -C; do
        try ftai-recall $option 99999999999999999999 invoice
        ended 2
        empty "$T/out"
    done
    try ftai-recall --after 9223372036854775807
    ended 0
    for option in -n -C; do
        try ftai-recall $option 1000000000 --threads invoice
        ended 0
    done
}

@test "no words are a syntax error" {
    for words in '"' '"a' 'a OR' 'NEAR(a b' '*' 'text:invoice' '^x' "it's" $'\xff\xfe' 'a"b'; do
        try ftai-recall -- "$words"
        [ "$rc" -le 1 ]
        empty "$T/err"
    done
    try ftai-recall --tag $'\xff' invoice
    ended 1
}

@test "an empty home has nothing and makes no journal" {
    FTAI_HOME=$T/other try ftai-recall invoice
    ended 1
    empty "$T/err"
    [ ! -e "$T/other/state/journal/current.ftai" ]
}

@test "a deleted archive is made again" {
    rm -f "$FTAI_HOME"/state/archive.db*
    try ftai-recall -C 0 invoice zurich
    ended 0
    same "$(seqs)" "4"
}

@test "a damaged archive is made again" {
    head -c 100000 /dev/urandom >"$FTAI_HOME/state/archive.db"
    try ftai-recall -C 0 invoice zurich
    ended 0
    same "$(seqs)" "4"
}

@test "an archive that cannot be made leaves the journal itself" {
    rm -f "$FTAI_HOME"/state/archive.db*
    mkdir "$FTAI_HOME/state/archive.db"
    try ftai-recall invoice
    ended 0
    same "$(seqs)" "4 3 1"
    grep -q "the journal itself is searched" "$T/err"
    try ftai-recall --after 3
    ended 0
    same "$(seqs)" "4 5"
    try ftai-recall -q nothing
    ended 1
    empty "$T/err"
}

@test "while another process writes to the archive it waits" {
    echo '{"@tag":"note","body":"fresh invoice"}' >"$T/more"
    exec 9>>"$FTAI_HOME/state/archive.db.lock"
    flock 9
    ftai-log --sink "$T/more"
    ftai-recall -C 0 fresh >"$T/out" 2>"$T/err" 9>&- &
    pid=$!
    flock -u 9
    exec 9>&-
    wait $pid
    same "$(seqs)" "6"
    empty "$T/err"
}

@test "a reader that goes away ends it" {
    seq -f '{"@tag":"note","body":"number %.0f"}' 3000 | ftai-log --sink
    rc=0
    ftai-recall --after 0 2>"$T/err" | head -1 >"$T/out" || rc=$?
    same "${PIPESTATUS[0]}" "" || :
    same "$(seqs)" "1"
    empty "$T/err"
    bash -c 'ftai-recall --after 0 | head -1 >/dev/null; exit ${PIPESTATUS[0]}' || rc=$?
    same "$rc" 141
}

@test "runs from a bare environment, and by a link" {
    ln -s "$root/bin/ftai-recall" "$T/link-recall"
    env -i FTAI_HOME="$FTAI_HOME" "$root/.venv/bin/python" "$T/link-recall" -C 0 zurich >"$T/out"
    same "$(seqs)" "4"
}

@test "several hits of one thread come together, in the order of the journal" {
    printf '{"@tag":"note","thread":"%s","body":"%s"}\n' \
        0199c2f4-0000-7000-8000-000000000001 "marble floor" 0199c2f4-0000-7000-8000-000000000002 "marble" \
        0199c2f4-0000-7000-8000-000000000001 "something" 0199c2f4-0000-7000-8000-000000000001 "marble marble marble" | ftai-log --sink
    ftai-recall -C 0 marble >"$T/out"
    jq -r '"\(.thread[-1:]) \(."@blocks"[0].seq)"' "$T/out" >"$T/places"
    same "$(uniq -w1 "$T/places" | wc -l)" 2
    same "$(sort -c "$T/places" 2>&1 || sort -c -k1,1r -k2,2n "$T/places" 2>&1)" ""
}
