#!/usr/bin/env bats
# What ftai(7) promises of every command, tried on every command of bin/.

load helper

ID=0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e
REC='{"@tag":"x_note","id":"'$ID'","ts":"2026-11-22T13:25:00.041Z","thread":"'$ID'","body":"hello é"}'

setup_file() {
    # The stages' own tests measure coverage; here it would only make each of two thousand starts three times as long.
    unset COVERAGE_PROCESS_START
    export FILTERS STAGES PASSERS OTHERS
    STAGES=$(stages) FILTERS=$(filters)
    # Filters whose output is the records they read; the others write for people.
    PASSERS=$(grep -vxE 'ftai-(show|validate)' <<<"$FILTERS")
    OTHERS=$(grep -vxF "$FILTERS" <<<"$STAGES")
}

# Runs a check for each of some stages, with a folder and a home of its own; fails at the end if one failed.
each() {
    local check=$1 bad="" top=$T stage code
    shift
    [ $# -gt 0 ] || { echo "no stage to check"; return 1; }
    for stage; do
        mkdir -p "$top/$stage"
        set +e
        (
            set -e
            cd "$top/$stage"
            T=$PWD FTAI_HOME=$PWD/ftai
            "$check" "$stage"
        )
        code=$?
        set -e
        [ $code -eq 0 ] || { echo "--- $stage: $check failed"; bad+=" $stage"; }
    done
    [ -z "$bad" ] || { echo "failed:$bad"; return 1; }
}

# Arguments with which a command that is no filter does something harmless.
words() {
    case $1 in
    ftai-listen | ftai-run | ftai-recall) echo hello ;;
    ftai-archive) echo stats ;;
    ftai-keys | ftai-queue) echo list ;;
    ftai-report) echo cost ;;
    ftai-why) echo "$ID" ;;
    # Without, it starts all the others.
    ftai-doctor) echo --storage ;;
    ftai-rotate) ;;
    *) echo "contract.bats: say how '$1' is run" >&2 && return 1 ;;
    esac
}

drive() { "$root/.venv/bin/python" "$root/tests/stages/drive.py" "$@"; }
# These stand on lines of their own: in `a && b` a failing `a` would not stop a check.
sane() { ! grep -qE 'Traceback|a bug in the program' "$T/err" || { cat "$T/err"; return 1; }; }
message() { grep -q "^$1: .*$2" "$T/err" || { echo "expected '$1: …$2…' on stderr, seen:"; cat "$T/err"; return 1; }; }

@test "every command is a filter, or this test knows how to run it" {
    [ -n "$FILTERS" ]
    each words $OTHERS
}

help_is_short() {
    try "$1" --help </dev/null
    ended 0
    empty "$T/err"
    same "$(head -n 1 "$T/out" | cut -d' ' -f1-2)" "Usage: $1"
    [ "$(wc -l <"$T/out")" -lt 60 ]
    same "$("$1" -h)" "$(cat "$T/out")"
}
@test "--help" { each help_is_short $STAGES; }

version_is_told() {
    try "$1" --version </dev/null
    ended 0
    same "$(cat "$T/out")" "$1 $(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$root/lib/serenamaster/__init__.py")"
}
@test "--version" { each version_is_told $STAGES; }

unknown_option() {
    try "$1" --nonsense </dev/null
    ended 2
    empty "$T/out"
    message "$1" "'--nonsense'"
    grep -q '^hint: ' "$T/err"
}
@test "an unknown option: 2" { each unknown_option $STAGES; }

help_on_full_disk() {
    rc=0
    "$1" --help >/dev/full 2>"$T/err" || rc=$?
    ended 74
    message "$1" "cannot write"
}
@test "--help on a full disk: 74" {
    [ -e /dev/full ] || skip "no /dev/full here"
    each help_on_full_disk $STAGES
}

nothing() {
    try "$1" </dev/null
    ended 0
    empty "$T/out"
    empty "$T/err"
    printf '\n \n' >blank
    try "$1" blank
    ended 0
    empty "$T/out"
}
@test "empty input: nothing, 0" { each nothing $(grep -vxE 'ftai-(parse|validate)' <<<"$FILTERS"); }

neither_form() {
    try "$1" <<<"just words"
    ended 65
    empty "$T/out"
    message "$1" "'standard input'"
    grep -q '^hint: ' "$T/err"
    head -c 5000 /dev/zero | tr '\0' '\1' >binary
    try "$1" binary
    ended 65
    empty "$T/out"
    message "$1" "'binary'"
}
@test "input in no form of a record: 65" { each neither_form $(grep -vxE 'ftai-(parse|validate)' <<<"$FILTERS"); }

bad_line() {
    { echo "$REC"; echo '{"@tag":"x_note","secret":hunter2}'; echo "$REC"; } >in
    try "$1" <in
    ended 1
    sane
    message "$1" "standard input:2"
    same "$(sed 2d "$T/out")" "$REC"$'\n'"$REC"
    sed -n 2p "$T/out" | grep -q '^{"@tag":"error",.*"class":"input"'
    same "$(grep -l hunter2 "$T/out" "$T/err")" ""
}
@test "a bad line: an error record in its place, the rest passes, 1" { each bad_line $PASSERS; }

bad_line_for_people() {
    { echo "$REC"; echo '{"@tag":'; echo "$REC"; } >in
    try "$1" in
    ended 1
    sane
    [ "$1" = ftai-validate ] || message "$1" "in:2"
}
@test "a bad line: named, 1" { each bad_line_for_people $FILTERS; }

strict_stops() {
    "$1" --help | grep -q -e --strict || return 0
    { echo "$REC"; echo '{"@tag":'; echo "$REC"; } >in
    try "$1" --strict in
    ended 1
    sane
    message "$1" "in:2"
    [ "$1" = ftai-show ] || same "$(cat "$T/out")" "$REC"
}
@test "--strict stops at the first bad line, after the good ones before it" { each strict_stops $(grep -vxE 'ftai-(parse|validate)' <<<"$FILTERS"); }

same_bytes() {
    {
        echo "$REC"
        # Spelled as no writer of ours would; history; unknown tags; blocks and types.
        echo '{ "@tag": "x_a", "id":"'$ID'", "ts":"t", "thread":"t", "n": 1.50, "b": "\u00e9\/" }'
        echo '{"@tag":"command","id":"'$ID'","ts":"t","thread":"t","body":"remember to sleep","@blocks":[{"@tag":"chain","seq":1,"salt":"00","hash":"00"}]}'
        echo '{"@tag":"route","id":"'$ID'","ts":"t","thread":"t","target":"skill:status","@blocks":[{"@tag":"chain","seq":2,"salt":"00","hash":"00"}]}'
        echo '{"@tag":"x_b","id":"'$ID'","ts":"t","thread":"t","@head":"h","list":[1,[true,"a"]],"@blocks":[{"@tag":"note","@text":"x"},{"@text":"y"}]}'
        echo "$REC"
    } >in
    # Each id only once, or the journal would see a conflict.
    awk -v n=0 '{ n++; gsub(/5b6c7d8e/, sprintf("5b6c7%03d", n)); print }' in >ids
    try "$1" <ids
    ended 0
    sane
    cmp ids "$T/out"
}
@test "records pass as the same bytes, in order" { each same_bytes $PASSERS; }

text_form() {
    printf '@ftai v2.0\n\n@x_note\n  id: "%s"\n  ts: "t"\n  thread: "t"\n  body: "hello"\n@end\n' $ID >in
    try "$1" in
    sane
    [ "$1" = ftai-validate ] || ended 0
    [ "$1" = ftai-validate ] || grep -q hello "$T/out"
    [[ "$PASSERS" != *"$1"* ]] || grep -qxF '{"@tag":"x_note","id":"'$ID'","ts":"t","thread":"t","body":"hello"}' "$T/out"
}
@test "the text form is read as well" { each text_form $FILTERS; }

files_in_order() {
    echo "$REC" >a
    sed 's/5b6c7d8e/5b6c7d8f/' a >b
    sed 's/5b6c7d8e/5b6c7d90/' a >c
    try "$1" a - c <b
    ended 0
    cat a b c | cmp - "$T/out"
}
@test "FILEs and - are read in order" { each files_in_order $PASSERS; }

missing_file() {
    try "$1" none
    ended 66
    empty "$T/out"
    message "$1" "'none'"
    mkdir folder
    try "$1" folder
    ended 65
    empty "$T/out"
    message "$1" "'folder'"
    echo "$REC" >good
    try "$1" none good
    [ "$rc" -ne 0 ]
    message "$1" "'none'"
    [[ "$PASSERS" != *"$1"* ]] || cmp good "$T/out"
}
@test "a missing FILE: 66; a folder: 65; others are still read" { each missing_file $FILTERS; }

closed_input() {
    rc=0
    "$1" <&- >"$T/out" 2>"$T/err" || rc=$?
    ended 66
    empty "$T/out"
    sane
}
@test "a closed standard input: 66" { each closed_input $FILTERS; }

closed_output() {
    rc=0
    "$1" <<<"$REC" >&- 2>"$T/err" || rc=$?
    ended 74
    sane
    message "$1" "cannot write"
}
@test "a closed standard output: 74" { each closed_output $(grep -vx ftai-validate <<<"$FILTERS"); }

closed_output_of_others() {
    rc=0
    "$1" $(words "$1") </dev/null >&- 2>"$T/err" || rc=$?
    sane
    [ "$rc" -ne 70 ]
}
@test "a closed standard output of what is no filter is no bug" { each closed_output_of_others $OTHERS; }

closed_talk() {
    rc=0
    { echo "$REC"; echo '{'; } | "$1" >"$T/out" 2>&- || rc=$?
    [ "$rc" -eq 1 ]
    [[ "$PASSERS" != *"$1"* ]] || same "$(head -n 1 "$T/out")" "$REC"
}
@test "a closed stderr stops no work" { each closed_talk $FILTERS; }

full_disk() {
    rc=0
    "$1" <<<"$REC" >/dev/full 2>"$T/err" || rc=$?
    ended 74
    sane
    message "$1" "cannot write"
}
@test "a full disk on standard output: 74" {
    [ -e /dev/full ] || skip "no /dev/full here"
    each full_disk $(grep -vx ftai-validate <<<"$FILTERS")
}

both_full() {
    local rc=0
    "$1" <<<"$REC" >/dev/full 2>/dev/full || rc=$?
    [ "$rc" -eq 74 ] || { echo "$1: $rc"; return 1; }
}

@test "standard output and standard error on one full disk: 74" {
    [ -e /dev/full ] || skip "no /dev/full here"
    each both_full $(grep -vx ftai-validate <<<"$FILTERS")
}

full_disk_of_others() {
    rc=0
    "$1" $(words "$1") </dev/null >/dev/full 2>"$T/err" || rc=$?
    sane
    # What had nothing to say did not fail.
    "$1" $(words "$1") </dev/null >"$T/out" 2>/dev/null || true
    [ ! -s "$T/out" ] || ended 74
}
@test "a full disk on standard output of what is no filter: 74" {
    [ -e /dev/full ] || skip "no /dev/full here"
    each full_disk_of_others $OTHERS
}

reader_gone() {
    yes "$REC" 2>/dev/null | head -n 20000 >in
    set +o pipefail
    { rc=0; "$1" in 2>"$T/err" || rc=$?; echo $rc >code; } | head -n 1 >"$T/out"
    rc=$(cat code)
    ended 141
    empty "$T/err"
}
@test "the reader goes away: 141, in silence" { each reader_gone $(grep -vxE 'ftai-(log|validate)' <<<"$FILTERS"); }

signalled() {
    rc=0
    drive signal "$2" "$1" <<<"$REC" >"$T/out" 2>"$T/err" || rc=$?
    ended "$3"
    empty "$T/err"
}
terminated() { signalled "$1" TERM 143; }
interrupted() { signalled "$1" INT 130; }
@test "SIGTERM: 143, in silence" { each terminated $FILTERS; }
@test "SIGINT: 130, in silence" { each interrupted $(grep -vx ftai-log <<<"$FILTERS"); }

on_terminal() {
    rc=0
    drive tty-in "$1" >"$T/out" 2>"$T/err" </dev/null || rc=$?
    ended 2
    empty "$T/out"
    grep -q '^hint: ' "$T/err"
}
@test "a terminal on standard input and no FILE: usage, 2" { each on_terminal $FILTERS; }

same_on_terminal() {
    echo "$REC" >in
    rc=0
    TERM=xterm-256color drive tty-out env -u NO_COLOR "$1" in >"$T/out" 2>"$T/err" || rc=$?
    ended 0
    cmp in "$T/out"
}
@test "the same bytes on a terminal" { each same_on_terminal $PASSERS; }

prompt_enough() {
    rc=0
    { echo "$REC"; sed 's/5b6c7d8e/5b6c7d8f/' <<<"$REC"; } | drive prompt "$1" >"$T/out" 2>"$T/err" || rc=$?
    ended 0
    [ "$(wc -l <"$T/out")" -eq 2 ]
}
@test "what was read goes out while the input is still open" { each prompt_enough $(grep -vx ftai-validate <<<"$FILTERS"); }

long_line() {
    {
        echo "$REC"
        printf '{"@tag":"x_note","body":"'
        head -c $((17 * 1024 * 1024)) /dev/zero | tr '\0' x
        echo '"}'
        sed 's/5b6c7d8e/5b6c7d8f/g' <<<"$REC"
    } >in
    try "$1" in
    ended 1
    sane
    [ "$(wc -c <"$T/out")" -lt 100000 ]
    [[ "$PASSERS" != *"$1"* ]] || same "$(sed 2d "$T/out")" "$REC"$'\n'"${REC//5b6c7d8e/5b6c7d8f}"
}
@test "a line of 17 MiB is refused and skipped" { each long_line $FILTERS; }

bare_environment() {
    echo "$REC" >in
    rc=0
    env -i "PATH=$root/.venv/bin:/usr/bin:/bin" "FTAI_HOME=$FTAI_HOME" "$root/bin/$1" in >"$T/out" 2>"$T/err" || rc=$?
    ended 0
    sane
    [[ "$PASSERS" != *"$1"* ]] || cmp in "$T/out"
}
@test "env -i, as cron starts it" { each bare_environment $(grep -vx ftai-validate <<<"$FILTERS"); }

bare_environment_of_others() {
    rc=0
    env -i "PATH=$root/.venv/bin:/usr/bin:/bin" "FTAI_HOME=$FTAI_HOME" "$root/bin/$1" $(words "$1") </dev/null >"$T/out" 2>"$T/err" || rc=$?
    sane
    [ "$rc" -le 1 ]
}
@test "env -i, what is no filter" { each bare_environment_of_others $OTHERS; }

other_python() {
    rc=0
    env -i PATH=/usr/bin:/bin "FTAI_HOME=$FTAI_HOME" "$root/bin/$1" --version </dev/null >"$T/out" 2>"$T/err" || rc=$?
    ended 0
}
@test "a python3 without our packages: the clone's own is taken" {
    [ -x "$root/.venv/bin/python" ] || skip "no .venv in this clone"
    env -i PATH=/usr/bin:/bin python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || skip "no Python 3.11 in /usr/bin"
    each other_python $STAGES
}

homeless() {
    echo "$REC" >in
    rc=0
    env -u HOME -u FTAI_HOME XDG_{STATE,CONFIG,CACHE,DATA}_HOME="$T/xdg" "$1" ${2-in} </dev/null >"$T/out" 2>"$T/err" || rc=$?
    sane
    [ "$rc" -le 1 ]
}
homeless_others() { homeless "$1" "$(words "$1")"; }
@test "no HOME" {
    each homeless $FILTERS
    each homeless_others $OTHERS
}

linked() {
    local stage=$1
    ln -s "$root/bin/$stage" "$stage"
    rc=0
    (cd / && "$T/$stage" "${@:2}" </dev/null >"$T/out" 2>"$T/err") || rc=$?
    sane
    [ "$rc" -le 1 ]
}
linked_filter() {
    echo "$REC" >in
    linked "$1" "$T/in"
    [[ "$PASSERS" != *"$1"* ]] || cmp in "$T/out"
}
linked_others() { linked "$1" $(words "$1"); }
@test "started from a symbolic link" {
    each linked_filter $FILTERS
    each linked_others $OTHERS
}

private_files() {
    echo "$REC" >in
    (umask 0; "$1" ${2-in} </dev/null >/dev/null 2>"$T/err") || true
    sane
    [ ! -e "$FTAI_HOME" ] || same "$(find "$FTAI_HOME" -perm /077)" ""
}
private_files_of_others() { private_files "$1" "$(words "$1")"; }
@test "under umask 0 its files are still the user's alone" {
    each private_files $FILTERS
    each private_files_of_others $OTHERS
}

leaves_input() {
    echo untouched >in
    { "$1" $(words "$1") >/dev/null 2>"$T/err" || true; cat >rest; } <in
    sane
    cmp in rest
}
@test "what is no filter leaves standard input alone" { each leaves_input $OTHERS; }

no_color() {
    TERM=xterm-256color "$1" ${2---help} </dev/null >"$T/out" 2>"$T/err" || true
    same "$(grep -l $'\033' "$T/out" "$T/err")" ""
}
@test "no colour in a pipe" {
    unset NO_COLOR
    each no_color $STAGES
    each_nonsense() { no_color "$1" --nonsense; }
    each each_nonsense $STAGES
}

@test "control: a command that does nothing right fails every check" {
    mkdir wrong
    printf '#!/bin/sh\necho Traceback >&2\necho wrong\nexit 3\n' >wrong/ftai-wrong
    chmod +x wrong/ftai-wrong
    PATH=$T/wrong:$PATH PASSERS=ftai-wrong
    for check in help_is_short version_is_told unknown_option help_on_full_disk nothing neither_form bad_line bad_line_for_people \
        same_bytes text_form files_in_order missing_file closed_input closed_output closed_talk full_disk reader_gone terminated interrupted \
        on_terminal same_on_terminal prompt_enough long_line homeless private_files bare_environment other_python linked_filter; do
        # Not `run`: within it `set -e` means nothing.
        set +e
        (each $check ftai-wrong) >seen 2>&1
        code=$?
        set -e
        [ $code -ne 0 ] || { echo "$check cannot fail"; return 1; }
    done
}
