#!/usr/bin/env bats
# From a fresh clone, from an installed wheel, from `make install`, from cron: the main job works, and what was installed goes away again.

load helper

setup_file() {
    # The second test goes on with the clone that the first has set up.
    export BATS_NO_PARALLELIZE_WITHIN_FILE=true
    # A clone without what its owner never committed.
    clone=$BATS_FILE_TMPDIR/clone
    mkdir "$clone"
    (cd "$BATS_TEST_DIRNAME/../.." && tar cf - --exclude=__pycache__ bin lib specs man completions Makefile pyproject.toml hatch_build.py README.md) | tar xf - -C "$clone"
    export clone
}

setup() {
    scratch
    unset MAKEFLAGS MAKELEVEL
}

# The main job as a person types it, with nothing but these folders on the PATH.
main_job() {
    env -i "PATH=$1:/usr/bin:/bin" "HOME=$T/home" "FTAI_HOME=$FTAI_HOME" bash -o pipefail -c '
        ftai-listen "remember to send the invoice tomorrow" | ftai-route | ftai-exec | ftai-log | ftai-show -a &&
        ftai-recall invoice | ftai-show && ftai-log --verify && ftai-run "what did I work on today"'
}

check_main_job() {
    try main_job "$1"
    ended 0
    empty "$T/err"
    grep -qi 'invoice' "$T/out"
}

# Each command of bin/ has its page and its completions below this share/.
check_share() {
    local stage
    for stage in $(stages); do
        for file in man/man1/$stage.1 bash-completion/completions/$stage zsh/site-functions/_$stage fish/vendor_completions.d/$stage.fish; do
            [ -s "$1/$file" ] || { echo "missing: $file"; return 1; }
        done
    done
    [ -s "$1/man/man5/ftai.5" ]
    [ -s "$1/man/man7/ftai.7" ]
}

@test "make run in a fresh clone sets up .venv once, shows records and answer, and leaves the home alone" {
    cd "$clone"
    env -u FTAI_HOME make run >"$T/out" 2>"$T/err"
    grep -q '^setting up .venv' "$T/out"
    grep -q ' command ' "$T/out"
    grep -q ' result ' "$T/out"
    [ -z "$(find "$T/home" -name ftai)" ]
    [ -s .run/last.ndjson ]
    env -u FTAI_HOME make run ASK="what's \"in\" \$HOME; nothing" >"$T/out" 2>"$T/err"
    same "$(grep -c 'setting up' "$T/out")" 0
    grep -qF "what's \"in\" \$HOME; nothing" "$T/out"
}

@test "a fresh clone's stages find its .venv by themselves" {
    [ -x "$clone/.venv/bin/python" ] || skip "the clone was not set up"
    env -i PATH=/usr/bin:/bin python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || skip "no Python 3.11 in /usr/bin"
    check_main_job "$clone/bin"
}

@test "the wheel works in a clean environment, with its pages and completions" {
    make -s -C "$root" wheel >"$T/log" 2>&1 || { cat "$T/log"; return 1; }
    "$root/.venv/bin/python" -m venv "$T/clean"
    "$T/clean/bin/python" -m pip install -q --disable-pip-version-check "$root"/dist/*.whl
    check_main_job "$T/clean/bin"
    check_share "$T/clean/share"
    same "$(ls "$T/clean/bin" | grep ^ftai-)" "$(stages)"
}

@test "make install into a PREFIX below DESTDIR, and uninstall takes all of it away" {
    mkdir -p "$T/stage/opt/ftai/bin"
    echo theirs >"$T/stage/opt/ftai/bin/ftai-theirs"
    make -s -C "$root" install PREFIX=/opt/ftai DESTDIR="$T/stage" >"$T/log" 2>&1 || { cat "$T/log"; return 1; }
    check_main_job "$T/stage/opt/ftai/bin"
    check_share "$T/stage/opt/ftai/share"
    same "$(grep -rl "$T/stage" "$T/stage/opt/ftai" --include='*' | grep -v '/packages/' || true)" ""
    make -s -C "$root" uninstall PREFIX=/opt/ftai DESTDIR="$T/stage"
    same "$(find "$T/stage" -type f -o -type l)" "$T/stage/opt/ftai/bin/ftai-theirs"
}

@test "uninstall where nothing is installed says so" {
    try make -s -C "$root" uninstall PREFIX=/opt/ftai DESTDIR="$T/nowhere"
    [ "$rc" -ne 0 ]
    grep -q "nothing of ours" "$T/err"
}

@test "from cron: no HOME, no TERM, no terminal, a closed standard input" {
    line="cd / && echo 'remember to water the plants' | $root/bin/ftai-listen - --via cron | $root/bin/ftai-route | $root/bin/ftai-exec | $root/bin/ftai-log --sink"
    try env -i "PATH=$root/.venv/bin:/usr/bin:/bin" SHELL=/bin/sh "FTAI_HOME=$FTAI_HOME" setsid bash -o pipefail -c "$line" <&-
    ended 0
    empty "$T/out"
    empty "$T/err"
    try ftai-log --verify
    ended 0
}

@test "started from symbolic links in a folder of the user's" {
    mkdir links
    for stage in $(stages); do ln -s "$root/bin/$stage" links; done
    env -i "PATH=$T/links:$root/.venv/bin:/usr/bin:/bin" "FTAI_HOME=$FTAI_HOME" ftai-run "remember the milk" >"$T/out"
    [ -s "$T/out" ]
}
