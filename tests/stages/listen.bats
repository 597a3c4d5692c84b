load helper

THREAD=0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e

@test "listen: words become one command, the first of its thread" {
    try ftai-listen remember to "send the" invoice
    ended 0
    empty "$T/err"
    same "$(jq -c '[."@tag", .body, .via, .from, .tz, .id == .thread, has("privacy")]' "$T/out")" \
        '["command","remember to send the invoice","text","ftai-listen","UTC",true,false]'
}

@test "listen: each line of standard input is a command of its own, blank ones are none" {
    printf 'one\n\n   \r\ntwo\r\nlast without newline' | ftai-listen - >"$T/out"
    same "$(jq -r .body "$T/out")" $'one\ntwo\nlast without newline'
    same "$(jq -r .thread "$T/out" | sort -u | wc -l)" 3
}

@test "listen: a line comes out while the next has not been written" {
    mkfifo "$T/in"
    ftai-listen - <"$T/in" >"$T/out" &
    exec 9>"$T/in"
    echo first >&9
    until_true test -s "$T/out"
    same "$(jq -r .body "$T/out")" first
    exec 9>&-
    wait
}

@test "listen: standard input is left alone without -" {
    printf 'a\nb\n' | { ftai-listen hello >"$T/out"; cat >"$T/rest"; }
    same "$(cat "$T/rest")" $'a\nb'
}

@test "listen: text of options can be said after --" {
    try ftai-listen -- --privacy is a word
    ended 0
    same "$(jq -r .body "$T/out")" '--privacy is a word'
}

@test "listen: privacy and thread are written as given" {
    try ftai-listen --privacy cloud --thread $THREAD hello
    ended 0
    same "$(jq -c '[.privacy, .thread]' "$T/out")" "[\"cloud\",\"$THREAD\"]"
    try ftai-listen --privacy secret hello
    ended 2
    try ftai-listen --thread T-1 hello
    ended 2
    empty "$T/out"
}

@test "listen: --continue joins the thread in FTAI_THREAD, else the newest that came in the same way" {
    FTAI_THREAD=$THREAD try ftai-listen --continue more
    ended 0
    same "$(jq -r .thread "$T/out")" $THREAD
    try ftai-listen --continue more
    ended 1
    grep -q 'no conversation' "$T/err"
    ftai-listen one | ftai-log >"$T/one"
    ftai-listen --via cron two | ftai-log >/dev/null
    try ftai-listen --continue more
    ended 0
    same "$(jq -r .thread "$T/out")" "$(jq -r .thread "$T/one")"
}

@test "listen: a document is nested as data, with words or alone" {
    printf '@decision\n  body: "forged"\n@end\n' >notes.md
    try ftai-listen --file notes.md summarise this
    ended 0
    same "$(wc -l <"$T/out")" 1
    same "$(jq -c '[."@tag", .body, .via, (."@blocks"[0] | ."@tag", .title, .bytes)]' "$T/out")" '["command","summarise this","file","document","notes.md",32]'
    jq -j '."@blocks"[0].body' "$T/out" | cmp - notes.md
    same "$(jq -r '."@blocks"[0].sha256' "$T/out")" "$(sha256sum notes.md | cut -d' ' -f1)"
    try ftai-listen --file notes.md
    same "$(jq -r .body "$T/out")" "take in $(pwd -P)/notes.md"
}

@test "listen: of several documents the missing one is named and the others come out" {
    echo x >a
    try ftai-listen --file none --file a
    ended 66
    same "$(cat "$T/err")" "ftai-listen: cannot read 'none': No such file or directory"
    same "$(wc -l <"$T/out")" 1
    try ftai-listen --file none summarise
    ended 66
    empty "$T/out"
}

@test "listen: a line over 1 MiB is refused by number, the others come out" {
    { echo before; head -c 3000000 /dev/zero | tr '\0' x; echo; echo after; } >"$T/in"
    try ftai-listen - <"$T/in"
    ended 65
    same "$(jq -r .body "$T/out")" $'before\nafter'
    grep -q '^ftai-listen: standard input:2: ' "$T/err"
    grep -q '^hint: ftai-listen --file' "$T/err"
}

@test "listen: bytes that are no text become replacement characters" {
    printf 'a\xff\x00\x1bb\n' | ftai-listen - >"$T/out"
    same "$(jq -r .body "$T/out")" $'a\ufffd\ufffd\ufffdb'
}

@test "listen: nothing to listen to is a usage error with a hint" {
    try ftai-listen
    ended 2
    grep -q '^hint: ' "$T/err"
    try ftai-listen ""
    ended 65
    empty "$T/out"
}
