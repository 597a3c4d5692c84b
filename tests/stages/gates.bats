#!/usr/bin/env bats
# The gates of the release spec, as `make release-check` runs them: what the spec says is what is done.

load helper

gates() { "$root/.venv/bin/python" "$root/tests/gates.py"; }

# Turns every shipped gate off and adds these.
only() {
    mkdir -p "$FTAI_HOME/config"
    {
        printf '@ftai v2.0\n'
        sed -n '/^@gate/,/^@end/s/^  name: \(.*\)/@gate\n  name: \1\n  off: true\n@end/p' "$root/specs/serenamaster.release.ftai"
        cat
    } >"$FTAI_HOME/config/serenamaster.release.ftai"
}

@test "gates: an owner's gate counts, and a shipped one that is off does not" {
    only <<<'@gate
  name: "holds"
  summary: "says hello"
  run: ["echo", "hello {version}"]
  contains: "hello 0."
@end'
    try gates
    ended 0
    same "$(tail -n 1 "$T/out")" "1 passed, 0 failed"
}

@test "gates: one that does not hold is named with its place, the others are still tried, status 1" {
    only <<<'@gate
  name: "status"
  summary: "fails"
  run: ["sh", "-c", "echo why; exit 3"]
@end
@gate
  name: "words"
  summary: "says something else"
  run: ["echo", "bye"]
  contains: "hello"
@end
@gate
  name: "time"
  summary: "takes too long"
  run: ["sleep", "60"]
  timeout: 0.2
@end
@gate
  name: "there"
  summary: "is no program"
  run: ["no-such-program"]
@end
@gate
  name: "three"
  summary: "is to end with 3"
  run: ["sh", "-c", "exit 3"]
  expect: 3
@end'
    try gates
    ended 1
    same "$(tail -n 1 "$T/out")" "1 passed, 4 failed"
    grep -q 'serenamaster.release.ftai:[0-9]*: status 3, expected 0' "$T/out"
    grep -q "does not contain 'hello'" "$T/out"
    grep -q 'not done after 0.2 s' "$T/out"
    grep -q "cannot run 'no-such-program'" "$T/out"
}

@test "gates: a broken spec is 78, with its line" {
    only <<<'@gate
  name: "x"
  sumary: "x"
  run: ["true"]
@end'
    try gates
    ended 78
    grep -q 'serenamaster.release.ftai:[0-9]*' "$T/err"
}
