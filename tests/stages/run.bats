load helper

# Records with ids, times and milliseconds numbered in the order in which they first stand, so that two runs can be compared.
alike() {
    jq -c 'del(.ms, .ts) | if has("@blocks") then ."@blocks" |= map(select(."@tag" != "chain")) else . end | if ."@blocks" == [] then del(."@blocks") else . end' "$1" |
        awk '{ line = $0; out = ""
               while (match(line, /[0-9a-f]+-[0-9a-f]+-7[0-9a-f]+-[0-9a-f]+-[0-9a-f]+/)) {
                   id = substr(line, RSTART, RLENGTH); if (!(id in seen)) seen[id] = ++n
                   out = out substr(line, 1, RSTART - 1) "ID" seen[id]; line = substr(line, RSTART + RLENGTH) }
               print out line }'
}

# The records of the journal, but for its own schema records, which depend on where batches end.
journaled() { ftai-recall --after 0 --limit 1000 | jq -c 'select(."@tag" != "schema")'; }

@test "run: prints the answer and journals everything" {
    try ftai-run remember to send the invoice on 2030-01-02
    ended 0
    same "$(cat "$T/out")" "I'll remind you: send the invoice, Wednesday 2 January 2030."
    empty "$T/err"
    same "$(journaled | jq -r '."@tag"' | tr '\n' ' ')" "command specs route attempt task result "
    ftai-log --verify >/dev/null
}

@test "run: makes the same records as the pipe but for ids, times and milliseconds" {
    printf 'hello\n' >"$T/doc.txt"
    local said
    for said in "remember to send the invoice on 2030-01-02" "remember that Ada likes tea" "note that it works" "take in $T/doc.txt" "what are my tasks" \
        "run date" "sing me a song" "show $T/doc.txt" "finish nothing of the kind"; do
        FTAI_HOME=$T/one ftai-run "$said" >>"$T/one.out" || true
        FTAI_HOME=$T/two bash -c 'ftai-listen "$1" | ftai-route | ftai-exec | ftai-log | tee -a "$2.records" | ftai-show -a >>"$2.out"' - "$said" "$T/two"
    done 2>/dev/null
    # What went through the pipe stands in its journal, if in another order: ftai-exec journals its intents itself.
    same "$(FTAI_HOME=$T/two journaled | jq -r .id | sort)" "$(jq -r .id "$T/two.records" | sort)"
    FTAI_HOME=$T/one journaled >"$T/one.records"
    # The clock of the machine and the folder of each run are no part of what is compared.
    for n in one two; do
        sed -i "s|$T/$n|HOME|g; s/[0-9-]* [0-9:]* UTC/CLOCK/g" "$T/$n.out" "$T/$n.records"
    done
    [ "$(wc -l <"$T/one.records")" -gt 30 ]
    diff "$T/one.out" "$T/two.out"
    diff <(alike "$T/one.records") <(alike "$T/two.records")
}

@test "run: each line of standard input is done before the next is read" {
    mkfifo "$T/in"
    ftai-run - <"$T/in" >"$T/out" &
    exec 9>"$T/in"
    echo "remember to call Ada" >&9
    until_true grep -q 'call Ada' "$T/out"
    echo "what are my tasks" >&9
    exec 9>&-
    wait
    grep -q '1 open task' "$T/out"
}

@test "run: what nothing can do is asked back, with status 0" {
    try ftai-run sing me a song
    ended 0
    grep -q "^I don't know how to do that" "$T/out"
}

@test "run: the status is that of the result" {
    mkdir -p "$FTAI_HOME/config"
    printf '@ftai v2.0\n@document\n  title: "mine"\n@end\n@phrase\n  name: "weather"\n  say: ["weather"]\n  target: "mcp:sky.weather"\n  match: ["weather"]\n@end\n' \
        >"$FTAI_HOME/config/serenamaster.commands.ftai"
    try ftai-run weather
    ended 69
    grep -q "mcp:sky.weather" "$T/err"
    same "$(ftai-recall --after 0 --tag result | jq -r .status)" failed
}

@test "run: what was journaled is brought to its end, whenever it is killed" {
    ftai-run "remember that Ada likes tea" >/dev/null
    "$root/.venv/bin/python" - "$FTAI_HOME/state/journal/current.ftai" <<'PY'
import os, subprocess, sys
def left():
    """Whether the last of them left something: the next one ends what it finds."""
    text = open(sys.argv[1], "rb").read()
    return text.count(b"\n@route\n") > text.count(b"\n@result\n")
for n in range(500):
    if n >= 10 and left():
        break
    before = os.stat(sys.argv[1]).st_size
    one = subprocess.Popen(["ftai-run", f"note that it is {n}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while os.stat(sys.argv[1]).st_size == before and one.poll() is None:
        pass
    one.kill()
    one.wait()
PY
    # The status is that of its own command, not of those that it tells of.
    try ftai-run what time is it
    ended 0
    grep -q "^ftai-run: 'skill:note' was interrupted" "$T/err"
    journaled >"$T/all"
    same "$(jq -r 'select(."@tag" == "result") | .parent' "$T/all" | sort | uniq -d)" ""
    same "$(jq -r 'select(."@tag" == "route") | .id' "$T/all" | sort | comm -23 - <(jq -r 'select(."@tag" == "result") | .parent' "$T/all" | sort))" ""
    try ftai-run what time is it
    ended 0
    empty "$T/err"
}

@test "run: --dry-run does nothing and journals nothing" {
    try ftai-run --dry-run remember to send the invoice
    ended 0
    empty "$T/out"
    grep -q "would do 'skill:task'" "$T/err"
    [ ! -e "$FTAI_HOME/state/journal/current.ftai" ]
}

@test "run: --continue goes on in the same thread" {
    ftai-run remember to call Ada >/dev/null
    ftai-run --continue what are my tasks >/dev/null
    same "$(ftai-recall --after 0 --tag command | jq -r .thread | sort -u | wc -l)" 1
}

@test "run: a journal that can't be written is a failure, and nothing is claimed to be remembered" {
    [ "$(id -u)" -ne 0 ] || skip "root may write everywhere"
    mkdir -p "$FTAI_HOME/state/journal"
    chmod 500 "$FTAI_HOME/state/journal"
    try ftai-run remember to send the invoice
    ended 73
    empty "$T/out"
}

@test "run: nothing said is a usage error" {
    try ftai-run
    ended 2
    grep -q '^hint: ' "$T/err"
}

@test "run: what was left out of a project's specs is told" {
    mkdir -p "$T/work/.ftai"
    cd "$T/work"
    printf '@ftai v2.0\n\n@phrase\n  name: "zap"\n  say: ["zap"]\n  target: "skill:status"\n@end\n' >.ftai/serenamaster.commands.ftai
    try ftai-run status
    ended 0
    grep -q "^ftai-run: warning: .*serenamaster.commands.ftai:3: left out.*ftai-doctor trust" "$T/err"
    try ftai-run -q status
    ended 0
    empty "$T/err"
}

@test "run: the answer of a model is journaled whole, though its reader goes or its disk is full" {
    "$root/.venv/bin/python" "$root/tests/vendor.py" --script "drip:seconds=0.002*0" >url 2>/dev/null &
    vendor=$!
    until_true [ -s url ]
    mkdir -m 700 "$FTAI_HOME"
    "$root/.venv/bin/python" "$root/tests/asking.py" "$(cat url)"
    { rc=0; ftai-run --stream why is the sky blue 2>"$T/err" || rc=$?; echo "$rc" >code; } | head -c 3 >/dev/null
    same "$(cat code)" 141
    empty "$T/err"
    try ftai-run --stream why is the sky green
    same "$(cat "$T/out")" "You said: why is the sky green"
    empty "$T/err"
    for said in --stream --quiet; do
        rc=0
        ftai-run "$said" why is the sky red >/dev/full 2>"$T/err" || rc=$?
        ended 74
    done
    yes why is the sky grey | { ftai-run - || true; } | head -n 1 >/dev/null
    kill "$vendor"
    same "$(journaled | jq -r 'select(."@tag" == "result") | .status' | sort -u)" done
    same "$(journaled | jq -r 'select(."@tag" == "result") | .body' | sort -u | xargs)" \
        "You said: why is the sky blue You said: why is the sky green You said: why is the sky grey You said: why is the sky red"
}

@test "run: what an earlier run left is told, and is no answer of this one" {
    "$root/.venv/bin/python" "$root/tests/vendor.py" --script hang >url 2>/dev/null &
    vendor=$!
    until_true [ -s url ]
    mkdir -m 700 "$FTAI_HOME"
    "$root/.venv/bin/python" "$root/tests/asking.py" "$(cat url)"
    ftai-run why is the sky blue >/dev/null 2>&1 &
    one=$!
    "$root/.venv/bin/python" "$root/tests/vendor.py" --tell "$(cat url)" "wait?requests=1" >/dev/null
    kill -9 "$one"
    wait "$one" || true
    kill "$vendor"
    try ftai-run remember that Ada likes tea
    ended 0
    grep -q "^ftai-run: 'model:home' was interrupted" "$T/err"
    same "$(wc -l <"$T/out")" 1
    grep -q Ada "$T/out"
}
