#!/bin/sh
# sh verify.sh 000001.ftai 000002.ftai current.ftai: verifies these segments, oldest first
export LC_ALL=C; d=$(mktemp -d) || exit 1; trap 'rm -rf "$d"' EXIT
awk -v d="$d" '
function must(ok, why) { if (!ok && !bad) { print FILENAME ": line " FNR ": " why > "/dev/stderr"; bad = 1; exit 1 } }
function put(name, text) { printf "%s", text > (d "/" name); close(d "/" name) }
FNR == 1 { must(part < 2, "the segment before is cut off"); must($0 ~ /^@ftai v2.0$/, "no @ftai v2.0"); ends = part = 0; next }
ends < 2 { value = $2; gsub(/"/, "", value); head[$1] = value; if (!/^@end$/ || ++ends < 2) next
    if (!id) { id = head["journal:"]; seq = head["first:"] - 1; last = head["prev:"]
        if (!seq) { put("seq-0", "ftai-journal/1 " id "\n"); print "start", 0, last }; print "before", seq, last }
    must(head["journal:"] == id && head["first:"] == seq + 1 && head["prev:"] == last, "@document does not go on from seq " seq); next }
part == 0 { must($0 ~ /^$/, "no blank line"); part = 1; next }
part == 1 { must($0 ~ /^@[a-z_]/, "no record"); text = $0 "\n"; part = 2; next }
part == 2 { must($0 !~ /^@end$/, "no @chain"); if (/^  @chain$/) part = 3; else text = text $0 "\n"; next }
part == 3 { must($0 == "    seq: " ++seq, "expected seq " seq); part = 4; next }
part == 4 { part = 5; split($0, f, "\""); if (/^    salt: "[0-9a-f]*"$/ && length(f[2]) == 32) { put("text-" seq, f[2] text); f[2] = ""; next }
    must(/^    digest: "[0-9a-f]*"$/ && text == "@tombstone\n", "no salt"); gone[seq] = f[2]; next }
part == 5 { must($0 ~ /^    hash: "[0-9a-f]*"$/, "no hash"); split($0, h, "\""); last = h[2]; print "record", seq, last, f[2]; part = 6; next }
part == 6 { must($0 ~ /^  @end$/, "no end of @chain"); part = 7; next }
{ must($0 ~ /^@end$/, "no end of the record"); part = 0; if (text !~ /^@audit\n(.*\n)?  act: "purge"\n/) next
    for (n = split(text, q, "\""); n; n--) { split(q[n], w, " "); if (w[1] in gone && q[n] == w[1] " " gone[w[1]]) delete gone[w[1]] } }
END { must(part < 2 && ends == 2, "cut off"); for (s in gone) must(0, "the tombstone of seq " s " has no audit record") }' "$@" >"$d/list" || exit 1
cd "$d" && ls | grep '^text-' | xargs sha256sum | sed 's/\([^ ]*\) *text-\(.*\)/text \2 \1/' | cat - list | awk '
$1 == "text" { digest[$2] = $3 } $1 == "record" { f = "seq-" $2; printf "ftai-journal/1 %s %s %s\n", $2, last, $4 ? $4 : digest[$2] > f; close(f) }
$1 != "text" { last = $3 } $1 == "record" || $1 == "start" { print $3 "  seq-" $2 > "check" }' && sha256sum -c --quiet check
