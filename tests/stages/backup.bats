#!/usr/bin/env bats
# ftai-rotate backup, check, list, restore, drill.

load helper

setup_file() {
    scratch
    for n in {1..5}; do echo "{\"@tag\":\"note\",\"body\":\"secret$n stays\"}"; done | ftai-log --sink
    ftai-keys init >"$T/init"
    mkdir "$T/to"
}

setup() {
    scratch
    state=$FTAI_HOME/state to=$T/to
}

# The names of the backups, oldest first.
snapshots() { (cd "$to/snapshots" && ls | sed 's/\.note$//'); }

# What `try` printed is what the journal holds behind the notes and the keys.
journaled() {
    jq -S . "$T/out" >"$T/printed"
    ftai-recall --after "$1" | jq -S 'del(."@blocks")' >"$T/held"
    cmp "$T/printed" "$T/held"
}

last() { ftai-archive stats | jq .last; }

@test "backup: a record before and one after, both in the journal" {
    seq=$(last)
    try ftai-rotate backup --to "$to"
    ended 0
    empty "$T/err"
    same "$(jq -c '[."@tag", .subject, .act, .outcome, .path]' "$T/out" | xargs)" "[audit,backup,backup,intended,$to] [report,backup,backup,done,$to]"
    same "$(tail -1 "$T/out" | jq -c '[.verified, .segments, .first, .last]')" "[true,1,1,$((seq + 1))]"
    journaled "$seq"
    same "$(snapshots)" "$(tail -1 "$T/out" | jq -r .snapshot)"
    same "$(stat -c %a "$to"/objects/* "$to"/snapshots/* "$to/ftai-backup" | sort -u)" 600
    same "$(stat -c %a "$to/objects" "$to/snapshots" "$to/latest" | sort -u)" 700
    same "$(grep -rl secret3 "$to")" ""
    same "$(jq -r .path <"$state/backups")" null
    same "$(jq -r .folder <"$state/backups")" "$to"
}

@test "the last folder is used where none is said" {
    try ftai-rotate backup
    ended 2
    grep -q '^hint: ftai-rotate backup --to DIR$' "$T/err"
    ftai-rotate backup --to "$to" >/dev/null
    for verb in backup check list drill; do
        try ftai-rotate $verb
        ended 0
        empty "$T/err"
    done
    same "$(ftai-rotate list | jq -r .snapshot)" "$(snapshots)"
}

@test "restored, it is a home that works at once" {
    ftai-run "remember to call Zoltan" >/dev/null
    mkdir -p "$FTAI_HOME/config" "$FTAI_HOME/data/answers"
    echo "a long answer" >"$FTAI_HOME/data/answers/0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e.txt"
    printf '@ftai v2.0\n\n@place\n  name: "notes"\n  value: "elsewhere"\n  summary: "x"\n@end\n' >"$FTAI_HOME/config/serenamaster.config.ftai"
    ftai-rotate backup --to "$to" >/dev/null
    seq=$(last)
    try ftai-rotate restore --into "$T/restored"
    ended 0
    empty "$T/err"
    same "$(tail -1 "$T/out" | jq -c '[.outcome, .into]')" "[\"done\",\"$T/restored\"]"
    journaled "$seq"
    for place in data/answers/0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e.txt config/serenamaster.config.ftai state/state.db state/keys/signing.pub; do
        [ -e "$T/restored/$place" ]
    done
    cmp "$FTAI_HOME/config/serenamaster.config.ftai" "$T/restored/config/serenamaster.config.ftai"
    [ ! -e "$T/restored/state/keys/signing.key" ]
    [ ! -e "$T/restored/state/keys/identity" ]
    held=$(ftai-recall --after 0 | head -n "$((seq - 1))" | sha256sum)
    export FTAI_HOME=$T/restored
    try ftai-log --verify
    ended 0
    same "$(ftai-recall --after 0 | sha256sum)" "$held"
    ftai-recall Zoltan | grep -q Zoltan
    # It goes on from there.
    echo '{"@tag":"note","body":"goes on"}' | ftai-log --sink
    try ftai-log --verify
    ended 0
}

@test "restore by time, as ftai-recall takes it" {
    ftai-rotate backup --to "$to" >/dev/null
    echo '{"@tag":"note","body":"later"}' | ftai-log --sink
    ftai-rotate backup >/dev/null
    first=$(snapshots | head -1)
    when=${first:0:4}-${first:4:2}-${first:6:5}:${first:11:2}:${first:13}
    for at in "today 2" "$when 1"; do
        try ftai-rotate restore --at "${at% *}" --into "$T/restored"
        ended 0
        same "$(tail -1 "$T/out" | jq -r .snapshot)" "$(snapshots | sed -n "${at#* }p")"
        rm -r "$T/restored"
    done
    try ftai-rotate restore --at 2020-01-01 --into "$T/restored"
    ended 66
    [ ! -e "$T/restored" ]
    try ftai-rotate restore --at "never ever" --into "$T/restored"
    ended 2
}

@test "an older backup has no copy of the archive: restored, it works at once" {
    for n in 1 2 3; do ftai-rotate backup --to "$to" >"$T/made"; done
    first=$(snapshots | head -1)
    same "$(tail -1 "$T/made" | jq -r '.archives[]')" "$first"
    when=${first:0:4}-${first:4:2}-${first:6:5}:${first:11:2}:${first:13}
    try ftai-rotate restore --at "$when" --into "$T/restored"
    ended 0
    empty "$T/err"
    same "$(tail -1 "$T/out" | jq -c '[.snapshot, .rebuilt]')" "[\"$first\",true]"
    [ "$(FTAI_HOME=$T/restored ftai-archive stats | jq .records)" -ge 5 ]
    FTAI_HOME=$T/restored ftai-recall secret3 | grep -q "secret3 stays"
    for more in "" --read-data; do
        try ftai-rotate check $more
        ended 0
        empty "$T/err"
    done
    try ftai-rotate drill --at "$when"
    ended 0
    grep -q "no archive to compare with" "$T/err"
}

@test "restore of one segment" {
    ftai-rotate --now >/dev/null
    ftai-rotate backup --to "$to" >/dev/null
    try ftai-rotate restore --segment 1 --into "$T/restored"
    ended 0
    empty "$T/err"
    same "$(cd "$T/restored" && find . -type f)" ./state/journal/000001.ftai
    grep -q secret3 "$T/restored/state/journal/000001.ftai"
    try ftai-rotate restore --segment 77 --into "$T/none"
    ended 66
    try ftai-rotate restore --segment x --into "$T/none"
    ended 2
}

@test "closed, sealed, backed up: what was sealed is copied, once" {
    ftai-rotate --now >/dev/null
    sealed=$(ls "$state"/journal/000001.ftai.zst.*)
    ftai-rotate backup --to "$to" >/dev/null
    copies() { for object in "$to"/objects/*; do cmp -s "$sealed" "$object" && echo x; done | wc -l; }
    same "$(copies)" 1
    ftai-rotate backup >"$T/out"
    same "$(copies)" 1
    # The live segment and the archive; not the keys, and not what was closed.
    same "$(ls "$to/objects" | wc -l)" 8
    try ftai-rotate check --read-data
    ended 0
    try ftai-rotate drill
    ended 0
    same "$(tail -1 "$T/out" | jq -c '[.act, .outcome]')" '["drill","done"]'
}

@test "a drill leaves nothing, and its own archive is not touched" {
    ftai-rotate backup --to "$to" >/dev/null
    before=$(find "$FTAI_HOME" "$to" -type f | sort)
    try ftai-rotate drill
    ended 0
    empty "$T/err"
    same "$(find "$FTAI_HOME" "$to" -type f | sort)" "$before"
    [ "$(tail -1 "$T/out" | jq .rows)" -ge 5 ]
}

@test "a drill finds an archive that is not what the journal says" {
    sqlite3 "$state/archive.db" "UPDATE records SET thread = 'x' WHERE seq = 3"
    ftai-rotate backup --to "$to" >/dev/null
    try ftai-rotate drill
    ended 1
    grep -q "differs from that of the backup in 1 of" "$T/err"
    same "$(jq -r .ok <"$state/backups")" false
}

@test "check finds what is damaged, and says which and what to do" {
    ftai-rotate backup --to "$to" >/dev/null
    object=$to/objects/$(grep -h signing.pub "$to"/snapshots/* | jq -r .object)
    # Within the text of the age header, where no such byte can stand.
    printf '\0' | dd of="$object" bs=1 seek=50 conv=notrunc status=none
    for more in "" --read-data; do
        try ftai-rotate check $more
        ended 1
        grep -q "'$object'.*is damaged" "$T/err"
        grep -q "^hint: ftai-rotate backup" "$T/err"
        same "$(tail -1 "$T/out" | jq -c '[.outcome, .damaged]')" '["failed",1]'
    done
    try ftai-rotate backup
    ended 0
    grep -q "'$object'.*is damaged.*it is written anew" "$T/err"
    same "$(tail -1 "$T/out" | jq -c '[.verified, .mended]')" '[true,1]'
    try ftai-rotate restore --into "$T/restored"
    ended 0
}

@test "a manifest that was changed: 65, and nothing is restored" {
    ftai-rotate backup --to "$to" >/dev/null
    sed -i 's/"first":1/"first":2/' "$to"/snapshots/*
    try ftai-rotate restore --into "$T/restored"
    ended 65
    grep -q "cannot believe" "$T/err"
    [ ! -e "$T/restored" ]
    try ftai-rotate check
    ended 1
    try ftai-rotate list
    ended 65
    empty "$T/out"
}

@test "folders that won't do" {
    try ftai-rotate backup --to "$T/none"
    ended 73
    grep -q "there is no folder '$T/none'" "$T/err"
    [ ! -e "$T/none" ]
    mkdir "$T/full" && touch "$T/full/photo"
    try ftai-rotate backup --to "$T/full"
    ended 73
    same "$(ls "$T/full")" photo
    touch "$T/file"
    try ftai-rotate backup --to "$T/file"
    ended 73
    for verb in check list drill "restore --into $T/x"; do
        try ftai-rotate $verb --to "$T/none"
        ended 66
        try ftai-rotate $verb --to "$to"
        ended 66
        grep -q "there is no backup in '$to'" "$T/err"
    done
    # What it was tried with is in the journal.
    same "$(ftai-recall --tag report | jq -r 'select(.outcome == "failed") | .because' | grep -c 'no folder\|not empty')" 1
}

@test "another journal's backups: 77" {
    ftai-rotate backup --to "$to" >/dev/null
    before=$(find "$to" -type f -exec sha256sum {} + | sort)
    export FTAI_HOME=$T/second
    echo '{"@tag":"note","body":"x"}' | ftai-log --sink
    ftai-keys init >/dev/null
    try ftai-rotate backup --to "$to"
    ended 77
    grep -q "those of another journal" "$T/err"
    same "$(find "$to" -type f -exec sha256sum {} + | sort)" "$before"
}

@test "two at once: 75" {
    ftai-rotate backup --to "$to" >/dev/null
    exec 9>"$to/.lock"
    flock 9
    ftai-rotate backup >"$T/out" 2>"$T/err" 9>&- || rc=$?
    exec 9>&-
    same "$rc" 75
    same "$(snapshots | wc -l)" 1
}

@test "without a signing key: 78, and what to do" {
    rm "$state/keys/signing.key"
    try ftai-rotate backup --to "$to"
    ended 78
    grep -q '^hint: ftai-keys init$' "$T/err"
    same "$(ls -A "$to")" ""
}

@test "without the identity it is made, and is 1" {
    mv "$state/keys/identity" "$T/identity"
    try ftai-rotate backup --to "$to"
    ended 1
    grep -q "could not be opened again" "$T/err"
    same "$(tail -1 "$T/out" | jq .verified)" false
    try ftai-rotate check
    ended 0
    try ftai-rotate check --read-data
    ended 77
    try ftai-rotate restore --into "$T/restored"
    ended 77
    same "$(ls -d "$T"/*restore*)" ""
    FTAI_IDENTITY=$T/identity try ftai-rotate restore --into "$T/restored"
    ended 0
}

@test "for other recipients: an SSH key, a passphrase" {
    ssh-keygen -q -t ed25519 -N "" -f "$T/ssh" || skip "no ssh-keygen"
    chmod 600 "$T/ssh"
    export FTAI_RECIPIENTS=$(cut -d' ' -f1-2 "$T/ssh.pub") FTAI_IDENTITY=$T/ssh
    try ftai-rotate backup --to "$to"
    ended 0
    try ftai-rotate drill
    ended 0
    mkdir "$T/second"
    export FTAI_RECIPIENTS=passphrase FTAI_IDENTITY=
    with() { FTAI_PASSPHRASE_FD=3 "$@" 3<<<"correct horse"; }
    try with ftai-rotate backup --to "$T/second"
    ended 0
    try with ftai-rotate restore --into "$T/restored"
    ended 0
    try ftai-rotate restore --into "$T/again" </dev/null
    ended 77
}

@test "on a new machine: by the key that was printed, or with a warning" {
    ftai-rotate backup --to "$to" >/dev/null
    vkey=$(cat "$state/keys/signing.pub")
    cp "$state/keys/identity" "$T/identity"
    export FTAI_HOME=$T/new FTAI_IDENTITY=$T/identity
    try ftai-rotate restore --to "$to" --into "$T/one"
    ended 0
    grep -qF "proves nothing unless you know it: $vkey" "$T/err"
    try ftai-rotate restore --to "$to" --key "$vkey" --into "$T/two"
    ended 0
    empty "$T/err"
    # Nothing is begun there, but the records are printed.
    [ ! -e "$T/new/state/journal" ]
    same "$(jq -r '."@tag"' "$T/out" | xargs)" "audit report"
    FTAI_HOME=$T/other ftai-keys init >/dev/null
    try ftai-rotate restore --to "$to" --key "$(cat "$T/other/state/keys/signing.pub")" --into "$T/three"
    ended 65
    try ftai-rotate restore --to "$to" --key x --into "$T/three"
    ended 78
    [ ! -e "$T/three" ]
}

@test "what was purged stays unreadable after the restore of an older backup" {
    export FTAI_ENCRYPT=local
    echo '{"@tag":"note","body":"Zoltan was here"}' | ftai-log --sink
    ftai-rotate backup --to "$to" >/dev/null
    ftai-rotate restore --into "$T/before" >/dev/null
    try ftai-archive purge --pattern Zoltan --because x
    ended 0
    tail -1 "$T/out" | jq -r '.unreached[]' | grep -qF "$to"
    ftai-rotate backup >/dev/null
    first=$(snapshots | head -1)
    ftai-rotate restore --at "${first:0:4}-${first:4:2}-${first:6:5}:${first:11:2}:${first:13}" --into "$T/after" >"$T/out"
    same "$(tail -1 "$T/out" | jq -r .snapshot)" "$first"
    for place in before after; do cp "$state/keys/identity" "$T/$place/state/keys/identity"; done
    same "$(FTAI_HOME=$T/before ftai-recall --tag note --after 0 | grep -c Zoltan)" 1
    same "$(FTAI_HOME=$T/after ftai-recall --tag note --after 0 | grep -c Zoltan)" 0
}

@test "retention: told before, done after" {
    mkdir -p "$FTAI_HOME/config"
    printf '@ftai v2.0\n\n@retention\n  name: "backups"\n  summary: "x"\n  keep_last: 2\n@end\n' >"$FTAI_HOME/config/serenamaster.memory.ftai"
    for n in 1 2; do ftai-rotate backup --to "$to" >/dev/null; done
    first=$(snapshots | head -1)
    try ftai-rotate backup --dry-run
    ended 0
    same "$(jq -c '[.gone[], (."@blocks"[] | [.keep, .because])]' "$T/out")" "[\"$first\",[false,\"no rule keeps it\"],[true,\"one of the last 2\"]]"
    same "$(snapshots | head -1)" "$first"
    try ftai-rotate backup
    ended 0
    same "$(tail -1 "$T/out" | jq -c .gone)" "[\"$first\"]"
    same "$(snapshots | grep -c "$first")" 0
    try ftai-rotate check --read-data
    ended 0
}

@test "a clock that is wrong: nothing is removed, 75" {
    command -v faketime >/dev/null || skip "no faketime"
    mkdir -p "$FTAI_HOME/config"
    printf '@ftai v2.0\n\n@retention\n  name: "backups"\n  summary: "x"\n  keep_last: 1\n@end\n' >"$FTAI_HOME/config/serenamaster.memory.ftai"
    ftai-rotate backup --to "$to" >/dev/null
    for dry in --dry-run ""; do
        try faketime -f +90d ftai-rotate backup $dry
        ended 75
        grep -q "nothing is removed: the clock says" "$T/err"
    done
    same "$(snapshots | wc -l)" 2
    # And then it seems to go back.
    for dry in --dry-run ""; do
        try ftai-rotate backup $dry
        ended 75
        grep -q "the clock is before the newest backup" "$T/err"
    done
    same "$(snapshots | wc -l)" 2
}

@test "the config says where to, and a project may not" {
    mkdir -p "$FTAI_HOME/config" "$T/project/.ftai" "$T/theirs"
    printf '@ftai v2.0\n\n@place\n  name: "backup"\n  value: "%s"\n  summary: "x"\n@end\n' "$T/theirs" >"$T/project/.ftai/serenamaster.config.ftai"
    cd "$T/project"
    try ftai-rotate backup
    ended 2
    printf '@ftai v2.0\n\n@place\n  name: "backup"\n  value: "%s"\n  summary: "x"\n@end\n' "$to" >"$FTAI_HOME/config/serenamaster.config.ftai"
    try ftai-rotate backup
    ended 0
    same "$(ls -A "$T/theirs")" ""
    same "$(snapshots | wc -l)" 1
}

@test "usage" {
    for words in "restore" "restore --into" "backup extra" "check --nonsense" "drill --segment 1" "--dry-run backup"; do
        try ftai-rotate $words --to "$to"
        ended 2
        empty "$T/out"
    done
}

@test "a reader that is gone ends it; what was made is whole" {
    rc=0
    bash -c "ftai-rotate backup --to '$to' | :; exit \${PIPESTATUS[0]}" || rc=$?
    [ "$rc" -eq 141 ] || [ "$rc" -eq 0 ]
    try ftai-rotate backup --to "$to"
    ended 0
    try ftai-rotate check --read-data
    ended 0
}

@test "terminated, or without its terminal: 143, 129, and nothing in plain is left" {
    ftai-rotate backup --to "$to" >/dev/null
    for signal in TERM HUP; do
        want=$((128 + $(kill -l $signal)))
        for n in $(seq 5); do
            ftai-rotate drill >"$T/out" 2>"$T/err" &
            pid=$!
            until [ -n "$(find "$FTAI_HOME/cache/drill" -name '*.ftai' 2>/dev/null)" ] || ! kill -0 "$pid" 2>/dev/null; do :; done
            rc=0
            kill -$signal "$pid" 2>/dev/null || true
            wait "$pid" || rc=$?
            [ "$rc" -eq $want ] || [ "$rc" -eq 0 ]
            [ -z "$(find "$FTAI_HOME/cache" -name '*.ftai')" ]
            [ "$rc" -eq $want ] && break
        done
        [ "$rc" -eq $want ]
    done
    same "$(grep -c "ended by Terminated" "$FTAI_HOME/state/journal/current.ftai")" 2
}

@test "from cron: env -i" {
    try env -i FTAI_HOME="$FTAI_HOME" "$root/bin/ftai-rotate" backup --to "$to"
    ended 0
    try env -i FTAI_HOME="$FTAI_HOME" "$root/bin/ftai-rotate" drill
    ended 0
    empty "$T/err"
}

@test "what the journal lost is told: by the backup, by check --read-data, by a drill" {
    ftai-rotate --now >/dev/null
    ftai-rotate backup --to "$to" >/dev/null
    rm "$state"/journal/000001.ftai.zst.*
    try ftai-rotate backup
    ended 1
    grep -q "segment 1 is missing; older backups are kept" "$T/err"
    same "$(ftai-rotate list | jq -c .lost)" "$(printf 'null\n["segment 1 is missing"]')"
    try ftai-rotate check
    ended 0
    try ftai-rotate check --read-data
    ended 1
    grep -q "segment 1 is missing, and no signed checkpoint says that retention took it away" "$T/err"
    try ftai-rotate drill
    ended 1
}

@test "the newest backup is gone: told by list, restore and drill" {
    for n in 1 2; do ftai-rotate backup --to "$to" >/dev/null; done
    newest=$(snapshots | tail -1)
    rm "$to/snapshots/$newest.note"
    try ftai-rotate list
    ended 1
    same "$(wc -l <"$T/out")" 1
    grep -q "$newest.note' is gone" "$T/err"
    for words in "restore --into $T/restored" drill; do
        try ftai-rotate $words
        ended 0
        grep -q "$newest.note' is gone: an older backup is taken" "$T/err"
        same "$(tail -1 "$T/out" | jq -c .missing)" "[\"$newest\"]"
    done
}

@test "a damaged marker: 65, and what to do works" {
    ftai-rotate backup --to "$to" >/dev/null
    echo damaged >"$to/ftai-backup"
    for words in backup check list drill "restore --into $T/restored"; do
        try ftai-rotate $words
        ended 65
        grep -q "'$to/ftai-backup' is damaged" "$T/err"
    done
    sed -n 's/^hint: //p' "$T/err" >"$T/hint"
    try bash -e "$T/hint"
    ended 0
}

@test "a clock that leapt, and that others wrote with too: nothing is removed, 75" {
    command -v faketime >/dev/null || skip "no faketime"
    mkdir -p "$FTAI_HOME/config"
    printf '@ftai v2.0\n\n@retention\n  name: "backups"\n  summary: "x"\n  keep_last: 1\n@end\n' >"$FTAI_HOME/config/serenamaster.memory.ftai"
    ftai-rotate backup --to "$to" >/dev/null
    echo '{"@tag":"note","body":"later"}' | faketime -f +40d ftai-log --sink
    try faketime -f +40d ftai-rotate backup
    ended 75
    grep -q "nothing is removed: the clock leapt ahead by more than a month" "$T/err"
    same "$(snapshots | wc -l)" 2
}
