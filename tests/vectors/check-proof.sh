#!/bin/sh
# sh check-proof.sh PROOF VKEY: checks what `ftai-log --prove` printed, by a public key that was kept apart (a line of signing.pub)
export LC_ALL=C; d=$(mktemp -d) || exit 1; trap 'rm -rf "$d"' EXIT
fail() { echo "$proof: $1" >&2; exit 1; }
sum() { sha256sum | cut -c 1-64; }
bytes() { printf "$(echo "$1" | awk '{ for (i = 1; i < length($0); i += 2)
    printf "\\%03o", index(h, substr($0, i, 1)) * 16 + index(h, substr($0, i + 1, 1)) - 17 }' h=0123456789abcdef)"; }
said() { sed -n "s/^$1 \([0-9a-f][0-9a-f]*\)\$/\1/p" "$d/head"; }
proof=$1 vkey=$2
awk -v d="$d" 'part < 3 && /^$/ { part++; next } { print > (d "/" substr("headtextsignkept", part * 4 + 1, 4)) }' "$proof"
# The note: its text, signed with the key that was given.
name=${vkey%%+*} rest=${vkey#*+}; id=${rest%%+*}
printf %s "${rest#*+}" | openssl base64 -d -A >"$d/key"
{ bytes 302a300506032b6570032100; tail -c 32 "$d/key"; } >"$d/der"
read -r dash by words more <"$d/sign" && [ $(wc -l <"$d/sign") = 1 ] && [ "$dash $by$more" = "— $name" ] || fail "not one signature by $name"
printf %s "$words" | openssl base64 -d -A >"$d/raw"
[ "$(openssl base64 -A <"$d/raw")" = "$words" ] && [ $(wc -c <"$d/raw") = 68 ] || fail "no base64 of a signature"
[ "$(head -c 4 "$d/raw" | od -An -tx1 | tr -d ' \n')" = "$id" ] || fail "signed with another key"
tail -c 64 "$d/raw" >"$d/signature"
openssl pkeyutl -verify -rawin -pubin -keyform DER -inkey "$d/der" -sigfile "$d/signature" -in "$d/text" >/dev/null 2>&1 || fail "the signature is wrong"
# The record: its hash, by its content, its salt and the hash before it.
awk -v d="$d" '!at && /^  @chain$/ { at = NR } !at { print > (d "/content"); next } { n = NR - at; if (n == 1) seq = $2
    if (n == 2) salt = $2; if (n == 3) hash = $2; ends = ends $0 "|" } END { gsub(/"/, "", salt); gsub(/"/, "", hash)
    if (ends == "  @chain|    seq: " seq "|    salt: \"" salt "\"|    hash: \"" hash "\"|  @end|@end|") print seq, salt, hash }' "$d/kept" >"$d/chain"
read -r seq salt hash <"$d/chain" && [ ${#salt} = 32 ] || fail "no record with a @chain"
digest=$({ printf %s "$salt"; cat "$d/content"; } | sum)
[ "$(printf 'ftai-journal/1 %s %s %s\n' "$seq" "$(said before)" "$digest" | sum)" = "$hash" ] || fail "the record is not what its @chain says"
# The tree: from the record up to the root that stands in the note.
number=$(said segment) index=$(said index) size=$(said size) i=$index
read -r _ _ first last root <<END
$(grep "^segment $number " "$d/text")
END
[ "$index" -ge 0 ] && [ "$seq" = $((first + index)) ] && [ "$size" = $((last - first + 1)) ] && [ "$index" -lt "$size" ] || fail "no such record in the note"
set -- $(said path); node=$({ printf '\000'; bytes "$hash"; } | sum) n=$((size - 1))
while [ $n -gt 0 ]; do
    if [ $((i & 1)) = 1 ]; then node=$({ printf '\001'; bytes "$1$node"; } | sum); shift
    elif [ $i -lt $n ]; then node=$({ printf '\001'; bytes "$node$1"; } | sum); shift; fi
    i=$((i >> 1)) n=$((n >> 1))
done
[ $# = 0 ] && [ "$node" = "$root" ] || fail "the record is not under the root that was signed"
echo "$proof: seq $seq of $(head -n 1 "$d/text"), signed by $name+$id"
