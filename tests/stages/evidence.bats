#!/usr/bin/env bats
# ftai-log --checkpoint, --anchor, --verify --against, --prove and --check-proof: what proves the journal.

load helper

setup() {
    scratch
    J=$FTAI_HOME/state/journal
}

notes() { for n in $(seq "$1"); do printf '{"@tag":"note","body":"note %s"}\n' "$n"; done | ftai-log --sink; }
last() { ftai-recall --after 0 --tag note | jq -r .id | tail -n 1; }

@test "without a key nothing is signed, and a hint says how to get one" {
    notes 1
    try ftai-log --checkpoint
    ended 78
    grep -qx "hint: ftai-keys init" "$T/err"
    empty "$T/out"
    [ ! -e "$FTAI_HOME/state/keys/signing.key" ]
    try ftai-log --anchor
    ended 66
    grep -qx "hint: ftai-log --checkpoint" "$T/err"
    chmod 700 "$FTAI_HOME"
    ftai-keys init >/dev/null
    chmod 644 "$FTAI_HOME/state/keys/signing.key"
    try ftai-log --checkpoint
    ended 77
    grep -q "hint: chmod 600" "$T/err"
}

@test "a checkpoint is a record, journaled and printed; an idle journal gets no second one" {
    ftai-keys init >/dev/null
    notes 3
    try ftai-log --checkpoint --dry-run
    ended 0
    empty "$T/out"
    same "$(cat "$T/err")" "ftai-log: would sign seq 5, and the roots of 0 segments"
    try ftai-log --checkpoint
    ended 0
    empty "$T/err"
    same "$(jq -r '."@tag", .size' "$T/out" | xargs)" "checkpoint 5"
    cp "$T/out" printed
    same "$(ftai-recall --after 5 | jq -c 'del(."@blocks")')" "$(cat printed)"
    try ftai-log --anchor
    ended 0
    cmp "$T/out" "$J/checkpoint"
    jq -j .note printed | cmp - "$T/out"
    same "$(stat -c %a "$J/checkpoint")" 600
    try ftai-log --checkpoint -v
    ended 0
    empty "$T/out"
    same "$(cat "$T/err")" "ftai-log: nothing was written since the last checkpoint"
    try ftai-log --checkpoint --dry-run
    same "$(cat "$T/err")" "ftai-log: would sign nothing"
    try ftai-log --verify
    ended 0
}

@test "an anchor: whole, cut, written anew, of another key, malformed, missing" {
    ftai-keys init >/dev/null
    notes 5
    ftai-rotate --now >/dev/null
    notes 4
    ftai-log --checkpoint >/dev/null
    ftai-log --anchor >anchor
    notes 2
    try ftai-log --verify --against anchor
    ended 0
    empty "$T/err"
    grep -q "^anchor: seq 1 to [0-9]* as $(cut -d + -f 1,2 "$FTAI_HOME/state/keys/signing.pub") signed" "$T/out"
    try ftai-log --verify -q --against anchor
    ended 0
    empty "$T/out"
    cp "$J/current.ftai" kept
    sed -i '/body: "note 3"/,$d' "$J/current.ftai"
    head -n -4 "$J/current.ftai" >short
    cat short >"$J/current.ftai"
    try ftai-log --verify --against anchor
    ended 1
    grep -q "^ftai-log: anchor: seq .* are missing: the anchor covers them" "$T/err"
    try ftai-log --checkpoint
    ended 1
    grep -q "does not go on from its last checkpoint" "$T/err"
    cp kept "$J/current.ftai"
    for change in 's/closed [0-9]/closed 9/' 's/$/\r/' 's/^closed/closed\t/' '$p' 's/=$//' 's/serenamaster/another/' 1d '$d'; do
        sed "$change" anchor >forged
        try ftai-log --verify --against forged
        ended 65
        empty "$T/out"
    done
    try ftai-log --verify --against nowhere
    ended 66
    mv "$FTAI_HOME/state/keys" elsewhere
    try ftai-log --verify --against anchor
    ended 78
    # No other identity is made for what is sealed; another signing key is.
    try ftai-keys init
    ended 78
    cp elsewhere/identity elsewhere/recipient "$FTAI_HOME/state/keys"
    ftai-keys init >/dev/null
    try ftai-log --verify --against anchor
    ended 65
    grep -q "not signed by a key that is known here" "$T/err"
}

@test "since: from the segment on that was live then" {
    ftai-keys init >/dev/null
    for n in 1 2 3; do
        notes 3
        ftai-rotate --now >/dev/null
    done
    when=$(ftai-recall --after 0 --tag note | jq -r .ts | sed -n 7p)
    try ftai-log --verify --since "$when"
    ended 0
    grep -q ": [0-9]* records, seq \(1[0-9]\|2[0-9]\) to" "$T/out"
    try ftai-log --verify --since yesterday
    ended 0
    grep -q "seq 1 to" "$T/out"
    try ftai-log --verify --since never
    ended 2
}

@test "a proof: of a record that is live, closed and signed; it is checked without a journal" {
    ftai-keys init >/dev/null
    notes 5
    id=$(last)
    try ftai-log --prove "$id"
    ended 75
    grep -qx "hint: ftai-rotate --now" "$T/err"
    empty "$T/out"
    ftai-rotate --now >/dev/null
    try ftai-log --prove "$id"
    ended 0
    empty "$T/err"
    cp "$T/out" proof
    key=$(cat "$FTAI_HOME/state/keys/signing.pub")
    # Elsewhere: another home, with the public key alone, and with an archive that is gone here.
    rm -f "$FTAI_HOME"/state/archive.db*
    ftai-log --prove "$id" | cmp - proof
    mkdir -p -m 700 other other/state other/state/keys
    printf '%s\n' "$key" >other/state/keys/signing.pub
    chmod 600 other/state/keys/signing.pub
    try ftai-log --check-proof - <proof
    ended 0
    FTAI_HOME=$T/other try ftai-log --check-proof proof
    ended 0
    empty "$T/err"
    grep -q "^proof: @note $id is seq [0-9]* of the journal " "$T/out"
    [ ! -e other/state/journal ]
    sed 's/note 5/note 6/' proof >forged
    try ftai-log --check-proof forged
    ended 65
    empty "$T/out"
    try ftai-log --check-proof nowhere
    ended 66
    try ftai-log --prove 019ab9c4-7d1e-7a31-9c1b-000000000004
    ended 66
    try ftai-log --prove ""
    ended 2
    ftai-archive purge --id "$id" --because test >/dev/null
    try ftai-log --prove "$id"
    ended 66
    empty "$T/out"
}

@test "one thing at a time" {
    for words in "--checkpoint --anchor" "--verify --prove x" "--anchor x" "--since monday" "--against x" "--checkpoint --against x" "--verify --follow" \
        "--verify --since monday x" "--anchor --cursor x" "--prove x y"; do
        try ftai-log $words </dev/null
        ended 2
        empty "$T/out"
    done
}

@test "a bar on a terminal while a journal is verified" {
    PYTHONPATH="$root/lib" "$root/.venv/bin/python" - <<'EOF'
from serenamaster import journal, paths, record
for _ in range(4):
    journal.append(paths.journal(), [record.make("note", "x", body="word " * 60) for n in range(1000)], stage="x")
EOF
    screen() { "$root/.venv/bin/python" -c 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))' "$@" </dev/null; }
    screen sh -c 'ftai-log --verify >/dev/null' >"$T/screen"
    [ "$(nproc)" -lt 2 ] || grep -q '\[#* *\] segment 1 of 1' "$T/screen"
    screen sh -c 'ftai-log --verify -q >/dev/null' >"$T/screen"
    empty "$T/screen"
}
