#!/bin/bash
# report_test.sh - verify blob --report: the page of a submission, as a file and in a browser.
#
# Guards against: a page that is missing when it was asked for, that says another verdict than the program,
# that is not well-formed or loads something; and, where a Chromium is installed, a page that is blank, that
# does not follow the colour scheme, or that is wider than a phone.
#
#   SHOTS=DIR   keep the screenshots there
set -u
name=report
. "$(dirname "$0")/lib.sh"
verify=$BIN/verify

says() { # says CASE FILE TEXT
    if grep -qF -- "$3" "$2"; then ok "$1"; else fail "$1: $2 does not say \"$3\""; fi
}
never() { # never CASE FILE EXPRESSION
    if grep -qE -- "$3" "$2"; then fail "$1: $(grep -oE -- ".{20}($3).{20}" "$2" | head -1)"; else ok "$1"; fi
}

make_data "$dir/data"
make_recipe "$dir/recipe.conf"
"$BIN/trainer" "$dir/recipe.conf" DATA_PATH="$dir/data" --out "$dir" --quiet || fail "trainer"
"$BIN/packer" quantize "$dir/model.safetensors" -o "$dir/model.quant.safetensors" >"$dir/quantize.txt" ||
    fail "quantize"
"$BIN/packer" pack "$dir/model.quant.safetensors" -o "$dir/submission" >/dev/null || fail "pack"
"$dir/submission" --data "$dir/data" --json >"$dir/claim.json" || fail "submission"

# ---- the file ----

page=$dir/page.html
check "verified" "$verify" blob "$dir/submission" --data "$dir/data" --claim "$dir/claim.json" --execute \
    --report "$page"
says "its verdict" "$page" "<h1>✓ verified</h1>"
says "its result" "$page" "$(sed 's/.*"val_bpb":\([0-9.]*\).*/\1/' "$dir/claim.json")"
says "the claim" "$page" '<td class="yes">confirmed</td>'
says "the loss curve" "$page" "$dir/train.log"
says "errors, measured" "$page" "Measured against the weights in <code>$dir/model.safetensors"
says "the quantiser's table" "$page" "$dir/quantize.txt"
says "a tensor" "$page" "blocks.1.mlp.fc.weight"
says "both schemes" "$page" "prefers-color-scheme:dark"
says "bits were counted" "$page" "adding up the information of its symbols"
never "nothing is loaded" "$page" 'https?://|src=|href=|@import|<script|url\([^#]'
never "no numbers that are none" "$page" '[^a-z](nan|inf)[^a-z]'
if command -v xmllint >/dev/null; then
    check "well-formed" xmllint --noout --nonet "$page"
else
    echo "skip report: no xmllint here (package libxml2-utils)"
fi
check "again" "$verify" blob "$dir/submission" --data "$dir/data" --claim "$dir/claim.json" --execute \
    --report "$dir/again.html"
# Times and the speed of the machine differ, nothing else.
untimed() { sed -E 's/, [0-9.]+ s//; /time ms|seconds/s/[0-9.,]+//g' "$1"; }
untimed "$page" >"$dir/one.txt"
untimed "$dir/again.html" >"$dir/two.txt"
same "the same page" "$dir/one.txt" "$dir/two.txt"

mkdir "$dir/alone"
cp "$dir/submission" "$dir/alone/submission"
check "without the files beside it" "$verify" blob "$dir/alone/submission" --data "$dir/data" --max-tokens 64 \
    --report "$dir/alone.html"
says "no log" "$dir/alone.html" "No training log"
says "no float weights" "$dir/alone.html" "Not measured"
sed 's/"val_bpb":[0-9]/"val_bpb":0/' "$dir/claim.json" >"$dir/false.json"
"$verify" blob "$dir/submission" --data "$dir/data" --claim "$dir/false.json" --report "$dir/false.html" \
    >/dev/null 2>&1
[ $? -eq 1 ] || fail "a false claim: exit status"
says "a false claim" "$dir/false.html" "<h1>✗ not verified</h1>"
says "says which" "$dir/false.html" '<td class="no">not confirmed</td>'
cp "$dir/submission" "$dir/damaged"
flip "$dir/damaged" 3000
refused "damaged" 3 "damaged" "$verify" blob "$dir/damaged" --data "$dir/data" --report "$dir/damaged.html"
says "a page all the same" "$dir/damaged.html" "<h1>✗ not verified</h1>"
printf '900 score_everything\n0000001 0000400 t main\n' >"$dir/runner.txt"
check "functions of the runner" "$verify" blob "$dir/submission" --data "$dir/data" --max-tokens 64 \
    --report "$dir/code.html" --code-map "$dir/runner.txt"
says "one of them" "$dir/code.html" "score_everything: "
refused "a list of no functions" 3 "recipe.conf" \
    "$verify" blob "$dir/submission" --data "$dir/data" --max-tokens 64 --report "$dir/x.html" \
    --code-map "$dir/recipe.conf"
refused "nowhere to write" 4 "/nonexistent" \
    "$verify" blob "$dir/submission" --data "$dir/data" --report /nonexistent/x.html
refused "no such log" 3 "$dir/none" \
    "$verify" blob "$dir/submission" --data "$dir/data" --max-tokens 64 --report "$dir/x.html" --log "$dir/none"
refused "weights of another kind" 3 "recipe.conf" \
    "$verify" blob "$dir/submission" --data "$dir/data" --max-tokens 64 --report "$dir/x.html" \
    --float "$dir/recipe.conf"
refused "a log without a page" 2 "report" \
    "$verify" blob "$dir/submission" --data "$dir/data" --log "$dir/train.log"

# ---- pages of leaderboard folders ----

records=../shared/fixtures/records
if [ -d $records ]; then
    for folder in $records/*/; do
        "$verify" record "$folder" --report "$dir/record.html" >"$dir/record.txt" 2>&1
        got=$?
        [ $got -le 1 ] || fail "$folder: exit status $got: $(cat "$dir/record.txt")"
        says "$(basename "$folder")" "$dir/record.html" "$(tail -n 1 "$dir/record.txt")</h1>"
        if command -v xmllint >/dev/null; then
            xmllint --noout --nonet "$dir/record.html" || fail "$folder: not well-formed"
        fi
    done
    "$verify" record $records --report "$dir/tree.html" >/dev/null 2>&1
    says "a tree of folders" "$dir/tree.html" "2026-03-17_NaiveBaseline"
else
    echo "skip report: no leaderboard folders at $records"
fi
refused "a folder's page, nowhere to write" 4 "/nonexistent" \
    "$verify" record "$(dirname "$0")" --report /nonexistent/x.html

# ---- in a browser ----

for browser in chromium chromium-browser google-chrome none; do
    command -v $browser >/dev/null && break
done
if [ $browser = none ]; then
    echo "skip report: no Chromium here (package chromium), so no screenshots"
    exit $failed
fi
shots=${SHOTS:-$dir}
mkdir -p "$shots"

# in_browser PAGE WIDTH SCHEME OPTION...: a page in a frame of that width (a window cannot be as narrow as a phone).
in_browser() {
    local file=$1 width=$2 engine=$3
    shift 3
    cat >"$dir/frame.html" <<END
<!DOCTYPE html><title>empty</title><body style="margin:0">
<iframe id="f" src="$file" style="width:${width}px;height:1600px;border:0;display:block"></iframe>
<script>onload = () => {
    const d = document.getElementById('f').contentDocument, e = d.documentElement;
    document.title = 'closed:' + e.scrollWidth + '/' + e.clientWidth;
    d.querySelectorAll('details').forEach(x => x.open = true);
    document.title += ' open:' + e.scrollWidth + '/' + e.clientWidth + ' high:' + e.scrollHeight;
    d.querySelectorAll('details').forEach(x => x.open = false);
}</script></body>
END
    # Schemes are 0 dark, 1 light in the engine's settings.
    timeout 120 $browser --headless --no-sandbox --disable-gpu --hide-scrollbars --allow-file-access-from-files \
        --user-data-dir="$dir/profile" --window-size="$((width < 500 ? 500 : width)),1600" \
        --blink-settings=preferredColorScheme="$engine" "$@" "file://$dir/frame.html" 2>"$dir/browser.txt"
}

# Mean brightness and number of colours of a picture's first WIDTH columns (PNG, 8 bits, RGB or RGBA).
cat >"$dir/look.py" <<'END'
import struct, sys, zlib
b, width = open(sys.argv[1], 'rb').read(), int(sys.argv[2])
w, h, depth, kind = struct.unpack('>IIBB', b[16:26])
assert depth == 8 and kind in (2, 6)
n = 3 if kind == 2 else 4
raw, at = b'', 8
while at < len(b):
    size, = struct.unpack('>I', b[at:at + 4])
    if b[at + 4:at + 8] == b'IDAT':
        raw += b[at + 8:at + 8 + size]
    at += size + 12
raw, last, sums, seen, used = zlib.decompress(raw), bytearray(w * n), 0, set(), 0
for y in range(h):
    f, row = raw[y * (w * n + 1)], bytearray(raw[y * (w * n + 1) + 1:(y + 1) * (w * n + 1)])
    for i in range(w * n) if f else ():
        a, up, c = (row[i - n] if i >= n else 0), last[i], (last[i - n] if i >= n else 0)
        if f == 4:
            p = a + up - c
            a = min((abs(p - a), 0, a), (abs(p - up), 1, up), (abs(p - c), 2, c))[2]
        row[i] = (row[i] + (a if f in (1, 4) else up if f == 2 else (a + up) // 2)) & 255
    last = row
    if y % 4 == 0:
        for x in range(0, min(w, width), 3):
            p = bytes(row[x * n:x * n + 3])
            sums, used = sums + sum(p), used + 3
            seen.add(p)
print(sums // used, len(seen))
END

fits() { # fits PAGE WIDTH
    in_browser "$1" "$2" 1 --dump-dom >"$dir/dom.txt"
    title=$(sed -n 's/.*<title>\(.*\)<\/title>.*/\1/p' "$dir/dom.txt" | head -1)
    case $title in
    "closed:$2/$2 open:$2/$2 high:"*) ok "$1, $2 wide, nothing sticks out" ;;
    *) fail "$1, $2 wide: \"$title\" $(tail -n 1 "$dir/browser.txt")" ;;
    esac
}

fits page.html 320
for file in record.html tree.html; do
    [ -f "$dir/$file" ] && fits $file 390
done
for width in 390 1280; do
    fits page.html $width
    for scheme in 1:light 0:dark; do
        shot=$shots/$width-${scheme#*:}.png
        in_browser page.html $width "${scheme%:*}" --screenshot="$shot" >/dev/null
        look=$(python3 "$dir/look.py" "$shot" $width 2>&1 | tail -n 1)
        bright=${look% *} colours=${look#* }
        if ! [ "$bright" -ge 0 ] 2>/dev/null; then
            fail "$shot: $look"
        elif [ "$colours" -lt 50 ]; then
            fail "$width ${scheme#*:}: nearly blank, $colours colours"
        elif [ "${scheme#*:}" = light ] && [ "$bright" -lt 170 ] || [ "${scheme#*:}" = dark ] && [ "$bright" -gt 90 ]; then
            fail "$width ${scheme#*:}: mean brightness $bright"
        else
            ok "$width ${scheme#*:}: mean brightness $bright, $colours colours"
        fi
    done
done
exit $failed
