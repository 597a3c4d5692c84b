#!/usr/bin/env bats
# ftai-validate: checks documents, specs, threads and journals.

load helper

setup() {
    scratch
    printf '@ftai v2.0\n\n@document\n  title: "x"\n@end\n\n@note\n  body: "fine"\n@end\n' >good.ftai
    printf '@ftai v2.0\n@document\n  title: x\n@end\n@note {\n  body: 1\n}\n@section A\n  text\n' >ragged.ftai
    printf '@ftai v2.0\n\n@document\n  title: "x"\n@end\n\n@banana\n  body: "one"\n@end\n' >unknown.ftai
    printf '@ftai v2.0\n\n@document\n  title: "x"\n@end\n\n@note\n  body: "a\001b"\n@end\n' >control.ftai
}

@test "a good document has no findings, from a file and from standard input" {
    for given in good.ftai -; do
        try ftai-validate --strict $given <good.ftai
        ended 0
        empty "$T/out"
        empty "$T/err"
    done
}

@test "findings have file, line, column, level and rule, and stand on standard output" {
    try ftai-validate --strict unknown.ftai good.ftai
    ended 1
    same "$(cat "$T/out")" "unknown.ftai:7:1: error: unknown tag '@banana', expected one of ftai(5), one declared in '@schema', or '@x_banana' [unknown-tag]"
    empty "$T/err"
}

@test "warnings alone are no failure, with --strict neither" {
    printf '@ftai v2.0\n\n@document\n  title: "x"\n@end\n\n@note\n  body: "x"\n' >open.ftai
    for strict in "" --strict; do
        try ftai-validate $strict open.ftai
        ended 0
        grep -q 'warning: .*\[unclosed\]' "$T/out"
    done
}

@test "the lenient reading lets an unknown tag be, the strict one does not" {
    try ftai-validate unknown.ftai
    ended 0
    empty "$T/out"
    try ftai-validate --strict unknown.ftai
    ended 1
}

@test "every format is what it says" {
    try ftai-validate --strict --format json ragged.ftai unknown.ftai
    ended 1
    same "$(jq -r '.[0].rule, length > 1' "$T/out" | tr '\n' ' ')" "brace true "
    try ftai-validate --strict --format sarif ragged.ftai unknown.ftai
    ended 1
    same "$(jq -r '.version, (.runs[0] | .results[-1].ruleId == .tool.driver.rules[.results[-1].ruleIndex].id)' "$T/out" | tr '\n' ' ')" "2.1.0 true "
    try ftai-validate --strict --format github unknown.ftai
    ended 1
    grep -q '^::error file=unknown.ftai,line=7,col=1,title=unknown-tag::unknown tag' "$T/out"
    for format in json sarif; do
        ftai-validate --format $format good.ftai | jq -e . >/dev/null
        try ftai-validate --format $format none.ftai
        ended 66
        jq -e . <"$T/out" >/dev/null
    done
    try ftai-validate --format xml good.ftai
    ended 2
}

@test "a missing file and a folder are said clearly, and the other files are checked" {
    mkdir docs
    try ftai-validate docs
    ended 65
    grep -q "'docs': is a folder" "$T/err"
    grep -q "^hint: find 'docs' -name" "$T/err"
    try ftai-validate none.ftai
    ended 66
    try ftai-validate --strict none.ftai unknown.ftai docs
    ended 1
    grep -q banana "$T/out"
    same "$(wc -l <"$T/err")" 3
}

@test "records in line form: bad ones are named, threads are followed" {
    cat >thread.ndjson <<'END'
{"@tag":"command","id":"019ab9c4-7d1e-7a31-9c1b-000000000001","ts":"2026-11-22T13:25:00.000Z","thread":"019ab9c4-7d1e-7a31-9c1b-000000000001","body":"x"}
{"@tag":"route","id":"019ab9c4-7d1e-7a31-9c1b-000000000002","ts":"2026-11-22T13:25:00.000Z","thread":"019ab9c4-7d1e-7a31-9c1b-000000000001","parent":"019ab9c4-7d1e-7a31-9c1b-000000000001","target":"ask"}
{"@tag":"note","a":null}
{"@tag":"result","id":"019ab9c4-7d1e-7a31-9c1b-000000000003","ts":"2026-11-22T13:25:00.000Z","thread":"019ab9c4-7d1e-7a31-9c1b-000000000001","parent":"019ab9c4-7d1e-7a31-9c1b-000000000002","status":"asked"}
{"@tag":"result","id":"019ab9c4-7d1e-7a31-9c1b-000000000004","ts":"2026-11-22T13:25:00.000Z","thread":"019ab9c4-7d1e-7a31-9c1b-000000000001","parent":"019ab9c4-7d1e-7a31-9c1b-000000000002","status":"done"}
END
    try ftai-validate <thread.ndjson
    ended 1
    same "$(sed 's/.*:\([0-9]*\):[0-9]*: .*\[/\1 /; s/]//' "$T/out" | tr '\n' ' ')" "3 not-a-record 5 second-result "
}

@test "@intent fail turns the verdict over" {
    { echo '@intent fail'; cat unknown.ftai; } >bad.ftai
    { echo '@intent fail'; cat good.ftai; } >wrong.ftai
    try ftai-validate --strict bad.ftai
    ended 0
    grep -q 'note: .*\[unknown-tag\]' "$T/out"
    try ftai-validate --strict wrong.ftai
    ended 1
    grep -q '\[intent-fail\]' "$T/out"
}

@test "--fix rewrites what can be put right, keeps the mode, and says what" {
    chmod 640 ragged.ftai
    try ftai-validate --strict --fix ragged.ftai
    ended 0
    empty "$T/out"
    same "$(cat "$T/err")" "ftai-validate: 'ragged.ftai' fixed: brace (1), unclosed (1)"
    same "$(stat -c %a ragged.ftai)" 640
    try ftai-validate --strict ragged.ftai
    empty "$T/out"
    same "$(ls -A | grep -c tmp)" 0
}

@test "--fix writes through a link, and leaves the link" {
    ln -s ragged.ftai link.ftai
    try ftai-validate --fix link.ftai
    ended 0
    [ -L link.ftai ]
    grep -q '^  body: 1$' ragged.ftai
}

@test "--fix touches nothing that has no findings, or that it cannot put right" {
    printf '@ftai v2.0\n@document\n    title: x\n@end\n' >odd.ftai
    cp ragged.ftai comment.ftai
    printf '// why\n' >>comment.ftai
    printf '@ftai v2.0\n@document\n  title: "x\n@end\n@note {\n}\n' >quote.ftai
    printf '{"@tag":"note"}\n{}\n' >lines.ndjson
    md5sum *.ftai lines.ndjson >before
    try ftai-validate --strict --fix good.ftai odd.ftai
    ended 0
    empty "$T/err"
    for name in comment.ftai quote.ftai unknown.ftai control.ftai lines.ndjson; do
        try ftai-validate --strict --fix $name
        ended 1
        grep -q "^ftai-validate: '$name' not fixed: " "$T/err"
        [ -s "$T/out" ]
    done
    rm ragged.ftai
    md5sum --quiet -c <(grep -v ragged before)
    same "$(ls -A | grep -c tmp)" 0
}

@test "--fix leaves the document alone where its folder cannot be written" {
    [ "$(id -u)" -ne 0 ] || skip "root may write anywhere"
    mkdir shut
    cp ragged.ftai shut/
    chmod 500 shut
    try ftai-validate --strict --fix shut/ragged.ftai
    ended 73
}

@test "--fix has nothing to do with standard input" {
    try ftai-validate --fix - <good.ftai
    ended 2
    try ftai-validate --fix <good.ftai
    ended 2
}

@test "bad input has a place: control characters, bytes that are no UTF-8, open quotes, stray ends, deep nesting" {
    try ftai-validate control.ftai
    ended 1
    grep -q '^control.ftai:8:11: error: .*\[control\]' "$T/out"
    try ftai-validate < <(printf '@ftai v2.0\n@note\n  body: "\377"\n@end\n')
    ended 1
    grep -q ':3:10: error: .*\[utf-8\]' "$T/out"
    try ftai-validate --strict < <(printf '@ftai v2.0\n@document\n@end\n@note\n  body: "x\n@end\n@end\n')
    ended 1
    grep -q ':5:9: error: .*\[unterminated-quote\]' "$T/out"
    grep -q ':7:1: error: .*\[stray-end\]' "$T/out"
    try ftai-validate < <({ echo '@ftai v2.0'; for ((n = 0; n < 200; n++)); do printf '%*s@note\n' $n ''; done; })
    ended 1
    grep -q '\[depth\]' "$T/out"
}

@test "a binary file and an empty one" {
    head -c 20000 "$(readlink -f "$root/.venv/bin/python")" >binary
    try ftai-validate binary
    ended 1
    grep -q '\[control\]' "$T/out"
    same "$(LC_ALL=C tr -d '\n\40-\176\200-\377' <"$T/out" | wc -c)" 0
    try ftai-validate </dev/null
    ended 0
    grep -q '\[header\]' "$T/out"
}

@test "memory is flat" {
    mb=$((8 * ${FTAI_TEST_SCALE:-1}))
    cat >many.py <<'END'
import sys
block = "".join(f'@message\n  id: "n{n}"\n  body: "some text {n}"\n@end\n\n' for n in range(2000))
sys.stdout.write('@ftai v2.0\n@document\n@end\n')
for _ in range(int(sys.argv[1]) * 1000000 // len(block)):
    sys.stdout.write(block)
END
    cat >peak.py <<'END'
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
END
    for how in cat 'grep -v @end'; do
        python3 many.py $mb | $how | python3 peak.py ftai-validate >seen
        read -r code peak < <(tail -1 seen)
        same "$code" 0
        [ "$peak" -lt 60 ]
    done
}

@test "a reader that goes away ends it by SIGPIPE" {
    lines 20000 '{}' >many.ndjson
    bash -c 'ftai-validate many.ndjson 2>"$1" | head -1 >/dev/null; exit ${PIPESTATUS[0]}' - "$T/err" || rc=$?
    same "$rc" 141
    empty "$T/err"
}

@test "it starts with nothing in the environment, and with broken specs" {
    try env -i "$root/bin/ftai-validate" good.ftai
    ended 0
    mkdir -p "$FTAI_HOME/config"
    echo nonsense >"$FTAI_HOME/config/serenamaster.commands.ftai"
    try ftai-validate good.ftai
    ended 0
}

@test "a journal: its chain is verified, and --fix never rewrites it" {
    ftai-listen "what time is it" | ftai-log >/dev/null
    ftai-listen "remember the milk" | ftai-log >/dev/null
    cp "$FTAI_HOME/state/journal/current.ftai" journal.ftai
    try ftai-validate --strict journal.ftai
    ended 0
    empty "$T/out"
    sed 's/the milk/the silk/' journal.ftai >changed.ftai
    cp changed.ftai kept.ftai
    try ftai-validate changed.ftai
    ended 1
    line=$(grep -n '^@command' changed.ftai | tail -1 | cut -d: -f1)
    grep -q "^changed.ftai:$line:1: error: .*\[chain\]" "$T/out"
    try ftai-validate --fix changed.ftai
    ended 1
    grep -q "not fixed: a journal is never rewritten" "$T/err"
    cmp changed.ftai kept.ftai
}

@test "a spec: its keys, its targets and its examples are checked" {
    try ftai-validate --strict "$root"/specs/*.ftai
    ended 0
    empty "$T/out"
    printf '@ftai v2.0\n@document\n@end\n@phrase\n  name: "x"\n  say: "hello you"\n  target: "skill:nothing"\n@end\n' >serenamaster.commands.ftai
    try ftai-validate serenamaster.commands.ftai
    ended 1
    grep -q "^serenamaster.commands.ftai:7:1: error: .*skill:nothing.*\[spec\]" "$T/out"
}

@test "--fix --dry-run rewrites nothing" {
    md5sum ragged.ftai >before
    try ftai-validate --strict --fix --dry-run ragged.ftai
    ended 1
    same "$(cat "$T/err")" "ftai-validate: 'ragged.ftai' would be fixed: brace (1), unclosed (1)"
    grep -q '\[brace\]' "$T/out"
    md5sum --quiet -c before
}

# A repository with what stands in this tree now, as `repo:` of a pre-commit configuration names it.
published() {
    mkdir published
    (cd "$root" && git ls-files -coz --exclude-standard | tar -c --null --files-from=- --ignore-failed-read 2>/dev/null) | tar -x -C published
    git -C published init -q
    git -C published add -A
    git -C published commit -qm "as it is"
}

@test "pre-commit runs it from a second repository" {
    [ -x "$root/.venv/bin/pre-commit" ] || skip "SKIPPED: no pre-commit here; make test installs it"
    "$root/.venv/bin/pip" download -q --no-deps -d probe hatchling 2>/dev/null || skip "SKIPPED: no package index can be reached"
    export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x@x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x@x PRE_COMMIT_HOME=$T/cache
    published
    git init -q second
    cd second
    printf 'repos:\n  - repo: %s\n    rev: %s\n    hooks:\n      - id: ftai-validate\n        args: [--strict]\n' \
        "$T/published" "$(git -C ../published rev-parse HEAD)" >.pre-commit-config.yaml
    pre-commit install >/dev/null
    cp ../good.ftai .
    echo "@banana is text here" >notes.md
    git add -A
    try git commit -qm "good"
    ended 0
    cp ../unknown.ftai .
    git add -A
    try git commit -qm "bad"
    ended 1
    cat "$T/out" "$T/err" | grep -q "unknown.ftai:7:1: error: unknown tag '@banana'"
    same "$(cat "$T/out" "$T/err" | grep -c 'good.ftai\|notes.md')" 0
    same "$(git log --oneline | wc -l)" 1
}
