#!/usr/bin/env bats
# ftai-doctor: what is set up, what is missing, how to get it.

load helper

# A run with something in the journal.
seed() { ftai-listen "$@" | ftai-log >/dev/null; }

# The hint below the first line that says `$1`, as it can be typed.
hint() { grep -A1 -F "$1" "$T/out" | sed -n 's/^ *hint: //p' | head -1; }

@test "a fresh machine: nothing fails, and nothing is made but the cache" {
    try ftai-doctor
    ended 0
    empty "$T/err"
    same "$(grep -vcE '^(ok   |warn ) [a-z.]+: |^      hint: ' "$T/out")" 0
    for what in python package folder journal archive.db specs disk clock path manual providers prices start; do
        grep -qE "^(ok  |warn)  $what: " "$T/out"
    done
    [ ! -e "$FTAI_HOME/state" ]
}

@test "after work: journal and archive are counted" {
    seed "what time is it"
    try ftai-doctor
    ended 0
    grep -q '^ok    journal: 1 records in 1 segment, whole' "$T/out"
    grep -q '^ok    archive.db: ' "$T/out"
}

@test "a broken spec fails with its place, and all else is checked" {
    mkdir -p "$FTAI_HOME/config"
    printf '@ftai v2.0\n@phrase\n  nime: "x"\n@end\n' >"$FTAI_HOME/config/serenamaster.commands.ftai"
    try ftai-doctor
    ended 1
    grep -q "^fail  specs: $FTAI_HOME/config/serenamaster.commands.ftai:3: " "$T/out"
    grep -q '^ok    disk: ' "$T/out"
}

@test "a folder that others may write into fails, and the hint puts it right" {
    mkdir -p "$FTAI_HOME/data"
    chmod 777 "$FTAI_HOME/data"
    try ftai-doctor
    ended 1
    eval "$(hint 'is writable by others')"
    try ftai-doctor
    ended 0
    chmod 755 "$FTAI_HOME/data"
    try ftai-doctor
    ended 0
    grep -q '^warn  folder: data .* can be read by others' "$T/out"
}

@test "damage in a closed segment is reported until it is accepted" {
    seed "what time is it"
    seed "remember the milk"
    live=$FTAI_HOME/state/journal/current.ftai
    sed -i 's/the milk/the silk/' "$live"
    seed "remember the bread" 2>/dev/null
    try ftai-log --verify
    ended 1
    try ftai-doctor
    ended 1
    grep -q '^fail  journal: .*000001.ftai:' "$T/out"
    command=$(hint 'fail  journal')
    same "$command" "ftai-doctor --accept"
    try $command --dry-run
    ended 0
    grep -q '^would accept: .*000001.ftai:' "$T/out"
    try ftai-log --verify
    ended 1
    try $command
    ended 0
    grep -q '^accepted: .*000001.ftai:' "$T/out"
    try ftai-log --verify
    ended 0
    try ftai-doctor
    ended 0
    same "$(ftai-recall --tag audit --limit 20 | jq -r 'select(.act == "accept").outcome' | sort | tr '\n' ' ')" "done intended "
    # Other damage is not accepted with it.
    printf 'more\n' >>"$FTAI_HOME/state/journal/000001.ftai"
    try ftai-doctor
    ended 1
}

@test "nothing to accept leaves no trace" {
    try ftai-doctor --accept
    ended 0
    same "$(cat "$T/out")" "accepted: nothing"
    [ ! -e "$FTAI_HOME/state" ]
}

@test "a torn tail is told of until it is accepted" {
    seed "what time is it"
    printf '@command\n  id: "' >>"$FTAI_HOME/state/journal/current.ftai"
    seed "remember the milk" 2>/dev/null
    try ftai-doctor
    ended 0
    grep -q "^warn  journal: .*\.torn" "$T/out"
    ftai-doctor --accept
    try ftai-doctor
    ended 0
    same "$(grep -c "\.torn" "$T/out")" 0
}

@test "a damaged archive fails, and the hint makes it again" {
    seed "what time is it"
    head -c 9000 /dev/urandom >"$FTAI_HOME/state/archive.db"
    rm -f "$FTAI_HOME"/state/archive.db-*
    try ftai-doctor
    ended 1
    same "$(hint 'fail  archive.db')" "ftai-archive rebuild"
    ftai-archive rebuild
    try ftai-doctor
    ended 0
}

@test "a clock behind the newest record fails" {
    echo '{"@tag":"note","ts":"2099-01-01T00:00:00.000Z","body":"x"}' | ftai-log >/dev/null
    try ftai-doctor
    ended 1
    grep -q '^fail  clock: .* but the newest record is of 2099-01-01' "$T/out"
}

@test "the specs of a project are trusted as they are, and untrusted when they change" {
    mkdir -p project/.ftai
    printf '@ftai v2.0\n@phrase\n  name: "hi"\n  say: "hi there"\n  target: "skill:time"\n@end\n' >project/.ftai/serenamaster.commands.ftai
    cd project
    try ftai-doctor
    ended 0
    grep -q '^warn  specs: .*left out' "$T/out"
    command=$(hint 'warn  specs')
    eval "try $command --dry-run"
    ended 0
    try ftai-doctor
    grep -q '^warn  specs: .*left out' "$T/out"
    eval "try $command"
    ended 0
    grep -q "^trusted: [0-9a-f]\{64\}  $T/project/.ftai/serenamaster.commands.ftai" "$T/out"
    try ftai-doctor
    ended 0
    same "$(grep -c 'left out' "$T/out")" 0
    same "$(ftai-recall --tag audit --limit 20 | jq -r 'select(.act == "trust").outcome' | sort | tr '\n' ' ')" "done intended "
    echo '// changed' >>.ftai/serenamaster.commands.ftai
    try ftai-doctor
    grep -q '^warn  specs: .*left out' "$T/out"
}

@test "a project that cannot be trusted: missing, without specs, broken" {
    try ftai-doctor trust "$T/none"
    ended 66
    mkdir -p empty/.ftai broken/.ftai
    try ftai-doctor trust empty
    ended 66
    echo '@phrase' >broken/.ftai/serenamaster.commands.ftai
    printf '@ftai v2.0\n@phrase\n  nime: "x"\n@end\n' >broken/.ftai/serenamaster.commands.ftai
    try ftai-doctor trust broken
    ended 78
    same "$(ftai-recall --tag audit --limit 20 | jq -r 'select(.subject | endswith("broken")).outcome' | sort | tr '\n' ' ')" "failed intended "
}

@test "a home that is no folder, and a folder for temporary files that is missing" {
    echo x >file
    FTAI_HOME=$T/file try ftai-doctor
    ended 1
    grep -q '^fail  folder: .* a file is in the way' "$T/out"
    TMPDIR=$T/none try ftai-doctor
    grep -q ' start: ' "$T/out"
}

@test "words it does not know are a usage error" {
    try ftai-doctor heal
    ended 2
    try ftai-doctor trust
    ended 2
    try ftai-doctor --accept trust "$T"
    ended 2
}

@test "--start measures every stage, and names a slow one" {
    mkdir -p copy/bin
    cp "$root/bin/ftai-doctor" "$root/bin/ftai-show" copy/bin/
    ln -s "$root/lib" "$root/specs" copy/
    # Ten times what it is measured against, on a busy machine too.
    printf '#!/bin/sh\nfor n in 1 2 3 4 5 6 7 8 9 10; do "%s" -c pass; done\n' "$root/.venv/bin/python" >copy/bin/ftai-slow
    chmod +x copy/bin/ftai-slow
    unset COVERAGE_PROCESS_START # it would slow down the empty Python that all are measured against
    try copy/bin/ftai-doctor --start
    ended 0
    grep -q '^warn  start: ftai-slow takes' "$T/out"
    grep -q '  start: ftai-show takes' "$T/out"
    try copy/bin/ftai-doctor
    grep -q '^warn  start: slow, .*: ftai-slow ' "$T/out"
}

@test "it starts with nothing in the environment, and says what is not on the PATH" {
    mkdir "$T/empty"
    HOME=$T/empty try env -i HOME="$T/empty" "$root/bin/ftai-doctor"
    ended 0
    grep -q '^warn  path: ' "$T/out"
    eval "$(hint 'warn  path')"
    same "$(command -v ftai-show)" "$root/bin/ftai-show"
}

@test "a reader that goes away ends it by SIGPIPE" {
    bash -c 'ftai-doctor 2>"$1" | true; exit ${PIPESTATUS[0]}' - "$T/err" || rc=$?
    same "$rc" 141
    empty "$T/err"
}

@test "a table of prices that is too old" {
    command -v faketime >/dev/null || skip "FAKETIME IS MISSING: no table is ever too old"
    try ftai-doctor
    grep -qE '^(ok  |warn)  prices: the table is [0-9]+ days old' "$T/out"
    try faketime '+120 days' ftai-doctor
    ended 0
    grep -qE '^warn  prices: the table is [0-9]+ days old, 90 are allowed' "$T/out"
    same "$(hint 'warn  prices')" "pip install --upgrade genai-prices, or name your own in serenamaster.prices.ftai: ftai-specs(5)"
}
