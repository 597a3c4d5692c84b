#!/usr/bin/env bats
# ftai-why: the story of a decision, from the journal alone.

load helper

vendor_stop() { [ -z "${VENDOR-}" ] || kill "$VENDOR" 2>/dev/null || true; }
teardown() { vendor_stop; }

# The id of the newest record with this tag.
last() { ftai-recall --tag "$1" -n 1 | jq -r .id; }

@test "why: what was asked, the rule as it stood then, who else could have done it, and what happened" {
    ftai-run "remember to send the invoice tomorrow" >/dev/null
    id=$(last command)
    try ftai-why "$id"
    ended 0
    empty "$T/err"
    grep -qx "command ${id: -6}  ....-..-.. ..:..  remember to send the invoice tomorrow" "$T/out"
    grep -q '^-> skill:task  route ' "$T/out"
    grep -qE '^  rule: task-add  serenamaster.commands.ftai:[0-9]+  specs [0-9a-f]{12}$' "$T/out"
    grep -q '^    @phrase$' "$T/out"
    grep -q '^      name: "task-add"$' "$T/out"
    grep -q '^  when: tomorrow$' "$T/out"
    grep -q '^  not skill:remember  order: ' "$T/out"
    grep -qE '^ +\+[0-9.]+ s  try 1 of skill:task: done, ' "$T/out"
    grep -qE '^ +\+[0-9.]+ s  result done, ' "$T/out"
    cp "$T/out" "$T/first"
    # The end of the id is enough, also in capitals; and every record of it leads there.
    for word in "${id: -6}" "${id^^}" "$(last route)" "$(last result)" "$(last attempt)" "$(last task)"; do
        try ftai-why "$word"
        ended 0
        cmp "$T/first" "$T/out"
    done
    # Once, however many of its records are named.
    try ftai-why "$id" "$(last route)" "$(last result)"
    ended 0
    cmp "$T/first" "$T/out"
}

@test "why: the rule is shown as it stood then" {
    mkdir -p "$FTAI_HOME/config"
    spec=$FTAI_HOME/config/serenamaster.mcp.ftai
    printf '@ftai v2.0\n@rule\n  name: "own"\n  pattern: "weather"\n  target: "ask"\n  reason: "first"\n@end\n' >"$spec"
    chmod 600 "$spec"
    ftai-run "how is the weather" >/dev/null || true
    id=$(last command)
    printf '@ftai v2.0\n\n@rule\n  name: "own"\n  pattern: "weather"\n  target: "skill:status"\n  reason: "second"\n@end\n' >"$spec"
    ftai-run "how is the weather" >/dev/null
    try ftai-why "$id"
    ended 0
    grep -q '^      reason: "first"$' "$T/out"
    same "$(grep -c second "$T/out")" 0
    try ftai-why --today "$id"
    grep -qx 'with the rules of the specs today: ask -> skill:status' "$T/out"
}

@test "why: the same from the journal where the archive can't be read" {
    ftai-run "what time is it" >/dev/null
    id=$(last result)
    ftai-why "$id" >"$T/first"
    rm "$FTAI_HOME"/state/archive.db*
    mkdir "$FTAI_HOME/state/archive.db"
    try ftai-why "${id: -8}"
    ended 0
    cmp "$T/first" "$T/out"
    grep -q '^ftai-why: warning: .*the journal itself is read$' "$T/err"
    # And where all but the journal is gone.
    rmdir "$FTAI_HOME/state/archive.db"
    mv "$FTAI_HOME/state/journal" "$T/kept"
    rm -rf "$FTAI_HOME"
    mkdir -p -m 700 "$FTAI_HOME/state"
    mv "$T/kept" "$FTAI_HOME/state/journal"
    try ftai-why "$id"
    ended 0
    cmp "$T/first" "$T/out"
}

@test "why: it writes nothing to the journal" {
    ftai-run "what time is it" >/dev/null
    before=$(cat "$FTAI_HOME"/state/journal/*.ftai | sha256sum)
    ftai-why --today "$(last command)" >/dev/null
    same "$(cat "$FTAI_HOME"/state/journal/*.ftai | sha256sum)" "$before"
}

@test "why: an id that is unknown is 1, and the others are told" {
    ftai-run "what time is it" >/dev/null
    try ftai-why 0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e "$(last command)" nonsense
    ended 1
    grep -q '^-> skill:time' "$T/out"
    grep -q "^ftai-why: the journal holds no record whose id is, or ends with, '0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e'$" "$T/err"
    grep -q "^ftai-why: 'nonsense' is no id$" "$T/err"
    same "$(grep -c '^hint: ' "$T/err")" 2
}

@test "why: an empty journal" {
    try ftai-why 123456
    ended 1
    empty "$T/out"
    grep -q "'123456'" "$T/err"
}

@test "why: no id is usage" {
    try ftai-why
    ended 2
    empty "$T/out"
    grep -q '^hint: ' "$T/err"
    try ftai-why --today
    ended 2
}

@test "why: several ids that end alike are listed" {
    for n in 1 2; do
        printf '{"@tag":"command","id":"0199c2f4-000%s-7a31-9c1b-2f0a5bdddddd","ts":"2026-11-22T13:25:00.041Z","thread":"0199c2f4-000%s-7a31-9c1b-2f0a5bdddddd","body":"number %s \\u009b31m"}\n' $n $n $n
    done | ftai-log --sink
    try ftai-why dddddd
    ended 1
    empty "$T/out"
    grep -q "^ftai-why: 2 ids end with 'dddddd'$" "$T/err"
    same "$(grep -c '0199c2f4-000[12]-7a31-9c1b-2f0a5bdddddd .*number' "$T/err")" 2
    same "$(grep -c $'\u009b' "$T/err")" 0
    # Whole, it is one of them.
    try ftai-why 0199c2f4-0001-7a31-9c1b-2f0a5bdddddd
    ended 0
    grep -q "number 1" "$T/out"
    grep -q "no route: nobody decided about it" "$T/out"
}

@test "why: what no decision led to" {
    echo '{"@tag":"memory","body":"loose"}' | ftai-log --sink
    try ftai-why "$(last memory)"
    ended 1
    empty "$T/out"
    grep -q "that no decision led to$" "$T/err"
}

@test "why: other commands of the thread are named" {
    ftai-run "what time is it" >/dev/null
    ftai-listen --continue status | ftai-route | ftai-exec | ftai-log --sink
    thread=$(ftai-recall --tag command -n 5 | jq -r .thread | sort | uniq -d)
    [ -n "$thread" ]
    try ftai-why "$thread"
    ended 0
    grep -q '^  also in this thread: [0-9a-f]\{6\}  status$' "$T/out"
}

@test "why: --with tells what other rules would do" {
    ftai-run "what time is it" >/dev/null
    printf '@ftai v2.0\n@rule\n  name: "clock"\n  pattern: "time"\n  target: "ask"\n  reason: "no clock"\n@end\n' >"$T/try.ftai"
    try ftai-why --with "$T/try.ftai" "$(last command)"
    ended 0
    grep -qxF "with $T/try.ftai today: skill:time -> ask, rule time -> clock" "$T/out"
    grep -q "^  -> ask  clock  $T/try.ftai:2 " "$T/out"
    printf '@ftai v2.0\n@rule\n  name: "other"\n  pattern: "weather"\n  target: "ask"\n  reason: "x"\n@end\n' >"$T/try.ftai"
    try ftai-why --with "$T/try.ftai" "$(last command)"
    grep -qxF "with $T/try.ftai today: the same" "$T/out"
    try ftai-why --with "$T/missing" "$(last command)"
    ended 66
    empty "$T/out"
    printf '@ftai v2.0\n@rule\n  name: "broken"\n@end\n' >"$T/try.ftai"
    try ftai-why --with "$T/try.ftai" "$(last command)"
    ended 78
    empty "$T/out"
}

@test "why: of what --no-log kept out it tells the fact" {
    ftai-run --no-log "search for Zwetschgen" >/dev/null
    try ftai-why --today "$(last result)"
    ended 0
    grep -q '^-> skill:recall' "$T/out"
    grep -q '^  some of its texts are withheld' "$T/out"
    grep -q '^with .* today: not known' "$T/out"
    same "$(grep -c Zwetschgen "$T/out")" 0
}

@test "why: what is sealed is opened, and without the identity it says that it is not" {
    mkdir -p "$FTAI_HOME/config"
    printf '@ftai v2.0\n@setting\n  name: "encrypt"\n  value: "local"\n  summary: "x"\n@end\n' >"$FTAI_HOME/config/serenamaster.config.ftai"
    chmod 600 "$FTAI_HOME/config/serenamaster.config.ftai"
    ftai-run "remember to send the invoice tomorrow" >/dev/null
    id=$(last command)
    try ftai-why "$id"
    ended 0
    grep -q '^  when: tomorrow$' "$T/out"
    grep -q '^    @phrase$' "$T/out"
    mv "$FTAI_HOME/state/keys" "$T/keys"
    try ftai-why --today "$id"
    ended 0
    same "$(grep -c tomorrow "$T/out")" 0
    grep -q '\[sealed\]' "$T/out"
    grep -q '^  some of its texts are sealed' "$T/out"
    grep -q '^with .* today: not known' "$T/out"
}

@test "why: what a record holds can't steer the terminal" {
    printf '%s\n' '{"@tag":"command","body":"a\u009b31m\u202eb\nforged"}' | ftai-route | ftai-exec 2>/dev/null | ftai-log --sink
    try ftai-why "$(last command)"
    ended 0
    grep -q 'a�31m�b forged' "$T/out"
    same "$(grep -c $'[\u009b\u202e]' "$T/out")" 0
    same "$(grep -c '^forged' "$T/out")" 0
}

@test "why: a model that failed, the one that came in its place, and what it cost" {
    "$root/.venv/bin/python" "$root/tests/vendor.py" --script '401,ok' >"$T/url" &
    VENDOR=$!
    until_true test -s "$T/url"
    mkdir -p "$FTAI_HOME/config"
    cat >"$FTAI_HOME/config/serenamaster.config.ftai" <<SPEC
@ftai v2.0
@provider
  name: "far"
  kind: "openai"
  privacy: "cloud"
  api: "chat"
  url: "$(cat "$T/url")/v1"
  summary: "x"
@end
@provider
  name: "near"
  kind: "openai"
  privacy: "local"
  url: "$(cat "$T/url")/v1"
  summary: "x"
@end
@model
  name: "big"
  provider: "far"
  summary: "x"
@end
@model
  name: "small"
  provider: "near"
  summary: "x"
@end
@consent
  name: "far"
  summary: "x"
@end
SPEC
    printf '@ftai v2.0\n@rule\n  name: "drafts"\n  pattern: "draft"\n  target: "model:big"\n  fallback: "model:small"\n  privacy: "cloud"\n  reason: "x"\n@end\n' \
        >"$FTAI_HOME/config/serenamaster.mcp.ftai"
    chmod 600 "$FTAI_HOME"/config/*
    ftai-listen "draft a reminder" | ftai-route | ftai-exec | ftai-log --sink
    vendor_stop
    try ftai-why "$(last command)"
    ended 0
    grep -q '^  fallback: model:small$' "$T/out"
    grep -q '^  breaker: closed$' "$T/out"
    grep -q '^  not model:small  order: ' "$T/out"
    grep -q 'try 1 of model:big: failed (credential), ' "$T/out"
    grep -q 'error credential: ' "$T/out"
    grep -q 'recovery fallback, next model:small$' "$T/out"
    grep -q 'router decides: model:small$' "$T/out"
    grep -q 'not model:big  credential: ' "$T/out"
    grep -q 'try 1 of model:small: done, ' "$T/out"
    grep -qE ' [0-9]+ input tokens, 0 cached tokens, [0-9]+ output tokens, cost 0.*, price local$' "$T/out"
    same "$(grep -oE '(failed|error|router decides|done|result)' "$T/out" | tr '\n' ' ')" \
        "failed router decides error error router decides done result done " # the second is the level of an alert
    # The next one finds the breaker open, and the story says so.
    ftai-listen "draft another" | ftai-route | ftai-log --sink
    try ftai-why "$(last route)"
    grep -q '^-> model:small ' "$T/out"
    grep -q '^  not model:big  breaker: left alone until ' "$T/out"
    grep -q '^      breaker open until ' "$T/out"
    grep -q 'no result: it is being done, was never done' "$T/out"
}

@test "why: a reader that is gone ends it, and a signal" {
    ftai-run "what time is it" >/dev/null
    id=$(last command)
    rc=0
    bash -c "ftai-why $id | :; exit \${PIPESTATUS[0]}" || rc=$?
    [ "$rc" -eq 141 ] || [ "$rc" -eq 0 ]
    exec 9>>"$FTAI_HOME/state/archive.db.lock"
    flock 9
    echo '{"@tag":"note","body":"more"}' | ftai-log --sink 9>&-
    ftai-why "$id" >"$T/out" 9>&- &
    pid=$!
    until_true eval "ps -o args= -p $pid | grep -q ftai-why"  # before that it is the shell still
    kill -TERM $pid
    rc=0
    wait $pid || rc=$?
    exec 9>&-
    same "$rc" 143
    empty "$T/out"
}

@test "why: from a bare environment" {
    ftai-run "what time is it" >/dev/null
    env -i FTAI_HOME="$FTAI_HOME" "$root/.venv/bin/python" "$root/bin/ftai-why" "$(last command)" >"$T/out"
    grep -q '^-> skill:time' "$T/out"
}
