#!/usr/bin/env bats
# ftai-report: what calls of models cost.

load helper

T1=0199c2f4-0000-7000-8000-000000000001 T2=0199c2f4-0000-7000-8000-000000000002

# An attempt of route $1 in thread $2, with what else jq adds to it.
attempt() {
    jq -nc --arg parent "$1" --arg thread "$2" '{"@tag": "attempt", thread: $thread, parent: $parent, target: "model:x", status: "done", n: 1, ms: 5,
        ts: "2026-11-20T10:00:00.000Z"} + '"$3"
}

# Two threads, two rules, three providers, two currencies; one failure that cost, one that did not, one call that nobody has a price of, one skill.
seed() {
    local r=0199c2f4-7d1e-7a31-9c1b-00000000000
    {
        for n in 1 2; do
            jq -nc --arg n $n --arg r $r$n --arg t "$([ $n = 1 ] && echo $T1 || echo $T2)" '{"@tag": "route", id: $r, thread: $t, parent: $t, ts: "2026-11-19T10:00:00.000Z",
                target: "model:x", rule: (if $n == "1" then "writing" else "answering" end)}'
        done
        attempt ${r}1 $T1 '{provider: "anthropic", model: "claude-sonnet-4-5-20250929", input_tokens: 1000, cached_tokens: 500, output_tokens: 100, cost: 0.1, currency: "USD", price_row: "user/serenamaster.prices.ftai:3"}'
        attempt ${r}1 $T1 '{provider: "anthropic", model: "claude-sonnet-4-5-20250929", status: "failed", class: "network", input_tokens: 10, cached_tokens: 0, output_tokens: 1, cost: 0.2, currency: "USD"}'
        attempt ${r}1 $T1 '{provider: "anthropic", status: "failed", class: "rate"}'
        attempt ${r}2 $T2 '{provider: "gateway", model: "large", ts: "2026-11-21T10:00:00.000Z", input_tokens: 7, cached_tokens: 0, output_tokens: 3, cost: 0.25, currency: "EUR"}'
        attempt ${r}2 $T2 '{provider: "gateway", model: "new", ts: "2026-11-21T23:30:00.000Z", input_tokens: 5, cached_tokens: 0, output_tokens: 5}'
        attempt ${r}2 $T2 '{provider: "ollama", model: "qwen", ts: "2026-11-22T10:00:00.000Z", input_tokens: 50, output_tokens: 50, cost: 0, currency: "", price_row: "local"}'
        attempt ${r}2 $T2 '{target: "skill:time"}'
    } | ftai-log --sink
}

# The columns of the line that begins with $1, one space between them.
line() { sed -n "s/^$1  */$1 /p" "$T/out" | tr -s ' '; }

@test "without a call it says so" {
    try ftai-report cost
    ended 0
    empty "$T/err"
    same "$(cat "$T/out")" "no model was called in this time"
    ftai-run "what time is it" >"$T/said"
    try ftai-report cost --records
    ended 0
    empty "$T/out"
    grep -q "^ftai-report: warning: no model was called in this time" "$T/err"
}

@test "by model: each currency for itself, failures that cost counted, what is unpriced apart" {
    seed
    try ftai-report cost
    ended 0
    empty "$T/err"
    same "$(head -1 "$T/out" | tr -s ' ')" "model calls failed unpriced input cached output cost"
    same "$(line claude-sonnet-4-5-20250929)" "claude-sonnet-4-5-20250929 2 1 0 1010 500 101 0.300000 USD"
    same "$(line large)" "large 1 0 0 7 0 3 0.250000 EUR"
    same "$(line new)" "new 1 0 1 5 0 5 -"
    same "$(line qwen)" "qwen 1 0 0 50 0 50 0"
    same "$(line model:x)" "model:x 1 1 0 0 0 0 0"
    same "$(tail -2 "$T/out" | tr -s ' ')" "$(printf 'total 6 2 1 1072 500 159 0.250000 EUR\n 0.300000 USD')"
}

@test "by rule, thread, day and provider" {
    seed
    try ftai-report cost --by rule
    ended 0
    same "$(line writing)" "writing 3 2 0 1010 500 101 0.300000 USD"
    same "$(line answering)" "answering 3 0 1 62 0 58 0.250000 EUR"
    try ftai-report cost --by thread
    same "$(line $T1)" "$T1 3 2 0 1010 500 101 0.300000 USD"
    same "$(line $T2)" "$T2 3 0 1 62 0 58 0.250000 EUR"
    try ftai-report cost --by provider
    same "$(line gateway)" "gateway 2 0 1 12 0 8 0.250000 EUR"
    TZ=Asia/Tokyo try ftai-report cost --by day
    same "$(cut -c 1-10 "$T/out" | grep -o '^[0-9-]*$' | tr '\n' ' ')" "2026-11-20 2026-11-21 2026-11-22 "
    same "$(line 2026-11-22)" "2026-11-22 2 0 1 55 0 55 -"
    try ftai-report cost --by day
    same "$(line 2026-11-22)" "2026-11-22 1 0 0 50 0 50 0"
}

@test "a rule is found where the route was made before --since, and without an archive" {
    seed
    try ftai-report cost --by rule --since 2026-11-21
    same "$(sed '1d;s/  .*//' "$T/out" | tr '\n' ' ')" "answering total "
    rm -f "$FTAI_HOME"/state/archive.db*
    mkdir "$FTAI_HOME/state/archive.db"
    try ftai-report cost --by rule
    ended 0
    same "$(line writing)" "writing 3 2 0 1010 500 101 0.300000 USD"
    grep -q "the journal itself is read" "$T/err"
}

@test "from and to, in the words of ftai-recall" {
    seed
    try ftai-report cost --since 2026-11-21 --until 2026-11-21
    same "$(line total)" "total 2 0 1 12 0 8 0.250000 EUR"
    try ftai-report cost --until 2026-11-20T09:00:00Z
    same "$(cat "$T/out")" "no model was called in this time"
    try ftai-report cost --since blah
    ended 2
    empty "$T/out"
    same "$(cat "$T/err")" "$(printf "ftai-report: 'blah' names no time\nhint: monday, yesterday, 'last week', 2026-11-22 or 2026-11-22T13:25:00Z")"
}

@test "as records, that the journal takes" {
    seed
    try ftai-report cost --records --since 2026-11-01
    ended 0
    same "$(jq -c '[."@tag", .subject, .by, .name, .calls, .failed, .unpriced, .input_tokens, .cached_tokens, .output_tokens, ."@blocks"]' "$T/out" | sed -n 2p)" \
        '["report","cost","model","claude-sonnet-4-5-20250929",2,1,0,1010,500,101,[{"@tag":"cost","currency":"USD","amount":0.3}]]'
    same "$(jq -r .name "$T/out" | tr '\n' ' ')" "large claude-sonnet-4-5-20250929 model:x new qwen "
    same "$(jq -r .since "$T/out" | uniq)" "2026-11-01T00:00:00.000Z"
    same "$(jq -r .thread "$T/out" | uniq | wc -l)" 1
    try ftai-log --sink "$T/out"
    ended 0
    empty "$T/err"
}

@test "--reprice shows what was and what would be" {
    seed
    mkdir -p "$FTAI_HOME/config"
    printf '@ftai v2.0\n\n@price\n  name: "g"\n  vendor: "gateway"\n  pattern: "n.*"\n  input: 1.00\n  output: 2\n  currency: "CHF"\n@end\n' >"$FTAI_HOME/config/serenamaster.prices.ftai"
    chmod 600 "$FTAI_HOME/config/serenamaster.prices.ftai"
    try ftai-report cost --reprice
    ended 0
    same "$(head -1 "$T/out" | tr -s ' ')" "model calls failed unpriced input cached output cost unpriced now"
    # By the shipped table, for both tries: 1010 at 3, 500 at 0.3 and 101 at 15 dollars a million.
    same "$(line claude-sonnet-4-5-20250929)" "claude-sonnet-4-5-20250929 2 1 0 1010 500 101 0.300000 USD 0 0.004695 USD"
    same "$(line large)" "large 1 0 0 7 0 3 0.250000 EUR 1 -"
    same "$(line new)" "new 1 0 1 5 0 5 - 0 0.000015 CHF"
    same "$(line qwen)" "qwen 1 0 0 50 0 50 0 0 0"
    same "$(tail -2 "$T/out" | tr -s ' ')" "$(printf 'total 6 2 1 1072 500 159 0.250000 EUR 1 0.000015 CHF\n 0.300000 USD 0.004695 USD')"
    ftai-report cost --reprice --records >"$T/records"
    same "$(jq -c 'select(.name == "new") | [.unpriced, .unpriced_now, ."@blocks"]' "$T/records")" '[1,0,[{"@tag":"cost_now","currency":"CHF","amount":1.5e-05}]]'
    # Nothing of it is written.
    ftai-recall --tag attempt -n 100 >"$T/attempts"
    same "$(jq -r 'select(.model == "new") | .cost' "$T/attempts")" null
}

@test "without the package that has the table, --reprice says so" {
    seed
    mkdir -p "$T/without/genai_prices"
    touch "$T/without/genai_prices/__init__.py"
    PYTHONPATH=$T/without try ftai-report cost --reprice
    ended 0
    same "$(cat "$T/err")" "ftai-report: warning: the package genai-prices is not installed: only the prices spec counts"
    same "$(line large)" "large 1 0 0 7 0 3 0.250000 EUR 1 -"
    PYTHONPATH=$T/without try ftai-report cost
    ended 0
    empty "$T/err"
}

@test "a broken prices spec is 78 with its place, where prices are asked" {
    seed
    mkdir -p "$FTAI_HOME/config"
    printf '@ftai v2.0\n@price\n  name: "g"\n  vendor: "gateway"\n  model: "x"\n  input: "dear"\n  output: 2\n  currency: "CHF"\n@end\n' >"$FTAI_HOME/config/serenamaster.prices.ftai"
    chmod 600 "$FTAI_HOME/config/serenamaster.prices.ftai"
    try ftai-report cost --reprice
    ended 78
    empty "$T/out"
    same "$(cat "$T/err")" "ftai-report: $FTAI_HOME/config/serenamaster.prices.ftai:6: 'input' is 'dear', expected a number from 0 like 0.25"
    try ftai-report cost
    ended 0
    chmod 666 "$FTAI_HOME/config/serenamaster.prices.ftai"
    try ftai-report cost --reprice
    ended 77
}

@test "sealed records are opened" {
    FTAI_ENCRYPT=local seed
    grep -q 'provider: "*\[sealed:' "$FTAI_HOME/state/journal/current.ftai"
    try ftai-report cost --by provider --reprice
    ended 0
    empty "$T/err"
    same "$(line anthropic)" "anthropic 3 2 0 1010 500 101 0.300000 USD 0 0.004695 USD"
    try ftai-report cost --by rule
    same "$(line writing)" "writing 3 2 0 1010 500 101 0.300000 USD"
}

@test "what a record holds can't steer the terminal, and garbage is no cost" {
    attempt x $T1 '{provider: "p", model: "a\u202e31m\nb", input_tokens: -5, output_tokens: "many", cost: "5", currency: ["USD"]}' | ftai-log --sink
    attempt x $T1 '{provider: ["q"], model: 7, cost: 1e400, ts: "then"}' | ftai-log --sink
    try ftai-report cost --reprice --by thread
    ended 0
    try ftai-report cost
    ended 0
    grep -q '^a�31m b  ' "$T/out"
    same "$(sed -n 2p "$T/out" | tr -s ' ' | cut -c 1-2)" "7 "
    same "$(wc -l <"$T/out")" 4
}

@test "usage" {
    try ftai-report
    ended 2
    try ftai-report nonsense
    ended 2
    try ftai-report cost --by colour
    ended 2
    try ftai-report cost extra
    ended 2
    empty "$T/out"
}

@test "a reader that is gone ends it, and a signal" {
    seed
    rc=0
    bash -c 'ftai-report cost | :; exit ${PIPESTATUS[0]}' || rc=$?
    [ "$rc" -eq 141 ] || [ "$rc" -eq 0 ]
    exec 9>>"$FTAI_HOME/state/archive.db.lock"
    flock 9
    echo '{"@tag":"note","body":"more"}' | ftai-log --sink 9>&-
    ftai-report cost >"$T/out" 9>&- &
    pid=$!
    until_true eval "ps -o args= -p $pid | grep -q ftai-report"  # before that it is the shell still
    kill -TERM $pid
    rc=0
    wait $pid || rc=$?
    exec 9>&-
    same "$rc" 143
    empty "$T/out"
}

@test "from a bare environment" {
    seed
    env -i FTAI_HOME="$FTAI_HOME" "$root/.venv/bin/python" "$root/bin/ftai-report" cost >"$T/out"
    same "$(line large)" "large 1 0 0 7 0 3 0.250000 EUR"
}
