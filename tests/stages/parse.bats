#!/usr/bin/env bats
# ftai-parse: converts documents between text form, line form and JSON.

load helper

setup() {
    scratch
    printf '@ftai v2.0\n\n@document\n  title: "x"\n@end\n\n@note\n  body: "fine"\n@end\n\nfree text\n' >good.ftai
    printf '@ftai v2.0\n@document\n  title: "x"\n@end\n@note\n  body: "a\001b"\n@end\n@note\n  body: "after"\n@end\n' >control.ftai
}

drive() { "$root/.venv/bin/python" "$root/tests/stages/drive.py" "$@"; }
told() { grep -qE "$1" "$T/err" || { echo "expected '$1' on stderr, seen:"; cat "$T/err"; return 1; }; }
tags() { jq -r '."@tag" // "-"' "$T/out" | paste -sd' '; }

@test "a document becomes one record a line, and canonical text again" {
    try ftai-parse good.ftai
    ended 0
    empty "$T/err"
    same "$(tags)" "ftai document note -"
    cp "$T/out" lines
    try ftai-parse --fmt good.ftai
    ended 0
    cp "$T/out" canonical
    same "$(ftai-parse --fmt lines)" "$(cat canonical)"
    same "$(ftai-parse --fmt canonical)" "$(cat canonical)"
    same "$(ftai-parse --to ftai - <canonical)" "$(cat canonical)"
    ftai-validate --strict canonical
}

@test "records in line form pass as the same bytes" {
    printf '{ "@tag":"x", "n":1.50,"s":"\\u00e9" }\n\n{"@tag":"y"}' >odd
    same "$(ftai-parse odd)" "$(printf '{ "@tag":"x", "n":1.50,"s":"\\u00e9" }\n{"@tag":"y"}')"
    same "$(ftai-parse --to ndjson odd)" "$(ftai-parse --from ndjson odd)"
}

@test "any text is read; nothing at all gives nothing" {
    try ftai-parse <<<"just words"
    ended 0
    same "$(cat "$T/out")" '{"@text":"just words"}'
    told '^ftai-parse: warning: standard input:1:1: no header'
    try ftai-parse --quiet </dev/null
    ended 0
    empty "$T/out"
    empty "$T/err"
    try ftai-parse --fmt --quiet </dev/null
    ended 0
    same "$(head -n 1 "$T/out")" "@ftai v2.0"
}

@test "bad input: file, line, column, an error record in its place, the good ones around it" {
    try ftai-parse control.ftai
    ended 1
    same "$(tags)" "ftai document error note"
    same "$(sed -n 3p "$T/out" | jq -r '.class, .where' | paste -sd' ')" "input control.ftai:6"
    told "^ftai-parse: control.ftai:6:11: control character U\+0001, expected text$"
    printf '{"@tag":"a"}\n{"@tag":"a","b":null}\n{"@tag":"c"}\n' | { try ftai-parse; ended 1; same "$(tags)" "a error c"; }
    told "^ftai-parse: standard input:2: field 'b': null"
    printf '@ftai v2.0\n@a\nk: "\377"\n@end\n' >bytes
    try ftai-parse bytes
    ended 1
    same "$(tags)" "ftai a"
    told '^ftai-parse: bytes:3:5: byte 0xFF at offset 18 is not UTF-8'
}

@test "what is only odd is a warning: quotes, blocks and lists without end, stray @end, a repeated key" {
    printf '@ftai v2.0\n@end\n@a\nk: "x\nk: [1\nk: 2\n' >odd
    try ftai-parse odd
    ended 0
    same "$(sed -n 2p "$T/out")" '{"@tag":"a","k":["\"x","[1",2]}'
    for place in 2:1 3:1 4:4 5:4 5:1; do told "^ftai-parse: warning: odd:$place: .*"; done
    try ftai-parse --strict odd
    ended 1
    same "$(sed -n 2p "$T/out")" '{"@tag":"a","k":["\"x","[1",2]}'
    for place in 2:1 4:4 5:4; do told "^ftai-parse: odd:$place: .*expected"; done
    told "odd:1:1: '@document' is missing"
    told "odd:3:1: unknown tag '@a'"
}

@test "--fmt and --to write all or nothing; --force writes what there is" {
    for to in --fmt "--to ftai" "--to ndjson" "--to json"; do
        try ftai-parse $to control.ftai
        ended 1
        empty "$T/out"
        told '^hint: .*--force'
        try ftai-parse $to --force control.ftai
        ended 1
        [ "$(ftai-parse --from "$([ "$to" = "--to json" ] && echo json || echo auto)" "$T/out" | jq -r '."@tag"' | grep -cE '^(error|note)$')" -eq 2 ]
    done
    printf '{"@tag":"a"}\n{"@tag":"a","body":"x\\u0007"}\n' >bell
    try ftai-parse --fmt bell
    ended 1
    empty "$T/out"
    told "^ftai-parse: bell:2: field 'body': U\+0007 cannot be written$"
    try ftai-parse --fmt --force bell
    ended 1
    same "$(ftai-parse "$T/out" | jq -r '."@tag"' | paste -sd' ')" "ftai document schema a error"
    try ftai-parse --fmt --to json bell
    ended 2
}

@test "text that would be read as something else is told" {
    echo '{"@tag":"a","@text":"k: v"}' >prose
    try ftai-parse --fmt prose
    ended 0
    told "^ftai-parse: warning: prose:1: text .*'@prose'"
    same "$(ftai-parse "$T/out" | tail -n 1)" '{"@tag":"a","@blocks":[{"@tag":"prose","body":"k: v"}]}'
}

@test "JSON to .ftai to JSON is the same" {
    cat >in.json <<'END'
[{"n":1,"f":1.5,"l":["a",[true]],"sub":{"x":"y","deep":{}}},
 {"@tag":"note","@text":"some text"},{"@text":"narrative"},
 {"@tag":"t","sub":1,"@blocks":[{"@tag":"sub","a":1},{"@tag":"b"},{"@tag":"b"}]}]
END
    ftai-parse --from json --to ftai in.json >x.ftai
    same "$(ftai-parse --to json x.ftai | jq -cS .)" "$(jq -cS . in.json)"
    same "$(echo '{"a":1}' | ftai-parse --from json --fmt | ftai-parse --to json | jq -c .)" '[{"a":1}]'
    same "$(echo '[]' | ftai-parse --from json --to json)" '[]'
    for bad in '{"key":null}' '{"key":[{}]}' '{"Key":{}}' '{"key":99999999999999999999}' '{"a key":1}' '{"key":1,"key":2}' '{"key":' '"key"'; do
        echo "$bad" >bad.json
        try ftai-parse --from json --fmt bad.json
        ended 1
        empty "$T/out"
        told '^ftai-parse: bad.json:'
    done
    printf '{\n  "a": 1\n}\n' >pretty.json
    try ftai-parse pretty.json
    ended 1
    told '^hint: ftai-parse --from json'
}

@test "the old dialect, with and without its first line" {
    printf '# old\nversion: 1.0\ntitle: T\n\nschema:\nfield: a:string:true:A\n\ncontent:\nWords.\n' >old
    try ftai-parse old
    ended 0
    same "$(tags)" "document schema -"
    tail -n +3 old | ftai-parse --from v1 --quiet | jq -r '."@tag" // "-"' | paste -sd' ' >seen
    same "$(cat seen)" "document schema -"
    ftai-parse --fmt old | ftai-validate --strict
}

@test "--at adds file and line, --keep-comments what is dropped" {
    printf '@ftai v2.0\n// c\n@note "h" // d\n  n:int 3\n@end\n' >x.ftai
    same "$(ftai-parse --at x.ftai | tail -n 1)" '{"@tag":"note","@head":"h","n":3,"at_file":"x.ftai","at_line":3}'
    same "$(ftai-parse --at - <x.ftai | tail -n 1 | jq -r .at_file)" "-"
    same "$(ftai-parse --keep-comments x.ftai | tail -n 1)" '{"@tag":"note","@head":"h","n":3,"@comments":["// c","// d"],"@hints":["n:int"]}'
}

@test "--include follows, inside the folder, a while, and no cycle" {
    mkdir -p in/sub
    printf '@ftai v2.0\n@include ./sub/b.ftai\n@note\n  n: 1\n@end\n' >in/a.ftai
    printf '@ftai v2.0\n@note\n  n: 2\n@end\n@include "c.ftai"\n@end\n' >in/sub/b.ftai
    printf '@note\n  n: 3\n@end\n' >in/sub/c.ftai
    try ftai-parse -q in/a.ftai
    same "$(tags)" "ftai include note"
    try ftai-parse -q --include in/a.ftai
    ended 0
    same "$(jq -r '.n // ."@tag"' "$T/out" | paste -sd' ')" "ftai include 2 include 3 1"
    (cd in && ftai-parse -q --include - <a.ftai) | tail -n 1 | grep -q '"n":1'
    printf '@include ../good.ftai\n' >in/out.ftai
    printf '@include /etc/passwd\n' >in/abs.ftai
    ln -s ../good.ftai in/link.ftai
    printf '@include link.ftai\n' >in/linked.ftai
    printf '@include loop.ftai\n' >in/loop.ftai
    printf '@include gone.ftai\n' >in/gone-from.ftai
    printf '@include\n' >in/none.ftai
    printf '@include sub\n' >in/folder.ftai
    mkfifo in/pipe
    printf '@include pipe\n' >in/fifo.ftai
    for name in out abs linked loop gone-from none folder fifo; do
        try timeout 120 ftai-parse -q --include in/$name.ftai
        ended 1
        same "$(jq -r '."@tag"' "$T/out" | paste -sd' ')" "include error"
        told "^ftai-parse: in/$name.ftai:1:1: "
    done
    for ((n = 0; n < 20; n++)); do printf '@include deep%d.ftai\n' $((n + 1)) >in/deep$n.ftai; done
    try ftai-parse -q --include in/deep0.ftai
    ended 1
    same "$(grep -c '"include"' "$T/out")" 17
    lines 1100 '@include sub/c.ftai' >in/many.ftai
    try ftai-parse -q --include in/many.ftai
    ended 1
    same "$(grep -c '"n":3' "$T/out")" 1000
    { printf '@note\n  body: "'; head -c 9000000 /dev/zero | tr '\0' x; printf '"\n@end\n'; } >in/large.ftai
    printf '@include large.ftai\n@include large.ftai\n' >in/large2.ftai
    try ftai-parse -q --include in/large2.ftai
    ended 1
    same "$(jq -r '."@tag"' "$T/out" | paste -sd' ')" "include note include error"
}

@test "missing files, folders, several files" {
    for bad in "66 none.ftai" "65 ."; do
        try ftai-parse "${bad#* }"
        ended "${bad% *}"
        empty "$T/out"
        try ftai-parse good.ftai "${bad#* }" good.ftai
        ended "${bad% *}"
        same "$(tags)" "ftai document note - ftai document note -"
        try ftai-parse --fmt good.ftai "${bad#* }"
        ended "${bad% *}"
        empty "$T/out"
    done
}

@test "a terminal on standard input: usage" {
    try drive tty-in ftai-parse
    ended 2
}

@test "the first record comes out while the input is still open" {
    mkfifo pipe
    ftai-parse -q <pipe >seen &
    exec 9>pipe
    printf '@ftai v2.0\n@note\n  n: 1\n@end\n' >&9
    until_true grep -q '"n":1' seen
    same "$(grep -v '"ftai"' seen)" '{"@tag":"note","n":1}'
    printf 'narrative\n\n' >&9
    until_true grep -q narrative seen
    same "$(tail -n 1 seen)" '{"@text":"narrative"}'
    exec 9>&-
    wait $!
}

@test "a closed reader: 141; a full disk: 74" {
    lines 20000 '{"@tag":"x"}' >many
    set +o pipefail
    ftai-parse many | head -n 1 >seen
    same "${PIPESTATUS[0]}" 141
    [ -e /dev/full ] || skip "no /dev/full here"
    rc=0
    ftai-parse many >/dev/full 2>"$T/err" || rc=$?
    same $rc 74
}

@test "a binary file, a line of 30 MB, 20,000 brackets, 10,000 blocks" {
    head -c 200000 /dev/urandom >binary
    try ftai-parse binary
    ended 1
    jq -es 'all(."@tag" or ."@text")' "$T/out" >/dev/null
    { printf '@ftai v2.0\n@a\n@end\n@big\n  body: "'; head -c 30000000 /dev/zero | tr '\0' x; printf '"\n@end\n@b\n@end\n'; } >long
    try ftai-parse long
    ended 1
    same "$(tags)" "ftai a error b"
    told '^ftai-parse: long:4:1: a record of more than 16777216 bytes'
    { printf '@ftai v2.0\n@a\nk: '; head -c 20000 /dev/zero | tr '\0' '['; printf '\n@end\n@b\n@end\n'; } >brackets
    try ftai-parse brackets
    ended 1
    same "$(tags)" "ftai a b"
    told '^ftai-parse: brackets:3:4: more than 64 lists'
    { echo '@ftai v2.0'; lines 10000 @x; echo '@y'; echo '@end'; } >deep
    try ftai-parse -q deep
    ended 0
    same "$(wc -l <"$T/out")" 10002
}
