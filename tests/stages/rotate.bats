#!/usr/bin/env bats
# ftai-rotate without a verb: closes, seals, checks, signs, keeps.

load helper

setup_file() {
    scratch
    for n in {1..20}; do echo "{\"@tag\":\"note\",\"body\":\"word$n or not\"}"; done | ftai-log --sink
}

setup() {
    scratch
    journal=$FTAI_HOME/state/journal
}

sealed() { (cd "$journal" && ls | grep -F .zst. | xargs); }
words() { ftai-recall --tag note -n 1000 | jq -r .body | sort | xargs; }
verified() {
    try ftai-log --verify
    ended 0
    empty "$T/err"
}

# As if it was so many days later.
later() { faketime -f "+${1}d" "${@:2}"; }
needs() { command -v "$1" >/dev/null || skip "${1^^} IS MISSING"; }

policy() {
    mkdir -p "$FTAI_HOME/config"
    printf '@ftai v2.0\n\n@retention\n  name: "journal"\n  summary: "mine"\n%s\n@end\n' "$1" >"$FTAI_HOME/config/serenamaster.memory.ftai"
    chmod -R go-rwx "$FTAI_HOME/config"
}

@test "nothing to do: nothing, 0" {
    try ftai-rotate
    ended 0
    empty "$T/out"
    empty "$T/err"
    try ftai-rotate -v
    same "$(cat "$T/err")" "ftai-rotate: nothing to do"
    # Nobody has ever written anything.
    FTAI_HOME=$T/new try ftai-rotate --now
    ended 0
    empty "$T/out"
    empty "$T/err"
    [ ! -e "$T/new/state/journal/current.ftai" ]
}

@test "--now: closed, sealed, told and journaled" {
    ftai-keys init >/dev/null
    before=$(words)
    try ftai-rotate --now
    ended 0
    empty "$T/err"
    same "$(jq -r '."@tag"' "$T/out" | xargs)" "audit checkpoint report"
    same "$(head -1 "$T/out" | jq -c '[.act, .subject, .outcome, .what]')" '["rotate","journal","intended",["close current.ftai: it was asked for"]]'
    same "$(tail -1 "$T/out" | jq -c '[.subject, .act, .outcome, .closed, .sealed]')" '["journal","rotate","done","000001.ftai",["000001.ftai.zst.sealed"]]'
    same "$(tail -1 "$T/out" | jq '.bytes > .sealed_bytes and .ms >= 0')" true
    same "$(sealed)" "000001.ftai.zst.sealed"
    same "$(words)" "$before"
    cp "$T/out" "$T/told"
    verified
    # All of it is in the journal as it was printed.
    for tag in audit checkpoint report; do
        ftai-recall --tag $tag | jq -S 'select(.from == "ftai-rotate" and .segment == null) | del(."@blocks")' >"$T/held"
        jq -S "select(.\"@tag\" == \"$tag\")" "$T/told" | cmp - "$T/held"
    done
    ftai-archive rebuild >/dev/null
    same "$(words)" "$before"
}

@test "a plain file is all that a copy would need" {
    cp "$journal/current.ftai" "$T/before"
    ftai-rotate --now -q >/dev/null
    needs age
    needs zstd
    FTAI_SEAL=age ftai-log --sink <<<'{"@tag":"note","body":"more"}'
    FTAI_SEAL=age ftai-rotate --now -q >/dev/null
    same "$(sealed)" "000001.ftai.zst.sealed 000002.ftai.zst.age"
    age -d -i "$FTAI_HOME/state/keys/identity" "$journal/000002.ftai.zst.age" | zstd -dq >"$T/plain"
    same "$(sha256sum <"$T/plain" | cut -d' ' -f1)" "$(jq -r 'select(.segment == 2).sha256' "$journal/ledger")"
    grep -q '"more"' "$T/plain"
}

@test "daily: an idle journal stays as it is, and one that was used is closed once" {
    needs faketime
    ftai-keys init >/dev/null
    try later 1 ftai-rotate
    ended 0
    empty "$T/err"
    same "$(tail -1 "$T/out" | jq -r .closed)" 000001.ftai
    sum=$(cat "$journal"/* | sha256sum)
    for n in 1 2 3 40; do
        try later $n ftai-rotate
        ended 0
        empty "$T/out"
        empty "$T/err"
    done
    same "$(cat "$journal"/* | sha256sum)" "$sum"
}

@test "weekly, and by size" {
    needs faketime
    policy '  rotate: "size"
  size: 1'
    try later 100 ftai-rotate
    ended 0
    empty "$T/out"
    head -c 800000 /dev/urandom | base64 -w 4000 | sed 's/.*/{"@tag":"note","body":"&"}/' | ftai-log --sink
    try ftai-rotate
    ended 0
    same "$(head -1 "$T/out" | jq -c .what)" '["close current.ftai: it has 1 MB"]'
    policy '  rotate: "weekly"'
    echo '{"@tag":"note","body":"x"}' | ftai-log --sink
    # The days of this week that are left.
    left=$((7 - $(date +%u)))
    try later $left ftai-rotate
    ended 0
    empty "$T/out"
    try later $((left + 1)) ftai-rotate
    ended 0
    same "$(tail -1 "$T/out" | jq -r .closed)" 000002.ftai
}

@test "without a key to sign with: a warning and a hint, and all else is done" {
    try ftai-rotate --now
    ended 0
    grep -q "^ftai-rotate: warning: the journal has no signed checkpoint" "$T/err"
    same "$(tail -1 "$T/err")" "hint: ftai-keys init"
    same "$(sealed)" "000001.ftai.zst.sealed"
    echo '{"@tag":"note","body":"x"}' | ftai-log --sink
    try ftai-rotate --now -q
    ended 0
    empty "$T/err"
}

@test "--dry-run tells what, and why, and changes nothing" {
    sum=$(cat "$journal"/* | sha256sum)
    try ftai-rotate --dry-run
    ended 0
    same "$(jq -c '[."@tag", .act, .would]' "$T/out")" '["report","rotate",[]]'
    try ftai-rotate --now --dry-run
    ended 0
    empty "$T/err"
    same "$(jq -c .would "$T/out")" '["close and seal current.ftai: it was asked for"]'
    same "$(cat "$journal"/* | sha256sum)" "$sum"
}

@test "retention: what no rule keeps goes, and a segment with a memory stays" {
    ftai-keys init >/dev/null
    for word in one two three; do
        echo "{\"@tag\":\"note\",\"body\":\"$word\"}" | ftai-log --sink
        [ $word = two ] && ftai-run "remember that the door code is 1234" >/dev/null
        ftai-rotate --now >/dev/null
    done
    policy '  keep_last: 1'
    try ftai-rotate --dry-run
    ended 0
    same "$(jq -c .would "$T/out")" '["remove 000001.ftai.zst.sealed: no rule keeps it"]'
    same "$(jq -c .kept "$T/out")" '["000002.ftai.zst.sealed: a memory of the tier '"'long'"', which is kept for ever","000003.ftai.zst.sealed: the last one"]'
    try ftai-rotate
    ended 0
    empty "$T/err"
    same "$(jq -r '."@tag"' "$T/out" | xargs)" "audit checkpoint report"
    same "$(tail -1 "$T/out" | jq -c .removed)" '["000001.ftai.zst.sealed"]'
    same "$(sed -n 2p "$T/out" | jq -r '.because, .removed[]' | cut -d' ' -f1-3 | xargs)" "retention 1 1 $(jq -r 'select(.segment == 2).first - 1' "$journal/ledger")"
    same "$(sealed)" "000002.ftai.zst.sealed 000003.ftai.zst.sealed"
    try ftai-log --verify
    ended 0
    grep -q "were removed, as a signed checkpoint says" "$T/err"
    try ftai-rotate
    ended 0
    empty "$T/out"
}

@test "retention: what a killed run left in the archive goes with the next one" {
    ftai-keys init >/dev/null
    for word in one two; do
        echo "{\"@tag\":\"note\",\"body\":\"$word\"}" | ftai-log --sink
        ftai-rotate --now >/dev/null
    done
    policy '  keep_last: 1'
    ftai-archive maintain >/dev/null
    cp "$FTAI_HOME/state/archive.db" before.db
    ftai-rotate >/dev/null
    same "$(sealed)" "000002.ftai.zst.sealed"
    same "$(ftai-recall --tag note -n 9 | jq -r .body | xargs)" "two"
    # As if it had been killed before it came to the archive.
    rm -f "$FTAI_HOME"/state/archive.db*
    cp before.db "$FTAI_HOME/state/archive.db"
    same "$(ftai-recall --tag note one | jq -r .body)" "one"
    try ftai-rotate
    ended 0
    empty "$T/out"
    same "$(ftai-recall --tag note -n 9 | jq -r .body | xargs)" "two"
}

@test "retention: a wrong clock is 75, and all else is done" {
    needs faketime
    ftai-keys init >/dev/null
    ftai-rotate --now >/dev/null
    echo '{"@tag":"note","body":"x"}' | ftai-log --sink
    policy '  keep_last: 1'
    try later 40 ftai-rotate
    ended 75
    grep -q "nothing is removed: the clock says" "$T/err"
    same "$(tail -1 "$T/out" | jq -c '[.outcome, .sealed]')" '["failed",["000002.ftai.zst.sealed"]]'
    same "$(sealed)" "000001.ftai.zst.sealed 000002.ftai.zst.sealed"
    # Again: what it wrote itself proves nothing.
    try later 41 ftai-rotate
    ended 75
    empty "$T/out"
    echo '{"@tag":"note","body":"y"}' | ftai-log --sink
    try ftai-rotate
    ended 0
    same "$(sealed)" "000002.ftai.zst.sealed"
}

@test "retention: without a key to sign with nothing is removed: 78" {
    ftai-rotate --now -q >/dev/null
    echo '{"@tag":"note","body":"x"}' | ftai-log --sink
    policy '  keep_last: 1'
    try ftai-rotate --now -q
    ended 78
    grep -q "^hint: ftai-keys init" "$T/err"
    same "$(sealed)" "000001.ftai.zst.sealed 000002.ftai.zst.sealed"
}

@test "an unreadable spec removes nothing: 78, and all else is done" {
    ftai-keys init >/dev/null
    ftai-rotate --now >/dev/null
    echo '{"@tag":"note","body":"x"}' | ftai-log --sink
    policy '  keep_last: -1'
    try ftai-rotate --now
    ended 78
    same "$(sealed)" "000001.ftai.zst.sealed 000002.ftai.zst.sealed"
}

@test "as cron runs it: no HOME, no terminal, nothing in the environment" {
    try env -i PATH="$PATH" FTAI_HOME="$FTAI_HOME" sh -c 'cd / && exec ftai-rotate --now -q' <&-
    ended 0
    empty "$T/err"
    same "$(sealed)" "000001.ftai.zst.sealed"
    same "$(stat -c %a "$journal"/* | sort -u)" 600
}

@test "the identity need not be at hand" {
    ftai-keys init >/dev/null
    mv "$FTAI_HOME/state/keys/identity" "$T/identity"
    ftai-rotate --now -q >"$T/first"  # one more to be sealed: it is told once
    same "$(sealed)" "000001.ftai.zst.sealed"
    echo '{"@tag":"note","body":"x"}' | ftai-log --sink
    try ftai-rotate --now
    ended 0
    same "$(grep -v ' *hint:' "$T/err")" "ftai-rotate: warning: what was sealed could not be opened here: the identity is not at hand"
    same "$(sealed)" "000001.ftai.zst.sealed 000002.ftai.zst.sealed"
    ! grep opened "$journal/ledger"
    echo '{"@tag":"note","body":"x"}' | ftai-log --sink
    FTAI_IDENTITY=$T/identity try ftai-rotate --now
    ended 0
    empty "$T/err"
    echo '{"@tag":"note","body":"x"}' | ftai-log --sink
    FTAI_RECIPIENTS=$(cat "$FTAI_HOME/state/keys/recipient") try ftai-rotate --now
    ended 0
    empty "$T/err"
    mv "$T/identity" "$FTAI_HOME/state/keys/identity"
    verified
    same "$(words | wc -w)" 63
}

@test "sealed for others: checked all the same" {
    needs age-keygen
    age-keygen -o "$T/other" 2>/dev/null
    chmod 600 "$T/other"
    export FTAI_RECIPIENTS
    FTAI_RECIPIENTS=$(age-keygen -y "$T/other")
    for method in aes256 age; do
        FTAI_SEAL=$method try ftai-rotate --now -q
        ended 0
        echo '{"@tag":"note","body":"x"}' | ftai-log --sink
    done
    same "$(sealed)" "000001.ftai.zst.sealed 000002.ftai.zst.age"
    FTAI_IDENTITY=$T/other verified
}

@test "an identity that does not belong to the recipient: 77, and the plain segment stays" {
    needs age-keygen
    ftai-keys init >/dev/null
    age-keygen 2>/dev/null | tail -1 >"$FTAI_HOME/state/keys/identity"
    try ftai-rotate --now
    ended 77
    grep -q "cannot check .*made for another identity" "$T/err"
    same "$(sealed)" ""
    [ -e "$journal/000001.ftai" ]
    same "$(tail -1 "$T/out" | jq -r .outcome)" failed
    verified
}

@test "for a passphrase: it waits for who has it" {
    export FTAI_RECIPIENTS=passphrase
    try ftai-rotate --now
    ended 77
    [ -e "$journal/000001.ftai" ]
    ftai-rotate -q >/dev/null 2>&1 || true
    sum=$(cat "$journal"/* | sha256sum)
    for n in 1 2 3; do
        try ftai-rotate -v
        ended 77
        empty "$T/out"
        grep -q "^ftai-rotate: .*the passphrase was not given" "$T/err"
        ! grep "nothing to do" "$T/err" || false
    done
    same "$(cat "$journal"/* | sha256sum)" "$sum"
    FTAI_PASSPHRASE_FD=3 try ftai-rotate -q 3<<<"correct horse battery"
    ended 0
    same "$(sealed)" "000001.ftai.zst.sealed"
}

@test "damage inside a segment: sealed as it is, and said once" {
    sed -i '0,/"word1 or not"/s//"word1 or noT"/' "$journal/current.ftai"
    try ftai-rotate --now -q
    ended 1
    grep -q "000001.ftai': seq 1" "$T/err"
    [ -e "$journal/000001.ftai.zst.sealed" ] && [ ! -e "$journal/000001.ftai" ]
    same "$(tail -1 "$T/out" | jq -r .outcome)" failed
    try ftai-rotate
    ended 0
    empty "$T/out"
    try ftai-log --verify
    ended 1
    grep -q "seq 1" "$T/err"
}

@test "another rotation, or a purge: 75" {
    exec 9>"$journal/.purge"
    flock 9
    ftai-rotate --now >"$T/out" 2>"$T/err" 9>&- || rc=$?
    exec 9>&-
    same "$rc" 75
    grep -q "a purge or another rotation is under way" "$T/err"
    [ ! -e "$journal/000001.ftai" ]
}

@test "two at the same time: one does it, the other finds nothing to do" {
    ftai-rotate --now -q >"$T/one" &
    one=$!
    try ftai-rotate --now -q
    wait $one
    ended 0
    same "$(cat "$T/one" "$T/out" | jq -r 'select(.closed).closed')" 000001.ftai
    verified
}

@test "a purge of what is sealed, and sealed again" {
    ftai-rotate --now -q >/dev/null
    ftai-archive purge --pattern "word7 " --because x >/dev/null
    [ -e "$journal/000001.ftai" ]
    try ftai-rotate -q
    ended 0
    same "$(head -1 "$T/out" | jq -c .what)" '["seal 000001.ftai"]'
    same "$(sealed)" "000001.ftai.zst.sealed"
    same "$(words | grep -c word7)" 0
    verified
}

@test "usage" {
    for words in nonsense "--now --often" "now" '""'; do
        try eval ftai-rotate "$words"
        ended 2
        empty "$T/out"
    done
    [ ! -e "$journal/000001.ftai" ]
}

# Fills the journal, so that a rotation takes a while.
filled() {
    head -c 3000000 /dev/urandom | base64 -w 4000 | sed 's/.*/{"@tag":"note","body":"&"}/' | ftai-log --sink
}

# Until a segment is being sealed, or that is over: without a pause between two looks, as it may be done in one.
sealing() { until compgen -G "$journal/.*.tmp" >/dev/null || ! kill -0 "$1" 2>/dev/null; do :; done; }

@test "SIGTERM and SIGINT in the middle: nothing is lost, and the next run ends it" {
    filled
    before=$(words | sha256sum) fired=0
    for signal in TERM INT; do
        mkfifo "$T/$signal"
        "$root/.venv/bin/python" -c 'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])' \
            ftai-rotate --now -q >"$T/$signal" 2>"$T/err" &
        child=$!
        exec 8<"$T/$signal"
        read -r line <&8
        grep -q intended <<<"$line"
        sealing $child
        kill -$signal $child 2>/dev/null || true
        code=0
        wait $child || code=$?
        exec 8<&-
        case $code in 0) ;; 130 | 143) fired=$((fired + 1)) ;; *) return 1 ;; esac
        same "$(words | sha256sum)" "$before"
    done
    [ $fired -gt 0 ]
    try ftai-rotate -q
    ended 0
    same "$(ls -A "$journal" | grep -c tmp)" 0
    same "$(ls "$journal" | grep -cE '^[0-9]+\.ftai$')" 0
    same "$(words | sha256sum)" "$before"
    verified
}

@test "a reader that is gone: 141, and the next run ends it" {
    rc=0
    bash -c 'ftai-rotate --now -q | :; exit ${PIPESTATUS[0]}' || rc=$?
    [ "$rc" -eq 141 ] || [ "$rc" -eq 0 ]
    try ftai-rotate --now -q
    ended 0
    same "$(ls "$journal" | grep -cE '^[0-9]+\.ftai$')" 0
    same "$(words | wc -w)" 60
    verified
}

@test "a bar on a terminal, and none with -q or in a pipe" {
    filled
    try ftai-rotate --now --dry-run
    empty "$T/err"
    screen() { "$root/.venv/bin/python" -c 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))' "$@" </dev/null; }
    screen sh -c 'ftai-rotate --now >/dev/null' >"$T/screen"
    grep -q '\[#* *\] 000001.ftai [0-9]* of 4 MB' "$T/screen"
    echo '{"@tag":"note","body":"x"}' | ftai-log --sink
    screen sh -c 'ftai-rotate --now -q >/dev/null' >"$T/screen"
    empty "$T/screen"
}
