load helper

# own NAME BODY: an owner's file, old enough to be cached.
own() {
    mkdir -p "$FTAI_HOME/config"
    printf '@ftai v2.0\n\n%s\n' "$2" >"$FTAI_HOME/config/serenamaster.$1.ftai"
    touch -d '10 seconds ago' "$FTAI_HOME/config/serenamaster.$1.ftai"
}

target() { ftai-listen "$1" | ftai-route | jq -r 'select(."@tag" == "route") | .target'; }

@test "specs: an owner's phrase counts at once, with a warm cache too" {
    same "$(target 'zap it')" ask
    own commands $'@phrase\n  name: "zap"\n  say: ["zap {what}"]\n  target: "skill:finish"\n@end'
    same "$(target 'zap it')" skill:finish
    same "$(target 'zap it')" skill:finish
    rm "$FTAI_HOME/config/serenamaster.commands.ftai"
    same "$(target 'zap it')" ask
}

@test "specs: a broken one ends who uses it with 78, file and line; others go on" {
    own commands $'@phrase\n  name: "zap"\n  say: ["zap"]\n  target: "skill:nosuch"\n@end'
    ftai-listen "what time is it" >"$T/in"
    try ftai-route "$T/in"
    ended 78
    empty "$T/out"
    grep -q "^ftai-route: $FTAI_HOME/config/serenamaster.commands.ftai:6: target 'skill:nosuch' does not exist" "$T/err"
    try ftai-show "$T/in"
    ended 0
    own commands ''
    own release $'@nosuch\n@end'
    same "$(target 'what time is it')" skill:time
}

@test "specs: they work read-only, without a home, and from another folder" {
    mkdir -m 700 -p "$FTAI_HOME"
    touch "$FTAI_HOME/cache"
    same "$(target 'what time is it')" skill:time
    same "$(cd / && ftai-listen 'what time is it' | env -i HOME=/nowhere PATH="$PATH" ftai-route | jq -r 'select(."@tag" == "route") | .target')" skill:time
}

@test "specs: the cache is private, whatever the umask, and rebuilt when spoilt" {
    (umask 000 && target 'what time is it')
    same "$(find "$FTAI_HOME/cache" -perm /077)" ""
    for file in "$FTAI_HOME"/cache/specs/*.json; do echo spoilt >"$file"; done
    same "$(target 'what time is it')" skill:time
    same "$(grep -l spoilt "$FTAI_HOME"/cache/specs/*.json)" ""
}

@test "specs: a project may turn off, and needs trust for more" {
    mkdir -p "$T/work/.ftai" "$T/work/deep"
    cd "$T/work/deep"
    printf '@ftai v2.0\n\n@phrase\n  name: "time"\n  off: true\n@end\n\n@phrase\n  name: "zap"\n  say: ["zap"]\n  target: "skill:status"\n@end\n' \
        >"$T/work/.ftai/serenamaster.commands.ftai"
    ftai-listen "what time is it" >"$T/in"
    try ftai-route "$T/in"
    ended 0
    same "$(jq -r 'select(."@tag" == "route") | .target' "$T/out")" ask
    grep -q "warning: .*serenamaster.commands.ftai:8: left out.*ftai-doctor trust" "$T/err"
    same "$(target zap)" ask
    try ftai-doctor trust "$T/work"
    ended 0
    same "$(target zap)" skill:status
    echo '// changed' >>"$T/work/.ftai/serenamaster.commands.ftai"
    same "$(target zap 2>/dev/null)" ask
    cd "$T"
    same "$(target 'what time is it')" skill:time
}

@test "specs: twenty at once with a cold cache all decide, and leave whole files" {
    ftai-listen "what time is it" >"$T/in"
    for n in $(seq 20); do ftai-route "$T/in" >"$T/out$n" & done
    wait
    same "$(cat "$T"/out* | jq -r 'select(."@tag" == "route") | .target' | sort | uniq -c | xargs)" "20 skill:time"
    same "$(find "$FTAI_HOME/cache" -name '*.tmp')" ""
    sleep 0.1
    same "$(target 'what time is it')" skill:time
}
