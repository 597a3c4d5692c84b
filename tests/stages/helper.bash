# Every .bats file here begins with `load helper`. A file with a setup() of its own calls `scratch` in it.
# What a setup_file() makes in $T behind `scratch` is in the folder of each test of its file from the beginning.
# $T is the test's own folder, $FTAI_HOME stands in it; `try` runs a command and leaves $rc, $T/out and $T/err.

bats_require_minimum_version 1.5.0
root=$(cd "$BATS_TEST_DIRNAME/../.." && pwd -P)

scratch() {
    T=${BATS_TEST_TMPDIR-$BATS_FILE_TMPDIR/begun}
    # PYTHONUNBUFFERED would hide a flush that is missing.
    unset PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE PYTHONPATH ${!FTAI_@} ${!XDG_@} FORCE_COLOR CLICOLOR_FORCE
    export FTAI_HOME=$T/ftai HOME=$T/home PATH=$root/bin:$root/.venv/bin:$PATH NO_COLOR=1 TZ=UTC LC_ALL=C.UTF-8
    mkdir -p "$HOME"
    cd "$T" || return
    [ -z "${BATS_TEST_TMPDIR-}" ] || [ ! -e "$BATS_FILE_TMPDIR/begun" ] || cp -a "$BATS_FILE_TMPDIR/begun/." .
}

setup() { scratch; }

# Runs a command: its status in $rc, what it wrote in $T/out and $T/err. Never fails itself.
try() {
    rc=0
    "$@" >"$T/out" 2>"$T/err" || rc=$?
}

# Fails with what was seen unless the last `try` ended with this status.
ended() {
    [ "$rc" -eq "$1" ] && return
    echo "status $rc, expected $1; stderr:"
    cat "$T/err"
    return 1
}

# Fails unless two values are the same, and shows them.
same() {
    [ "$1" = "$2" ] && return
    printf 'expected: %s\nseen:     %s\n' "$2" "$1"
    return 1
}

# Fails unless file $1 is empty, and shows its head.
empty() {
    [ ! -s "$1" ] && return
    echo "expected nothing in ${1##*/}:"
    head -c 500 "$1"
    return 1
}

# $1 times $2 and a line end: bats looks at each command of a loop, which makes one of thousands take a minute.
lines() (
    set +o pipefail
    yes "$2" 2>/dev/null | head -n "$(($1 * $(wc -l <<<"$2")))"
)

# Waits until a command succeeds, at most five minutes: for what another process does in its own time.
until_true() {
    local n
    for ((n = 0; n < 6000; n++)); do
        "$@" && return
        sleep 0.05
    done
    echo "never came true: $*"
    return 1
}

# Goes where it is about noon, so that no midnight comes between what a test has written and what it calls today.
to_noon() { export TZ && TZ=Etc/GMT$(printf %+d $((10#$(date -u +%H) - 12))); }

# ftai-doctor with one stage beside it: of those it starts each three times, which would take longer than all else it does.
doctor() {
    [ -e "$T/few" ] || { mkdir -p "$T/few/bin" && cp "$root"/bin/ftai-{doctor,show} "$T/few/bin" && ln -s "$root/lib" "$root/specs" "$T/few"; }
    "$T/few/bin/ftai-doctor" "$@"
}

stages() { (cd "$root/bin" && ls ftai-*); }

# Stages that take FILEs and read records or documents, by what their own usage line says.
filters() {
    local stage
    for stage in $(stages); do
        "$root/bin/$stage" --help </dev/null 2>/dev/null | grep -q '^Usage: .*\[FILE\.\.\.\]$' && echo "$stage"
    done
    return 0
}
