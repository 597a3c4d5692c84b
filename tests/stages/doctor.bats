#!/usr/bin/env bats
# ftai-doctor: what is set up, what is missing, how to get it.

load helper

# A run with something in the journal.
seed() { ftai-listen "$@" | ftai-log >/dev/null; }

# The hint below the first line that says `$1`, as it can be typed.
hint() { grep -A1 -F "$1" "$T/out" | sed -n 's/^ *hint: //p' | head -1; }

@test "a fresh machine: nothing fails, and nothing is made but the cache" {
    { try ftai-doctor; cat >rest; } <<<"not for it, nor for what it starts"
    same "$(cat rest)" "not for it, nor for what it starts"
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
    try doctor
    ended 0
    grep -q '^ok    journal: 1 records in 1 segment, whole' "$T/out"
    grep -q '^ok    archive.db: ' "$T/out"
}

@test "a broken spec fails with its place, and all else is checked" {
    mkdir -p "$FTAI_HOME/config"
    printf '@ftai v2.0\n@phrase\n  nime: "x"\n@end\n' >"$FTAI_HOME/config/serenamaster.commands.ftai"
    try doctor
    ended 1
    grep -q "^fail  specs: $FTAI_HOME/config/serenamaster.commands.ftai:3: " "$T/out"
    grep -q '^ok    disk: ' "$T/out"
}

@test "a folder that others may write into fails, and the hint puts it right" {
    mkdir -p "$FTAI_HOME/data"
    chmod 777 "$FTAI_HOME/data"
    try doctor
    ended 1
    eval "$(hint 'is writable by others')"
    try doctor
    ended 0
    chmod 755 "$FTAI_HOME/data"
    try doctor
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
    try doctor
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
    try doctor
    ended 0
    same "$(ftai-recall --tag audit --limit 20 | jq -r 'select(.act == "accept").outcome' | sort | tr '\n' ' ')" "done intended "
    # Other damage is not accepted with it.
    printf 'more\n' >>"$FTAI_HOME/state/journal/000001.ftai"
    try doctor
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
    try doctor
    ended 0
    grep -q "^warn  journal: .*\.torn" "$T/out"
    ftai-doctor --accept
    try doctor
    ended 0
    same "$(grep -c "\.torn" "$T/out")" 0
}

@test "a damaged archive fails, and the hint makes it again" {
    seed "what time is it"
    head -c 9000 /dev/urandom >"$FTAI_HOME/state/archive.db"
    rm -f "$FTAI_HOME"/state/archive.db-*
    try doctor
    ended 1
    same "$(hint 'fail  archive.db')" "ftai-archive rebuild"
    ftai-archive rebuild
    try doctor
    ended 0
}

@test "a clock behind the newest record fails" {
    echo '{"@tag":"note","ts":"2099-01-01T00:00:00.000Z","body":"x"}' | ftai-log >/dev/null
    try doctor
    ended 1
    grep -q '^fail  clock: .* but the newest record is of 2099-01-01' "$T/out"
}

@test "the specs of a project are trusted as they are, and untrusted when they change" {
    mkdir -p project/.ftai
    printf '@ftai v2.0\n@phrase\n  name: "hi"\n  say: "hi there"\n  target: "skill:time"\n@end\n' >project/.ftai/serenamaster.commands.ftai
    cd project
    try doctor
    ended 0
    grep -q '^warn  specs: .*left out' "$T/out"
    command=$(hint 'warn  specs')
    eval "try $command --dry-run"
    ended 0
    try doctor
    grep -q '^warn  specs: .*left out' "$T/out"
    eval "try $command"
    ended 0
    grep -q "^trusted: [0-9a-f]\{64\}  $T/project/.ftai/serenamaster.commands.ftai" "$T/out"
    try doctor
    ended 0
    same "$(grep -c 'left out' "$T/out")" 0
    same "$(ftai-recall --tag audit --limit 20 | jq -r 'select(.act == "trust").outcome' | sort | tr '\n' ' ')" "done intended "
    echo '// changed' >>.ftai/serenamaster.commands.ftai
    try doctor
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
    FTAI_HOME=$T/file try doctor
    ended 1
    grep -q '^fail  folder: .* a file is in the way' "$T/out"
    TMPDIR=$T/none try doctor
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
    try doctor
    grep -qE '^(ok  |warn)  prices: the table is [0-9]+ days old' "$T/out"
    try faketime '+120 days' few/bin/ftai-doctor
    ended 0
    grep -qE '^warn  prices: the table is [0-9]+ days old, 90 are allowed' "$T/out"
    same "$(hint 'warn  prices')" "pip install --upgrade genai-prices, or name your own in serenamaster.prices.ftai: ftai-specs(5)"
}

# --providers: a real server that speaks the vendors' protocols, and state.db as ftai-exec leaves it.

vendor() {
    coproc VENDOR { exec "$root/.venv/bin/python" "$root/tests/vendor.py" --script "$1"; }
    vendor_pid=$VENDOR_PID
    read -r url <&"${VENDOR[0]}"
}

teardown() { [ -z "${vendor_pid:-}" ] || kill "$vendor_pid"; }

# The config spec: providers `here` (this machine) and `cloud` at the server, `down` where nobody listens, a model of each, and $1.
config() {
    mkdir -p "$FTAI_HOME/config"
    {
        printf '@ftai v2.0\n'
        printf '@provider\n  name: "%s"\n  kind: "openai"\n  privacy: "%s"\n  url: "%s/v1"\n  requests: 50\n  summary: "x"\n@end\n' \
            here local "$url" cloud cloud "$url" down local http://127.0.0.1:9
        printf '@model\n  name: "%s"\n  provider: "%s"\n  id: "org/tiny"\n@end\n' local here far cloud gone down
        printf '%s\n' "${1:-}"
    } >"$FTAI_HOME/config/serenamaster.config.ftai"
}

# What the server was asked: a line each, method and path.
asked() { curl -s "$url/control" | jq -r '.requests[] | "\(.method) \(.path)"'; }

@test "--providers on a fresh machine: nobody agreed, so nobody is asked, and nothing is made" {
    try ftai-doctor --providers
    ended 0
    empty "$T/err"
    grep -q '^warn  provider anthropic: was not asked: no consent: nobody agreed to it; no key; models: claude$' "$T/out"
    same "$(hint 'provider anthropic')" "ftai-keys set anthropic && ftai-keys consent grant anthropic"
    grep -q '^ok    queue: 0 waiting, 0 due; 0 dead letters$' "$T/out"
    [ ! -e "$FTAI_HOME/state" ]
}

@test "--providers asks the local one, the cloud only with consent, and no model" {
    vendor ok
    config
    try ftai-doctor --providers
    ended 1
    grep -q '^ok    provider here: can be reached (it answered with 200, [0-9]* ms); models: local$' "$T/out"
    grep -q '^warn  provider cloud: was not asked: no consent' "$T/out"
    grep -q '^fail  provider down: cannot be reached: ' "$T/out"
    same "$(asked)" "GET /v1/models"
    ftai-keys consent grant cloud >/dev/null
    try ftai-doctor --providers
    grep -q '^ok    provider cloud: can be reached (.*); consent given; models: far$' "$T/out"
    same "$(asked | sort | uniq -c | tr -s ' ')" " 3 GET /v1/models"
    ftai-keys consent withdraw cloud >/dev/null
    try ftai-doctor --providers
    grep -q '^warn  provider cloud: was not asked: no consent: it was withdrawn' "$T/out"
    same "$(asked | sort | uniq -c | tr -s ' ')" " 4 GET /v1/models"
}

@test "--providers after calls: latency, the breaker, what is left, the last error, budgets and the queue; as records too" {
    vendor "ok:text=hello:requests-left=7:reset=500,500*3"
    config "$(printf '@budget\n  name: "%s"\n  value: %s\n  unit: "%s"\n  per: "day"\n@end\n' calls 4 calls money 5 USD)"
    same "$(ftai-run "explain rainbows")" hello
    try ftai-run "explain the sea"
    ended 75
    try ftai-doctor --providers
    ended 1
    grep -q "^warn  provider here: can be reached (.*); 'org/tiny' is left alone until 2.* after 3 failures in a row: it answered with 500" "$T/out"
    grep -qE '^ok    provider here: 3 of the last 4 attempts failed, median ([0-9]+) ms, p95 \1 ms; [0-9]+ requests and [0-9]+ tokens left.*; last error 2.*500' "$T/out"
    grep -q '^warn  budget calls: 4 of 4 calls a day: used up, so cheaper models are asked$' "$T/out"
    grep -q '^ok    budget money: 0 of 5 USD a day$' "$T/out"
    grep -q '^ok    queue: 1 waiting, [01] due, the oldest since 2.*; 0 dead letters$' "$T/out"
    try ftai-doctor --providers --records
    ended 1
    empty "$T/err"
    same "$(jq -r '[."@tag", .from, .subject, .name // "-", .level] | join(" ")' "$T/out" | head -3)" "report ftai-doctor provider here warn
report ftai-doctor provider cloud warn
report ftai-doctor provider down fail"
    same "$(jq -s 'map(.thread) | unique | length' "$T/out")" 1
    same "$(jq -c 'select(.name == "here") | [.reached, .attempts, .failed, .error_class, .median_ms == .p95_ms, ."@blocks"[0].state]' "$T/out")" '[true,4,3,"network",true,"open"]'
    same "$(jq -c 'select(.subject == "budget" and .name == "calls") | [.used, .value, .unit, .over]' "$T/out")" '[4,4,"calls","cheaper"]'
    same "$(jq -c 'select(.subject == "queued") | [.waiting, .dead]' "$T/out")" '[1,0]'
    ftai-log --sink <"$T/out"
    ftai-validate "$T/out"
}

@test "--providers with a key: that it is there is told, and never what it is" {
    vendor ok
    config "$(printf '@key\n  name: "k"\n  env: "DOCTOR_KEY"\n  readers: "ftai-exec"\n  summary: "x"\n@end\n@provider\n  name: "with"\n  kind: "openai"\n  privacy: "local"\n  url: "%s/v1"\n  key: "k"\n  summary: "x"\n@end\n' "$url")"
    try ftai-doctor --providers
    grep -q '^warn  provider with: can be reached (.*); no key; models: none$' "$T/out"
    secret=sk-$(head -c 200 /dev/urandom | base64 | tr -dc A-Za-z0-9 | head -c 40)
    DOCTOR_KEY=$secret try ftai-doctor --providers
    grep -q '^ok    provider with: can be reached (.*); key from the environment; models: none$' "$T/out"
    DOCTOR_KEY=$secret ftai-doctor --providers --records >>"$T/out" || true
    ! grep -rqF "$secret" "$T/out" "$T/err" "$FTAI_HOME"
    # Nor is it sent: all looks came with the same key, which is none.
    same "$(curl -s "$url/control" | jq '[.requests[].key] | unique | length')" 1
}

@test "--providers with a broken state.db and a broken archive tells that, and all else" {
    vendor ok
    config
    ftai-run "what time is it" >/dev/null
    head -c 9000 /dev/urandom >"$FTAI_HOME/state/state.db"
    head -c 9000 /dev/urandom >"$FTAI_HOME/state/archive.db"
    rm -f "$FTAI_HOME"/state/*.db-*
    try ftai-doctor --providers
    ended 1
    empty "$T/err"
    same "$(grep -c '^fail  check: .*state.db' "$T/out")" 1
    same "$(grep -c '^fail  check: the archive cannot be read' "$T/out")" 1
    grep -q '^ok    provider here: can be reached' "$T/out"
}

@test "--providers with a broken config spec says where" {
    mkdir -p "$FTAI_HOME/config"
    printf '@ftai v2.0\n@provider\n  nime: "x"\n@end\n' >"$FTAI_HOME/config/serenamaster.config.ftai"
    try ftai-doctor --providers
    ended 78
    grep -q "^ftai-doctor: $FTAI_HOME/config/serenamaster.config.ftai:3: " "$T/err"
}

@test "the check of providers names who can be asked, and asks nobody" {
    vendor ok
    config
    try doctor
    ended 0
    grep -q '^ok    providers: can be asked now: local, gone$' "$T/out"
    grep -q '^ok    providers: cannot be asked: far (no consent), claude (no key, no consent), gpt (no key, no consent)$' "$T/out"
    same "$(asked)" ""
    try doctor --records
    ended 0
    same "$(jq -r 'select(.what == "providers") | .level' "$T/out" | uniq)" ok
    same "$(jq -r .subject "$T/out" | uniq)" check
}

@test "--bench-model: a model in each quantisation" {
    "$root/.venv/bin/python" -c 'import mlx, mlx_lm' 2>/dev/null || skip "MLX IS MISSING: no model is measured"
    "$root/.venv/bin/python" -c 'import pathlib, sys; sys.path[:0] = sys.argv[1:]; import test_providers_mlx; test_providers_mlx.make(pathlib.Path("tiny"))' "$root/tests/unit" "$root/lib"
    # On a terminal, where a line tells what is being measured; each run loads the model three times, in processes of their own.
    TERM=xterm try script -qec 'ftai-doctor --bench-model tiny --records >rows' /dev/null
    ended 0
    grep -q 'ftai-doctor: measuring with 16 bits' "$T/out"
    same "$(jq -r '[.subject, .path, .bits, .load_ms > 0, .tokens_s > 0, .memory > .size] | join(" ")' rows)" "bench tiny 16 true true true
bench tiny 8 true true true
bench tiny 4 true true true"
    same "$(jq -s '[.[].size] | . == (sort | reverse) and .[0] > .[2]' rows)" true
}

@test "--bench-model: no folder, no model, no mlx" {
    try ftai-doctor --bench-model "$T/none"
    ended 66
    empty "$T/out"
    grep -q "^ftai-doctor: '$T/none' is no folder of a model: there is no config.json in it" "$T/err"
    mkdir broken bare
    echo '{}' >broken/config.json
    # A Python with no more than every stage needs.
    for package in click orjson; do cp -r "$("$root/.venv/bin/python" -c "import $package, os; print(os.path.dirname($package.__file__))")" bare/; done
    FTAI_AGAIN=$root/.venv/bin/python PYTHONPATH=$T/bare try "$(readlink -f "$root/.venv/bin/python")" -S "$root/bin/ftai-doctor" --bench-model broken
    ended 69
    grep -q '^ftai-doctor: the package mlx-lm is missing' "$T/err"
    grep -q "^hint: pip install mlx-lm 'mlx\[cpu\]'" "$T/err"
    "$root/.venv/bin/python" -c 'import mlx, mlx_lm' 2>/dev/null || skip "MLX IS MISSING: no model is measured"
    try ftai-doctor --bench-model broken
    ended 1
    same "$(wc -l <"$T/out")" 4
}

@test "options that go with nothing else" {
    for args in "--storage --providers" "--storage trust x" "--providers --start" "--providers --bench-model x" "--providers trust x" "--accept --providers" "--bench-model x y"; do
        try ftai-doctor $args
        ended 2
        empty "$T/out"
    done
}

@test "--storage on a fresh machine: nothing is stored, nothing fails, nothing is made" {
    try ftai-doctor --storage
    ended 0
    empty "$T/err"
    grep -q "^ok    journal: 0 bytes .*can't be told: nothing was written yet$" "$T/out"
    same "$(grep -v '^ ' "$T/out" | sed -n 's/^....  \([a-z. ]*\):.*/\1/p' | tr '\n' ' ')" "journal archive state.db answers cache rotation backup signing key identity "
    grep -q '^ok    disk /' "$T/out"
    same "$(hint 'backup: there is none')" "ftai-rotate backup --to DIR, from cron once a day"
    [ ! -e "$FTAI_HOME/state" ]
}

@test "--storage: after rotation and a backup, as lines and as records" {
    seed "what time is it"
    try ftai-doctor --storage
    ended 0
    same "$(hint 'nothing was ever sealed')" "ftai-rotate, from cron once a day"
    ftai-keys init >/dev/null
    ftai-rotate --now >/dev/null
    mkdir -m 700 backups
    ftai-rotate backup --to "$T/backups" >/dev/null
    try ftai-doctor --storage
    ended 0
    empty "$T/err"
    grep -qE '^ok    journal: [0-9.]+ (bytes|KiB) \(live .*, closed 0 bytes, sealed .*\); how fast' "$T/out"
    grep -q "^ok    rotation: the last segment was sealed at 2" "$T/out"
    grep -q "^ok    backup $T/backups: the last backup was at 2" "$T/out"
    same "$(hint 'no drill was ever made')" "ftai-rotate drill --to '$T/backups'"
    grep -q "^ok    signing key: " "$T/out"
    grep -q "^ok    identity: in '$FTAI_HOME/state/keys/identity', on the disk of what it opens" "$T/out"
    ! grep -qr "$(cat "$FTAI_HOME/state/keys/identity")" "$T/out"
    try ftai-doctor --storage --records
    ended 0
    same "$(jq -r .subject "$T/out" | uniq | tr '\n' ' ')" "storage disk rotation backup key "
    same "$(jq -s 'map(.thread) | unique | length' "$T/out")" 1
    same "$(jq -c 'select(.name == "journal") | [.closed_segments, .sealed_segments, .bytes == .live + .closed + .sealed, .closed]' "$T/out")" '[0,1,true,0]'
    same "$(jq -r 'select(.subject == "backup").name' "$T/out")" "$T/backups"
    ftai-log --sink <"$T/out"
    ftai-validate "$T/out"
    rm "$FTAI_HOME"/state/journal/000001.ftai.zst.sealed
    try ftai-doctor --storage
    ended 1
    same "$(hint 'that the ledger tells of are missing: 1')" "ftai-log --verify"
}

@test "--storage: a backup of days ago is a warning that says what to type" {
    command -v faketime >/dev/null || skip "FAKETIME IS MISSING: no backup is ever too old"
    seed "what time is it"
    ftai-keys init >/dev/null
    mkdir -m 700 backups
    ftai-rotate backup --to "$T/backups" >/dev/null
    try faketime '+3 days' ftai-doctor --storage
    ended 0
    grep -qE "^warn  backup $T/backups: the last backup was at 2.*, 3 days ago, 2 are allowed$" "$T/out"
    same "$(hint '3 days ago')" "ftai-rotate backup --to '$T/backups'"
    # Three days of records are there by then, so it says how they grow.
    grep -qE '^ok    journal: .*, grows by [0-9.]+ (bytes|KiB) a day \(seen over 3 days\)$' "$T/out"
}

@test "--storage: a disk that is nearly full" {
    mkdir small
    mount -t tmpfs -o size=50m,mode=700 tmpfs small 2>/dev/null || skip "NOT ROOT, OR NO MOUNTS ALLOWED: no disk is nearly full"
    FTAI_HOME=$T/small try ftai-doctor --storage
    umount small
    ended 1
    grep -qE "^fail  disk $T/small: [0-9.]+ MiB of 50.0 MiB free" "$T/out"
}
