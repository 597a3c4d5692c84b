#!/usr/bin/env bats
# ftai-redact, and what ftai-log keeps of secrets and of requests that are not to be logged. The secrets are made here, and lead nowhere.

load helper

ID=0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e

setup() {
    scratch
    S=ghp_$(letters 36)
    J=$FTAI_HOME/state/journal
}

# $1 random letters and digits.
letters() { head -c $((20 * $1)) /dev/urandom | LC_ALL=C tr -dc A-Za-z0-9 | head -c "$1"; }
# A record whose body is $1; $2 tells it from others.
rec() { printf '{"@tag":"note","id":"0199c2f4-7d1e-7a31-9c1b-%012d","ts":"2026-11-22T13:25:00.041Z","thread":"%s","body":"%s"}\n' "${2:-1}" $ID "$1"; }
# A private key of nonsense, a line each.
pem() {
    echo '-----BEGIN RSA PRIVATE KEY-----'
    for _ in 1 2 3 4 5 6; do letters 64 | tee -a "$T/pem"; echo | tee -a "$T/pem"; done
    echo '-----END RSA PRIVATE KEY-----'
}
# Fails if one of the lines of file $1 stands in a file below $2.
nowhere() {
    [ -s "$1" ]
    ! grep -rlFf "$1" "$2" || return 1
    # The archive packs nothing, but its pages may hold a text in pieces.
    ! find "$2" -name '*.db*' -exec strings -n 4 {} + | grep -Ff "$1" || return 1
}
stored() { ftai-recall --after 0 --limit 10000 "$@"; }

@test "a secret is replaced by a marker, and what holds none passes as the same bytes" {
    { rec hello 1; rec "the key is $S, keep it" 2; echo '{ "@tag":"note", "body":"caf\u00e9" }'; } >in
    try ftai-redact in
    ended 0
    empty "$T/err"
    sed 2d in | cmp - <(sed 2d "$T/out")
    sed -n 2p "$T/out" | jq -r .body | grep -qE '^the key is \[redacted:[a-z0-9_-]+:[0-9a-f]{4}\], keep it$'
    same "$(sed -n 2p "$T/out" | jq -c 'del(.body)')" "$(sed -n 2p in | jq -c 'del(.body)')"
}

@test "the same secret has the same marker, another one another" {
    { rec "a $S" 1; rec "$S b" 2; rec "ghp_$(letters 36)" 3; } | ftai-redact | jq -r .body | grep -o '\[.*\]' >marks
    same "$(sort -u marks | wc -l)" 2
    same "$(sed -n 1p marks)" "$(sed -n 2p marks)"
    # Also in another run.
    same "$(rec "$S" | ftai-redact | jq -r .body)" "$(sed -n 1p marks)"
}

@test "names of fields, nested blocks and lists are looked at" {
    echo '{"@tag":"note","'$S'":1,"list":["x",["'$S'"]],"@blocks":[{"@tag":"note","@head":"'$S'","@text":"'$S'"}]}' | ftai-redact >"$T/out"
    same "$(grep -c "$S" "$T/out")" 0
    grep -q '"redacted_' "$T/out"
}

@test "a secret that is cut over two records is found" {
    { rec hello 1; rec "it is ${S:0:20}" 2; rec "${S:20} so" 3; rec bye 4; } >in
    try ftai-redact in
    ended 0
    grep -Ff <(printf '%s\n' "${S:0:20}" "${S:20}") "$T/out" && return 1
    same "$(jq -r .body "$T/out" | sed -n '1p;4p' | tr '\n' ,)" hello,bye,
}

@test "a private key that is a record a line is found" {
    n=0
    while read -r line; do rec "$line" $((n += 1)); done < <(pem) >in
    ftai-redact in >"$T/out"
    same "$(wc -l <"$T/out")" 8
    grep -Ff "$T/pem" "$T/out" && return 1
    same "$(jq -r .id in)" "$(jq -r .id "$T/out")"
}

@test "no record is lost or moved" {
    for _ in {1..428}; do letters 36; echo; done >tokens
    # Every seventh: of 3,000, all of the tokens.
    seq 3000 | awk -v one="$(rec 'no %d is %s' 77)" '{
        sub(/000000000077/, "%012d", one)
        if ($1 % 7 == 0) { getline token <"tokens"; said = "ghp_" token } else said = "nothing"
        printf one "\n", $1, $1, said
    }' >in
    same "$(grep -c ghp_ in) $(wc -l <in)" "428 3000"
    try ftai-redact in
    ended 0
    same "$(jq -r '.id, (.body | split(" ")[1])' "$T/out" | sha256sum)" "$(jq -r '.id, (.body | split(" ")[1])' in | sha256sum)"
    same "$(grep -c ghp_ "$T/out")" 0
    same "$(grep -c '\[redacted:' "$T/out")" 428
}

@test "a bad line says nothing of what stood in it" {
    { rec a 1; echo '{"@tag":"note","@'$S'":1}'; echo "{\"$S"; rec b 2; } >in
    try ftai-redact in
    ended 1
    same "$(jq -r '."@tag"' "$T/out" | tr '\n' ,)" note,error,error,note,
    same "$(grep -lF "$S" "$T/out" "$T/err")" ""
    try ftai-redact --strict in
    ended 1
    same "$(jq -r .body "$T/out")" a
    same "$(grep -cF "$S" "$T/err")" 0
}

@test "--text: lines in and out" {
    printf 'hello\nkey: %s\r\n\nbye' "$S" >in
    try ftai-redact --text in
    ended 0
    empty "$T/err"
    sed -E 's/\[redacted:[^]]*\]/X/' "$T/out" | cmp - <(printf 'hello\nkey: X\r\n\nbye')
}

@test "--text: bytes that are no UTF-8, and whatever else holds no secret, come out as they went in" {
    for n in 1 2 3 4 5; do
        { head -c 200 /dev/urandom | tr 0-9@. a; printf '\n\xff\xfe\0\x80 \xed\xa0\x80 caf\xc3\xa9\r\r\n\n'; } >>in
    done
    ftai-redact --text in | cmp in -
    ftai-redact --text <in | cmp in -
    printf '\xff%s\xff' "$S" | ftai-redact --text >"$T/out"
    same "$(grep -c ghp_ "$T/out")" 0
    same "$(head -c 1 "$T/out" | xxd -p)$(tail -c 1 "$T/out" | xxd -p)" ffff
}

@test "--text: a line comes out while the next has not been written, a private key when it is whole" {
    mkfifo in
    ftai-redact --text <in >out &
    exec 9>in
    echo "first $S" >&9
    until_true grep -q '^first \[redacted:' out
    pem >key
    sed -n 1,3p key >&9
    sed -n '4,$p' key >&9
    echo last >&9
    until_true grep -q '^last$' out
    exec 9>&-
    wait
    grep -Ff pem out && return 1
    grep -q '\[redacted:' <(sed 1d out)
}

@test "--text: what only looks like the beginning of a key is not kept back for ever" {
    { echo '-----BEGIN RSA PRIVATE KEY-----'; seq -f 'line %.0f of something else that goes on and on' 2000; } >in
    ftai-redact --text <in | tail -n 1 >"$T/out"
    same "$(cat "$T/out")" "line 2000 of something else that goes on and on"
    printf -- '-----BEGIN RSA PRIVATE KEY-----\nend' | ftai-redact --text | tail -c 3 >"$T/out"
    same "$(cat "$T/out")" end
}

@test "--text: no FILE and a terminal, a missing FILE" {
    rc=0
    "$root/.venv/bin/python" "$root/tests/stages/drive.py" tty-in ftai-redact --text >"$T/out" 2>"$T/err" </dev/null || rc=$?
    ended 2
    try ftai-redact --text none
    ended 66
    printf 'a' >one
    printf 'b\n' >two
    same "$(ftai-redact --text one two)" ab
}

# ---- what is kept ----

@test "what ftai-log writes holds no secret, and what it passes on is as it was read" {
    { rec "the key is $S" 1; rec "${S:0:20}" 2; rec "${S:20}" 3; } >in
    echo "$S" >secrets
    for how in batch each; do
        rm -rf "$FTAI_HOME"
        try ftai-log --sync $how in
        ended 0
        empty "$T/err"
        cmp in "$T/out"
        nowhere secrets "$FTAI_HOME"
        same "$(stored | grep -cF -e "${S:0:20}" -e "${S:20}")" 0
        same "$(stored | jq -r .id)" "$(jq -r .id in)"
        ftai-log --verify | grep -q "3 records"
        # Once more, and the held ones again.
        try ftai-log in
        ended 0
        cmp in "$T/out"
        stored | ftai-log --sink
        ftai-log --verify | grep -q "3 records"
    done
}

@test "what was journaled before it was known to be a secret is a repeat afterwards" {
    S=plain-words-$(letters 12)
    rec "it is $S" >in
    ftai-log --sink in
    grep -qF "$S" "$J/current.ftai"
    PYTHONPATH=$root/lib "$root/.venv/bin/python" -c 'import sys; from serenamaster import redact; redact.remember("mine", sys.argv[1])' "$S"
    same "$(ftai-redact in | jq -r .body | sed 's/:[0-9a-f]*\]/]/')" "it is [redacted:key]"
    try ftai-log in
    ended 0
    ftai-log --verify | grep -q "1 records"
    sed 's/13:25:00/13:25:01/' in >other
    try ftai-log other
    ended 1
}

@test "the error record of what is refused holds no secret, nor do messages" {
    { echo '{"@tag":"note","@'$S'":1}'; echo "{\"$S\": x}"; echo '{"@tag":"note","id":"'$ID'","body":"'$S' \u0007"}'; } >in
    try ftai-log in
    ended 1
    echo "$S" >secrets
    nowhere secrets "$FTAI_HOME"
    same "$(grep -cF "$S" "$T/err")" 0
    same "$(stored --tag error | wc -l)" 3
    try ftai-log --dry-run in
    same "$(grep -cF "$S" "$T/err")" 0
}

@test "an intent that ftai-exec journals is no conflict in ftai-log" {
    mkdir -p "$FTAI_HOME/config"
    cat >"$FTAI_HOME/config/serenamaster.commands.ftai" <<'FTAI'
@ftai v2.0
@document
  title: "mine"
@end
@program
  name: "say"
  summary: "says it"
  run: ["echo", "{what}"]
  timeout: 30
  output: 10000
@end
@phrase
  name: "say"
  say: ["say {what}"]
  target: "cmd:say"
  match: ["say hello"]
@end
FTAI
    try bash -o pipefail -c 'ftai-listen "$1" | ftai-route | ftai-exec | ftai-log | ftai-show -a' - "say $S"
    ended 0
    same "$(cat "$T/out")" "$S"
    empty "$T/err"
    echo "$S" >secrets
    nowhere secrets "$FTAI_HOME/state"
    same "$(stored --tag audit | jq -r .subject | grep -c '\[redacted:')" 2
    ftai-log --verify
}

# ---- --no-log ----

words() {
    # What they say is told nowhere else, and matches no pattern.
    W=xylo$(letters 8 | tr A-Z a-z)
    printf '%s\n' "$W" >secrets
}

@test "--no-log: the answer comes out, and no text of it is anywhere, in the pipe" {
    words
    for said in "what did I say about $W" "sing me the $W" "remember that $W is short" "remember to send $W tomorrow" "show /nowhere/$W" "find files called $W" "finish $W"; do
        bash -c 'ftai-listen --no-log "$1" | ftai-route | ftai-exec | ftai-log | ftai-show -a' - "$said" >>"$T/out" 2>>"$T/err" || true
    done
    # The control: the answers do say it.
    [ "$(grep -c "$W" "$T/out")" -ge 3 ]
    nowhere secrets "$FTAI_HOME"
    same "$(grep -c "$W" "$T/err")" 0
    # The fact is there.
    same "$(stored --tag command | wc -l) $(stored --tag route | wc -l) $(stored --tag result | wc -l)" "7 7 7"
    stored --tag route | jq -se 'any(.target == "skill:task")'
    stored --tag command | jq -se 'all(.body | test("^\\[withheld:[0-9]+\\]$"))'
    stored --tag specs | jq -e '.body | test("withheld") | not'
    ftai-log --verify
}

@test "--no-log: the same with ftai-run, with documents and lines" {
    words
    echo "a document about $W" >"$T/$W.txt"
    try ftai-run --no-log "what did I say about $W"
    ended 0
    grep -q "$W" "$T/out"
    printf '%s\n' "show /nowhere/$W" "note that $W is here" "what time is it" | ftai-run --no-log - >"$T/out" 2>"$T/err" || [ $? = 66 ]
    ftai-run --no-log --file "$T/$W.txt" "what time is it" >>"$T/out" 2>>"$T/err"
    ftai-run --no-log --dry-run "remember $W" >>"$T/out" 2>>"$T/err"
    ftai-listen --no-log "remember $W" | ftai-route --dry-run >/dev/null 2>>"$T/err"
    same "$(grep -c "$W" "$T/err")" 0
    # What was asked for is done: the note is where notes are.
    grep -rq "$W" "$FTAI_HOME/data"
    nowhere secrets "$FTAI_HOME/state"
    [ ! -e "$FTAI_HOME/cache" ] || nowhere secrets "$FTAI_HOME/cache"
    # The control: without the option it is found.
    ftai-run "remember $W" >/dev/null
    grep -q "$W" "$J/current.ftai"
}

@test "--no-log: what only a record can hold is refused, and the answer says what to do" {
    words
    for said in "remind me to call $W tomorrow" "remember $W" "finish $W"; do
        try ftai-run --no-log "$said"
        ended 77
        grep -q "^'skill:[a-z]*' keeps what it is told in the journal alone.*: ask again without --no-log" "$T/out"
        try bash -o pipefail -c 'ftai-listen --no-log "$1" | ftai-route | ftai-exec' - "$said"
        ended 77
        same "$(jq -r 'select(."@tag" == "result").status' "$T/out")" refused
    done
    same "$(stored --tag task | wc -l) $(stored --tag memory | wc -l)" "0 0"
    nowhere secrets "$FTAI_HOME"
    try ftai-run "remind me to call $W tomorrow"
    ended 0
    try ftai-run "finish call $W"
    ended 0
    same "$(cat "$T/out")" "Finished: call $W."
}

@test "--no-log: what came in another way is what it was, and comes again as a repeat" {
    words
    ftai-listen --no-log "find files called $W" | ftai-route | ftai-exec >in
    try ftai-log in
    ended 0
    cmp in "$T/out"
    try ftai-log in
    ended 0
    cmp in "$T/out"
    stored >held
    try ftai-log held
    ended 0
    same "$(stored | wc -l)" "$(wc -l <in)"
    nowhere secrets "$FTAI_HOME/state"
}
