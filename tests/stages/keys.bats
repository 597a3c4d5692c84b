#!/usr/bin/env bats
# ftai-keys: keys, who may read them, and what the owner agreed to.

load helper

setup() {
    scratch
    unset DBUS_SESSION_BUS_ADDRESS
    # No value is written down here: each test makes its own.
    key=$(head -c 24 /dev/urandom | base64 | tr '+/' 'ab')
    new=$(head -c 24 /dev/urandom | base64 | tr '+/' 'ab')
}

keep() { printf '%s\n' "$1" | ftai-keys set weather >/dev/null; }

# A config spec of the owner's own, from standard input.
config() {
    mkdir -p -m 700 "$FTAI_HOME/config"
    { printf '@ftai v2.0\n'; cat; } >"$FTAI_HOME/config/serenamaster.config.ftai"
    chmod 600 "$FTAI_HOME/config/serenamaster.config.ftai"
}

# Fails where a value is in the clear in a file of ours, in what was written, or in what was said.
unseen() {
    local value
    for value; do
        ! grep -rlaF -- "$value" "$FTAI_HOME" "$T/out" "$T/err" || return 1
    done
}

acts() { jq -r 'select(."@tag" == "audit") | "\(.act) \(.subject) \(.outcome)"' "$@"; }

@test "set from standard input, get prints it alone, list does not" {
    try ftai-keys set weather <<<"$key"
    ended 0
    same "$(acts "$T/out")" $'key-set weather intended\nkey-set weather done'
    unseen "$key"
    try ftai-keys list
    ended 0
    same "$(jq -c 'select(.name == "weather") | [.source, .readers]' "$T/out")" '["file",[]]'
    unseen "$key"
    try ftai-keys get weather
    ended 0
    same "$(cat "$T/out")" "$key"
    empty "$T/err"
    try ftai-keys get -v weather
    same "$(cat "$T/err")" "ftai-keys: 'weather' came from file"
}

@test "set from a descriptor, and from a command without a shell" {
    try ftai-keys set weather --fd 3 3<<<"$key" </dev/null
    ended 0
    same "$(ftai-keys get weather)" "$key"
    printf '%s' "$new" >value
    try ftai-keys set weather --cmd "cat '$T/value'" </dev/null
    ended 0
    same "$(ftai-keys get weather)" "$new"
    rm value
    try ftai-keys set weather --cmd 'echo $HOME-is-not-replaced; true' </dev/null
    ended 0
    same "$(ftai-keys get weather)" '$HOME-is-not-replaced; true'
    try ftai-keys set weather --cmd false
    ended 69
    try ftai-keys set weather --cmd 'no-such-program-here'
    ended 69
    try ftai-keys set weather --cmd 'a "b'
    ended 2
    same "$(ftai-keys get weather)" '$HOME-is-not-replaced; true'
}

@test "set asks on a terminal, and shows nothing of what is typed" {
    "$root/.venv/bin/python" - "$key" >"$T/out" 2>"$T/err" <<'END'
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp("ftai-keys", ["ftai-keys", "set", "weather"])
seen = b""
while b"not shown" not in seen:
    seen += os.read(fd, 1000)
os.write(fd, sys.argv[1].encode() + b"\n")
try:
    while part := os.read(fd, 1000):
        seen += part
except OSError:
    pass
assert os.waitpid(pid, 0)[1] == 0
sys.stdout.buffer.write(seen)
END
    same "$(ftai-keys get weather)" "$key"
    unseen "$key"
}

@test "a value as an argument is refused, and not repeated" {
    try ftai-keys set weather "$key"
    ended 2
    grep -q '^hint: .*every process can read' "$T/err"
    unseen "$key"
    # In the place of the name, where it looks like a key.
    fake=sk-ant-api03-$(head -c 90 /dev/urandom | base64 -w0 | tr -dc 'A-Za-z0-9' | head -c 93)AA
    try ftai-keys set "$fake" <<<"$key"
    ended 2
    unseen "$fake"
    [ ! -e "$FTAI_HOME/state/journal" ]
}

@test "values that are none: 65" {
    for value in '' $'\n' short $'bad\x01control-character' $'\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xf7'; do
        try ftai-keys set weather < <(printf '%s' "$value")
        ended 65
    done
    try ftai-keys set weather < <(head -c 70000 /dev/zero | tr '\0' x)
    ended 65
    try ftai-keys get weather
    ended 69
}

@test "no key: 69, and every source says why" {
    try ftai-keys get anthropic
    ended 69
    empty "$T/out"
    grep -q 'keychain: .*file: .*environment: ANTHROPIC_API_KEY' "$T/err"
    same "$(ftai-keys audit | acts)" "key-read anthropic failed"
    try env ANTHROPIC_API_KEY="$key" ftai-keys get anthropic -v
    ended 0
    same "$(cat "$T/out")" "$key"
    grep -q 'came from environment' "$T/err"
}

@test "readers: granted, revoked, refused and on record" {
    keep "$key"
    try ftai-keys get weather --reader ftai-exec
    ended 77
    empty "$T/out"
    try ftai-keys get weather --reader ""
    ended 2
    empty "$T/out"
    ftai-keys grant weather ftai-exec >/dev/null
    ftai-keys grant weather agent:cfo >/dev/null
    try ftai-keys get weather --reader ftai-exec
    ended 0
    same "$(cat "$T/out")" "$key"
    same "$(ftai-keys list | jq -c 'select(.name == "weather") | .readers')" '["agent:cfo","ftai-exec"]'
    ftai-keys revoke weather ftai-exec >/dev/null
    try ftai-keys get weather --reader ftai-exec
    ended 77
    ftai-keys audit >"$T/audit"
    same "$(acts "$T/audit" | grep read)" $'key-read weather refused\nkey-read weather done\nkey-read weather refused'
    grep -q "'ftai-exec' is none of its readers" "$T/audit"
    # Those of the spec count where nobody was granted.
    same "$(ANTHROPIC_API_KEY=$key ftai-keys get anthropic --reader ftai-exec)" "$key"
    ANTHROPIC_API_KEY=$key try ftai-keys get anthropic --reader ftai-show
    ended 77
}

@test "rotate keeps the old one for its time of grace" {
    keep "$key"
    try ftai-keys rotate weather <<<"$new"
    ended 0
    same "$(acts "$T/out")" $'key-rotate weather intended\nkey-rotate weather done'
    same "$(ftai-keys get weather)" "$new"
    [ -n "$(ftai-keys list | jq -r 'select(.name == "weather") | .until')" ]
    unseen "$key" "$new"
    # Both are known wherever they turn up, until the old one is gone.
    echo "{\"@tag\":\"note\",\"body\":\"$key $new\"}" | ftai-log --sink
    unseen "$key" "$new"
    try ftai-keys rotate weather <<<"$new"
    ended 65
    try ftai-keys rotate nothing <<<"$new"
    ended 69
}

@test "rotate --due removes what is past its grace" {
    config <<'END'
@key
  name: "weather"
  summary: "t"
  grace: 0
@end
END
    keep "$key"
    ftai-keys rotate weather <<<"$new" >/dev/null
    try ftai-keys rotate --due --dry-run
    ended 0
    grep -q "would remove an old key 'weather'" "$T/err"
    try ftai-keys rotate --due
    ended 0
    same "$(acts "$T/out")" $'key-expire weather intended\nkey-expire weather done'
    try ftai-keys rotate --due
    ended 0
    empty "$T/out"
    same "$(ftai-keys get weather)" "$new"
    # It is no secret any more.
    echo "{\"@tag\":\"note\",\"body\":\"the old one $key\"}" | ftai-log --sink
    grep -qF "$key" "$FTAI_HOME/state/journal/current.ftai"
}

@test "rotate --due rotates by its command, and alerts where there is none" {
    config <<END
@key
  name: "weather"
  summary: "t"
  max_age: 0
  rotate_cmd: ["cat", "$T/next"]
@end

@key
  name: "other"
  summary: "t"
  max_age: 0
@end
END
    printf '%s\n' "$new" >next
    keep "$key"
    ftai-keys set other <<<"$key" >/dev/null
    try ftai-keys rotate --due --dry-run
    ended 0
    empty "$T/out"
    grep -q "would rotate 'weather'" "$T/err"
    grep -q "would write an alert about 'other'" "$T/err"
    try ftai-keys rotate --due
    ended 1
    same "$(jq -r 'select(."@tag" == "alert") | "\(.rule) \(.subject) \(.limit)"' "$T/out")" "key-age other 0"
    rm next
    same "$(ftai-keys get weather)" "$new"
    unseen "$key" "$new"
    same "$(ftai-recall --tag alert -C 0 | jq -r .subject)" other
    try doctor
    grep -q "^warn  keys: 'other' is 0 days old, 0 are allowed" "$T/out"
    # One that fails is told, and is overdue still.
    try ftai-keys rotate --due
    ended 1
    same "$(jq -r 'select(."@tag" == "alert") | .subject' "$T/out" | sort)" $'other\nweather'
}

@test "a second key is set and removed; nothing is left" {
    keep "$key"
    keep "$new"
    same "$(ftai-keys get weather)" "$new"
    try ftai-keys remove weather
    ended 0
    same "$(acts "$T/out")" $'key-remove weather intended\nkey-remove weather done'
    try ftai-keys get weather
    ended 69
    try ftai-keys remove weather
    ended 69
}

@test "--dry-run changes nothing" {
    keep "$key"
    find "$FTAI_HOME" -type f -exec sha256sum {} + | grep -v cache | sort >"$T/before"
    for words in "set weather" "set other" "rotate weather" "rotate --due" "remove weather" "grant weather x" "revoke weather x" \
        "consent grant anthropic" "consent withdraw anthropic"; do
        try ftai-keys $words --dry-run </dev/null
        ended 0
        empty "$T/out"
    done
    find "$FTAI_HOME" -type f -exec sha256sum {} + | grep -v cache | sort | cmp - "$T/before"
}

@test "nothing is done that can't be journaled" {
    keep "$key"
    ftai-keys consent grant anthropic >/dev/null
    rm -r "$FTAI_HOME/state/journal"
    touch "$FTAI_HOME/state/journal"
    for words in "set weather" "rotate weather" "remove weather" "grant weather x" "consent withdraw anthropic" "get weather"; do
        try ftai-keys $words <<<"$new"
        [ "$rc" -eq 73 ] || [ "$rc" -eq 74 ] || ended 73
        empty "$T/out"
    done
    rm "$FTAI_HOME/state/journal"
    same "$(ftai-keys get weather)" "$key"
    same "$(ftai-keys list | jq -c 'select(.name == "weather") | .readers')" '[]'
    same "$(ftai-keys consent list | jq -r '.missing // "agreed"')" agreed
}

@test "a full disk: told, and the old key stays" {
    [ "$(id -u)" -eq 0 ] || skip "NOT ROOT: no small disk can be made"
    mkdir "$T/disk"
    mount -t tmpfs -o size=300k,mode=700 tmpfs "$T/disk" 2>/dev/null || skip "NO MOUNTS ALLOWED: no small disk can be made"
    export FTAI_HOME=$T/disk
    keep "$key"
    ftai-keys get weather >/dev/null
    head -c 400k /dev/zero >"$T/disk/fill" 2>/dev/null || :
    try ftai-keys rotate weather <<<"$new"
    code=$rc
    rm "$T/disk/fill"
    found=$(ftai-keys get weather)
    umount -l "$T/disk"
    same "$code" 74
    grep -q "cannot write '$T/disk/" "$T/err" || grep -q "the journal" "$T/err"
    same "$found" "$key"
}

@test "consent: granted, limited, withdrawn, listed" {
    try ftai-keys consent grant anthropic --scope task,command --until 2999-12-31
    ended 0
    same "$(acts "$T/out")" $'consent-grant anthropic intended\nconsent-grant anthropic done'
    same "$(ftai-keys consent list | jq -c '[.target, .scope, .until, .missing]')" '["anthropic",["command","task"],"3000-01-01T00:00:00Z",null]'
    ftai-keys consent withdraw anthropic >/dev/null
    same "$(ftai-keys consent list | jq -r '.missing[:16]')" "it was withdrawn"
    for words in "" "grant" "nonsense anthropic" "grant a b" "grant mail:x" "grant anthropic --scope Ümlaut" "grant anthropic --until soonish" \
        "grant anthropic --until 2020-01-01" "withdraw anthropic --scope task" "list --scope task" "list anthropic"; do
        try ftai-keys consent $words
        ended 2
        empty "$T/out"
    done
}

@test "consent that was to be narrowed is not unlimited for want of a word" {
    for words in "--scope" "--until" "--scope task --until" "--until 2999-12-31 --scope"; do
        try ftai-keys consent grant anthropic $words ""
        ended 2
        empty "$T/out"
    done
    try ftai-keys consent grant anthropic --scope ,
    ended 2
    same "$(ftai-keys consent list)" ""
    # A tag of one's own may be meant: it limits, and is told.
    try ftai-keys consent grant anthropic --scope task,comand
    ended 0
    same "$(grep -c warning "$T/err")" 1
    grep -q "'comand'" "$T/err"
}

@test "consent: what no spec names is told, and so is a withdrawal of nothing" {
    try ftai-keys consent grant antropic
    ended 0
    grep -q "warning: no spec names .* 'antropic'" "$T/err"
    for target in anthropic export webhook:Hooks.Example.org; do
        try ftai-keys consent grant "$target"
        ended 0
        empty "$T/err"
    done
    # Whatever the case, a withdrawal takes all that could be meant.
    try ftai-keys consent withdraw webhook:hooks.EXAMPLE.org
    ended 0
    empty "$T/err"
    try ftai-keys consent withdraw Anthropic
    ended 0
    same "$(ftai-keys consent list | jq -r 'select(.missing | not) | .target' | xargs)" "antropic export"
    # It is kept all the same.
    try ftai-keys consent withdraw openai
    ended 1
    grep -q "'openai' had no consent to withdraw" "$T/err"
    same "$(acts "$T/out")" $'consent-withdraw openai intended\nconsent-withdraw openai done'
    try ftai-keys consent withdraw anthropic
    ended 1
}

@test "a program that reaches the cloud needs privacy cloud and consent, and loses it at once" {
    mkdir -p -m 700 "$FTAI_HOME/config"
    cat >"$FTAI_HOME/config/serenamaster.commands.ftai" <<'END'
@ftai v2.0

@program
  name: "send"
  summary: "t"
  run: ["echo", "sent"]
  privacy: "cloud"
  timeout: 30
  output: 100
@end

@phrase
  name: "send"
  say: ["send it away"]
  target: "cmd:send"
@end
END
    chmod 600 "$FTAI_HOME/config/serenamaster.commands.ftai"
    try ftai-run "send it away" --privacy cloud
    ended 77
    grep -q "ftai-keys consent grant 'cmd:send'" "$T/err"
    ftai-keys consent grant cmd:send >/dev/null
    try ftai-run "send it away" --privacy cloud
    ended 0
    same "$(cat "$T/out")" sent
    try ftai-run "send it away"
    ended 77
    # Routed while there was consent, done when there is none any more.
    ftai-listen "send it away" --privacy cloud | ftai-route >queued
    ftai-keys consent withdraw cmd:send >/dev/null
    try ftai-exec queued
    ended 77
    same "$(jq -r 'select(."@tag" == "result") | .status' "$T/out")" refused
    # Only for tasks: a command is none.
    ftai-keys consent grant cmd:send --scope task >/dev/null
    try ftai-run "send it away" --privacy cloud
    ended 77
    grep -q "does not hold for the tag 'command'" "$T/err"
}

@test "settings that are secret are kept encrypted" {
    config <<'END'
// mine
@setting
  name: "mail_token"
  value: ""
  secret: true
  summary: "t"
@end
END
    try ftai-keys get setting:mail_token
    ended 69
    try ftai-keys set setting:mail_token <<<"$key"
    ended 0
    unseen "$key"
    file=$FTAI_HOME/config/serenamaster.config.ftai
    grep -q '^  value: "aes256gcm:' "$file"
    grep -q '^// mine' "$file"
    same "$(stat -c %a "$file")" 600
    same "$(ftai-keys get setting:mail_token)" "$key"
    # A second value, and no trace of the first.
    ftai-keys set setting:mail_token <<<"$new" >/dev/null
    same "$(grep -c 'value:' "$file")" 1
    same "$(ftai-keys get setting:mail_token)" "$new"
    same "$(ftai-keys audit | acts | grep -c 'key-read setting:mail_token done')" 2
    # Encrypted for one name, it is no value for another, and what could not be opened was not read.
    sed -i 's/mail_token/mail_other/' "$file"
    try ftai-keys get setting:mail_other
    ended 65
    empty "$T/out"
    same "$(ftai-keys audit | acts | grep mail_other)" "key-read setting:mail_other failed"
    try ftai-keys set setting:lang <<<"$key"
    ended 78
}

@test "readers of secret settings: granted, revoked, refused and on record" {
    config <<'END'
@setting
  name: "mail_token"
  value: ""
  secret: true
  summary: "t"
@end
END
    ftai-keys set setting:mail_token <<<"$key" >/dev/null
    try ftai-keys get setting:mail_token --reader my-mailer
    ended 77
    empty "$T/out"
    same "$(tail -n 1 "$T/err")" "hint: ftai-keys grant setting:mail_token my-mailer"
    ftai-keys grant setting:mail_token my-mailer >/dev/null
    same "$(ftai-keys get setting:mail_token --reader my-mailer)" "$key"
    ftai-keys revoke setting:mail_token my-mailer >/dev/null
    try ftai-keys get setting:mail_token --reader my-mailer
    ended 77
    same "$(ftai-keys audit | acts | grep read.setting | cut -d' ' -f3 | xargs)" "refused done refused"
    ftai-keys audit | grep -q "'my-mailer', from the config"
}

@test "a secret setting in the clear is an error of the spec, with its way out" {
    config <<END
@setting
  name: "mail_token"
  value: "$key"
  secret: true
  summary: "t"
@end
END
    try ftai-run "what time is it"
    ended 78
    same "$(tail -n 1 "$T/err")" "hint: ftai-keys set setting:mail_token puts it there encrypted"
    ! grep -qF "$key" "$T/err" || return 1
    try ftai-keys set setting:mail_token <<<"$new"
    ended 0
    unseen "$key" "$new"
    try ftai-run "what time is it"
    ended 0
}

@test "audit: what was done since when" {
    to_noon
    keep "$key"
    ftai-keys get weather >/dev/null
    ftai-run "note that it rains" >/dev/null
    try ftai-keys audit --since today
    ended 0
    same "$(acts "$T/out")" $'key-set weather intended\nkey-set weather done\nkey-read weather done'
    try ftai-keys audit --since 2999-01-01
    ended 0
    empty "$T/out"
    try ftai-keys audit --since soonish
    ended 2
    # The archive is only a view of it.
    rm -rf "$FTAI_HOME/state/archive.db"*
    mkdir "$FTAI_HOME/state/archive.db"
    try ftai-keys audit
    ended 0
    same "$(acts "$T/out" | wc -l)" 3
}

@test "under env -i, without HOME, with closed descriptors" {
    try env -i FTAI_HOME="$FTAI_HOME" "$root/bin/ftai-keys" set weather <<<"$key"
    ended 0
    try env -i FTAI_HOME="$FTAI_HOME" "$root/bin/ftai-keys" get weather </dev/null
    ended 0
    same "$(cat "$T/out")" "$key"
    rc=0
    ftai-keys set weather <&- >"$T/out" 2>"$T/err" || rc=$?
    ended 66
    rc=0
    ftai-keys set weather <<<"$new" >&- 2>"$T/err" || rc=$?
    ended 74
    rc=0
    ftai-keys rotate weather <<<"$new" 2>&- >"$T/out" || rc=$?
    same "$rc" 0
    same "$(ftai-keys get weather)" "$new"
}

@test "two at once: one after the other, both whole" {
    keep "$key"
    for n in 1 2 3 4; do
        ftai-keys rotate weather <<<"$new$n" >"$T/$n" &
    done
    wait
    same "$(cat "$T"/[1-4] | acts | grep -c done)" 4
    grep -qx "$new[1-4]" <(ftai-keys get weather)
    try ftai-log --verify
    ended 0
}

@test "nobody sees a value in the arguments or the environment of a process" {
    mkfifo "$T/ask"
    ftai-keys set weather <"$T/ask" >"$T/out" 2>"$T/err" &
    pid=$!
    exec 9>"$T/ask"
    printf '%s' "$key" >&9
    for n in 1 2 3; do
        ! cat /proc/[0-9]*/cmdline /proc/$pid/environ 2>/dev/null | grep -qaFf <(printf '%s\n' "$key") || return 1
    done
    exec 9>&-
    wait $pid
    same "$(ftai-keys get weather)" "$key"
}

@test "files are for this user alone, under any umask" {
    umask 000
    keep "$key"
    umask 022
    same "$(find "$FTAI_HOME/state" -perm /077)" ""
    chmod 644 "$FTAI_HOME/state/keys/keys.age"
    try ftai-keys get weather
    ended 77
}

@test "usage" {
    try ftai-keys
    ended 2
    for words in nonsense set "get a b" "list a" rotate "rotate a b" "rotate --due a" "rotate --due --check" "rotate --due --fd 0" "set a --fd 0 --cmd true" "remove" "grant a" "audit a" "set a/b"; do
        try ftai-keys $words </dev/null
        ended 2
        empty "$T/out"
    done
}

@test "fingerprints that are gone are told of, and come back with a read" {
    keep "$key"
    rm "$FTAI_HOME/state/keys/fingerprints"
    try ftai-log --sink <<<'{"@tag":"note","body":"one"}'
    ended 0
    same "$(grep -c "warning: the keys of ftai-keys are not known to redaction: .*/fingerprints" "$T/err")" 1
    try ftai-run "what time is it"
    same "$(grep -c "warning: the keys of ftai-keys are not known to redaction: .*/fingerprints" "$T/err")" 1
    try doctor
    ended 1
    grep -A 1 "^fail  keys: the keys of ftai-keys" "$T/out" | grep -q "hint: ftai-keys get weather >/dev/null"
    ftai-keys get weather >/dev/null
    try doctor
    ! grep "^fail  keys" "$T/out" || return 1
    ftai-log --sink <<<"{\"@tag\":\"note\",\"body\":\"two $key\"}"
    unseen "$key"
    # One that was never set here is known from its first reading on.
    ANTHROPIC_API_KEY=$new ftai-keys get anthropic >/dev/null
    ftai-log --sink <<<"{\"@tag\":\"note\",\"body\":\"three $new\"}"
    unseen "$new"
}

@test "a broken config spec: what needs none of it works, and says so" {
    config <<'END'
@key
  name: "weather"
  summary: "t"
  grace: 100
  readers: ["my-forecast", "my-umbrella"]
@end
END
    keep "$key"
    ftai-keys set other <<<"$key" >/dev/null
    ftai-keys consent grant anthropic >/dev/null
    plain='@setting
  name: "mail_token"
  value: "all in the clear"
  secret: true
  summary: "t"
@end'
    for wrong in "$plain" '@nonsense'; do
        echo "$wrong" >>"$FTAI_HOME/config/serenamaster.config.ftai"
        head -c 24 /dev/urandom | base64 >next
        for words in list "rotate weather" "revoke weather my-forecast" audit "consent withdraw anthropic" "remove other"; do
            try ftai-keys $words <next
            ended 0
            same "$(grep -c "warning: .*serenamaster.config.ftai:" "$T/err")" "$([ "$words" = audit ] && echo 0 || echo 1)"
        done
        for words in "get weather" "set weather" "grant weather x" "consent grant anthropic"; do
            try ftai-keys $words <next
            ended 78
        done
        same "$(ftai-keys list -q | jq -c 'select(.name == "weather") | .readers')" '["my-umbrella"]'
        # Half of what stands there is enough to know how long an old key is kept, or nothing is done.
        try ftai-keys rotate --due
        ended "$([ "$wrong" = @nonsense ] && echo 78 || echo 0)"
        sed -i '/@nonsense/d; /^@setting/,/^@end/d' "$FTAI_HOME/config/serenamaster.config.ftai"
        same "$(ftai-keys get weather)" "$(cat next)"
        ftai-keys set other <<<"$key" >/dev/null
        ftai-keys consent grant anthropic >/dev/null
    done
}

keys() { (cd "$FTAI_HOME/state/keys" && cat identity recipient signing.key signing.pub); }

@test "init: makes keys that are the owner's alone, journals it, and leaves alone what is there" {
    try ftai-keys init --dry-run
    ended 0
    empty "$T/out"
    same "$(cat "$T/err")" "ftai-keys: would make: recipient, signing key"
    [ ! -e "$FTAI_HOME/state/keys" ]
    try ftai-keys init
    ended 0
    empty "$T/err"
    same "$(acts "$T/out")" $'key-init recipient and signing key intended\nkey-init recipient and signing key done'
    same "$(ftai-keys audit | acts)" "$(acts "$T/out")"
    same "$(jq -r 'select(."@tag" == "report") | .recipient, .vkey' "$T/out")" "$(cd "$FTAI_HOME/state/keys" && cat recipient signing.pub)"
    same "$(cd "$FTAI_HOME/state/keys" && stat -c '%a %n' . identity recipient signing.key signing.pub)" \
        $'700 .\n600 identity\n600 recipient\n600 signing.key\n600 signing.pub'
    seed=$(cat "$FTAI_HOME/state/keys/signing.key")
    ! grep -rlF -- "$seed" "$T/out" "$T/err" "$FTAI_HOME/state/journal"
    before=$(keys)
    try ftai-keys init
    ended 0
    same "$(jq -r '."@tag"' "$T/out")" report
    same "$(keys)" "$before"
    same "$(ftai-keys audit | acts | wc -l)" 2
    try ftai-keys init -n
    same "$(cat "$T/err")" "ftai-keys: would make: nothing"
    mv "$FTAI_HOME/state/keys/identity" "$T/identity"
    try ftai-keys init
    ended 0
    grep -q "^ftai-keys: warning: the identity of 'age1.*' is not at hand" "$T/err"
    [ ! -e "$FTAI_HOME/state/keys/identity" ]
    FTAI_IDENTITY=$T/identity try ftai-keys init
    empty "$T/err"
}

@test "init: what is missing is made again, what is damaged or open to others is told and kept" {
    ftai-keys init >/dev/null
    before=$(keys) folder=$FTAI_HOME/state/keys
    rm "$folder/signing.pub" "$folder/recipient"
    try ftai-keys init
    ended 0
    same "$(keys)" "$before"
    for name in signing.key identity recipient; do
        cp -p "$folder/$name" kept
        [ $name = identity ] && mv "$folder/recipient" recipient
        head -c 20 kept >"$folder/$name"
        try ftai-keys init
        same "$rc ${name}" "$([ $name = signing.key ] && echo 65 || echo 78) ${name}"
        same "$(cat "$folder/$name")" "$(head -c 20 kept)"
        cp -p kept "$folder/$name"
        [ $name = identity ] && mv recipient "$folder/recipient"
        chmod 622 "$folder/$name"
        try ftai-keys init
        # With a recipient that is only warned of.
        ended "$([ $name = identity ] && echo 0 || echo 77)"
        chmod 600 "$folder/$name"
        same "$(keys)" "$before"
    done
    mv "$folder/signing.key" elsewhere
    ln -s "$T/elsewhere" "$folder/signing.key"
    try ftai-keys init
    ended 77
    grep -q "it is a link" "$T/err"
    rm "$folder/signing.key"
    try ftai-keys init
    ended 0
    same "$(sed 1d "$folder/signing.pub")" "$(tail -1 <<<"$before")"
}

@test "init: many at once make the same keys" {
    for n in 1 2 3 4 5 6; do
        ftai-keys init >out.$n 2>err.$n &
        pids="$pids $!"
    done
    for pid in $pids; do wait "$pid"; done
    same "$(cat err.* | wc -c)" 0
    same "$(jq -r 'select(.vkey) | .vkey' out.* | sort -u)" "$(cat "$FTAI_HOME/state/keys/signing.pub")"
    same "$(jq -r 'select(.vkey) | .vkey' out.* | wc -l)" 6
    ftai-log --verify
}
