#!/bin/bash
# prepare_test.sh - trainer/data/prepare.sh and compare.sh on small texts made here.
#
# Guards against: held-out text that is not the text of the held-out tokens (then a model and a
# compressor would be compared on different bytes); results that differ from run to run; markup in
# the extracted text; a failure that destroys what an earlier run made.
set -u
export LC_ALL=C

project=$(cd "$(dirname "$0")/../.." && pwd)
export SHARDS=${SHARDS:-$project/bin/shards}
tools=$project/trainer/data
prepare=$tools/prepare.sh
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failed=0

report() { # report NAME FAULT
    if [[ -n $2 ]]; then
        echo "FAIL prepare: $1: $2"
        failed=1
    else
        echo "ok   prepare: $1"
    fi
}

expect() { # expect STATUS TEXT ARGUMENT...: run, and say what is not as expected
    local status=$1 text=$2 got=0
    shift 2
    "$prepare" "$@" >out.txt 2>&1 || got=$?
    if ((got != status)); then
        echo "exit status $got, expected $status: $(cat out.txt)"
    elif ! grep -q -- "$text" out.txt; then
        echo "no '$text' in: $(cat out.txt)"
    fi
}

sums() { # sums DIR: of all it holds
    (cd "$1" && find . -type f | sort | xargs sha256sum)
}

# Paragraphs of words from a small grammar, with accents, digits, odd spaces and an unknown letter.
make_text() { # make_text SEED PARAGRAPHS
    awk -v r="$1" -v n="$2" '
        function pick(list,    k) {
            k = split(list, w, " ")
            r = r * 16807 % 2147483647
            return w[r % k + 1]
        }
        BEGIN {
            for (p = 0; p < n; p++) {
                for (s = 0; s < 6; s++)
                    printf "%s %s %s  the %s\t%s in %d,\n and %s %s. ", pick("The A My Our This"),
                        pick("garden river caf\303\251 window morning number na\303\257ve letter \342\202\254"),
                        pick("opens follows carries answers finds remembers"),
                        pick("quiet small yellow distant ancient"),
                        pick("house road garden friend \344\270\200 story"), r % 3000,
                        pick("nobody everybody someone"), pick("sleeps listens laughs waited")
                print "\n"
            }
        }'
}
make_text 1 400 >one.txt
make_text 2 300 | sed 's/$/\r/' >two.txt

fault=$(expect 0 "tokeniser fineweb_400_bpe.model: 400 pieces" --text one.txt two.txt --out a --vocab 400 --heldout-bytes 20000)
report "own text to shards" "$fault"
[[ -z $fault ]] || exit 1

report "the files that are promised" "$(
    for f in fineweb_train_000000.bin fineweb_val_000000.bin fineweb_400_bpe.model fineweb_400_bpe.vocab heldout.txt; do
        [[ -s a/$f ]] || echo "no a/$f"
    done
    (($(ls -A a | wc -l) == 6)) || ls -A a
)"
report "shards are valid" "$("$SHARDS" --info a --vocab 400 2>&1 >/dev/null)"
size=$(wc -c <a/heldout.txt)
report "about as much held out as was asked for" \
    "$( ((size > 17000 && size < 23000)) || echo "$size bytes")"

# The challenge's byte count (base length, a leading space unless the token before is a boundary)
# over all held-out tokens must be the size of heldout.txt.
counted=$(tail -c +1025 a/fineweb_val_000000.bin | od -An -v -tu2 -w2 | awk -F '\t' '
    NR == FNR {
        piece = $1
        space = index(piece, "\342\226\201") == 1
        bytes[FNR - 1] = piece ~ /^<0x/ ? 1 : length(piece) - 3 * space
        lead[FNR - 1] = space
        border[FNR - 1] = FNR <= 4
        next
    }
    {
        id = $1 + 0
        if (!border[id])
            total += bytes[id] + (lead[id] && !border[last])
        last = id
    }
    END { print total }' a/fineweb_400_bpe.vocab -)
report "heldout.txt has the bytes that a score divides by" \
    "$( ((counted == size)) || echo "counted $counted, file $size")"

report "heldout.txt is the text" "$(
    tr -d '\r' <two.txt | cat one.txt - | tr -s ' \t\n' ' ' >flat.txt
    grep -qF "$(head -c 300 a/heldout.txt)" flat.txt || echo "its beginning is not in the input"
    grep -q '[^ -~]' a/heldout.txt || echo "letters outside ASCII are lost"
)"
report "special ids are the challenge's" "$(
    [[ $(head -n 4 a/fineweb_400_bpe.vocab | cut -f 1 | tr '\n' ' ') == "<pad> <s> </s> <unk> " ]] ||
        head -n 4 a/fineweb_400_bpe.vocab
    grep -q '^[0-9][0-9]' a/fineweb_400_bpe.vocab && echo "digits are not split"
)"
report "held out and training text share no document" "$(
    ids() { tail -c +1025 "$1" | od -An -v -tu2 -w2 | tr -d ' ' | tr '\n' ' ' | sed 's/\(^\| \)1 /\n/g'; }
    ids a/fineweb_val_000000.bin | sed 's/ *$//' | sort -u | grep . >v
    ids a/fineweb_train_000000.bin | sed 's/ *$//' | sort -u | grep . >t
    comm -12 v t | head -c 200
)"

sums a >a.sums
fault=$(expect 0 "up to date" --text one.txt two.txt --out a --vocab 400 --heldout-bytes 20000)
report "nothing is done twice" "${fault:-$(sums a | diff - a.sums)}"
fault=$(expect 0 "shards in" --text one.txt two.txt --out b --vocab 400 --heldout-bytes 20000)
report "two runs give the same files" "${fault:-$(sums b | diff - a.sums)}"
rm a/heldout.txt
fault=$(expect 0 "shards in" --text one.txt two.txt --out a --vocab 400 --heldout-bytes 20000)
report "a file that is missing is made again" "${fault:-$(sums a | diff - a.sums)}"
fault=$(expect 0 "shards in" --text one.txt --out b --vocab 400 --shard-tokens 4000)
report "other text replaces the result, shard by shard" \
    "${fault:-$([[ -e b/fineweb_train_000002.bin ]] || echo "not several shards"; "$SHARDS" --info b 2>&1 >/dev/null)}"
fault=$(expect 0 "shards in" --text one.txt --out b --vocab 400)
report "shards of the earlier run do not stay" "${fault:-$(ls b | grep train_000001)}"

fault=$(expect 0 "shards in" --text two.txt --out c --tokenizer a/fineweb_400_bpe.model)
report "a given tokeniser" "${fault:-$(cmp a/fineweb_400_bpe.model c/fineweb_400_bpe.model)}"
seq -f 'Line number %g of a list of lines, every one a document.' 1 3000 >lines.txt
report "one document a line" \
    "$(expect 0 "3000 documents" --text lines.txt --lines --vocab 300 --out d)"
seq -f 'Line number %g of a text without an empty line.' 1 9000 >long.txt
report "a text without empty lines is still divided" \
    "$(expect 0 " 3[0-9] documents" --text long.txt --vocab 300 --out e)"
tr '\n' ' ' <long.txt >longline.txt
report "a text of one line is still divided" \
    "$(expect 0 " 3[0-9] documents" --text longline.txt --vocab 300 --out e)"
cp one.txt 'odd = name.txt'
report "a file name with = and blanks" \
    "$(expect 0 "odd = name.txt" --text 'odd = name.txt' --vocab 400 --out e)"

sums a >a.sums
printf 'caf\351 au lait\n' >latin1.txt
report "text that is not UTF-8" \
    "$(expect 3 "latin1.txt: not UTF-8" --text latin1.txt --out a)$(sums a | diff - a.sums)"
: >nothing.txt
report "an empty file" "$(expect 3 "nothing.txt: empty" --text nothing.txt --out a)"
report "a file that is not there" \
    "$(expect 3 "missing.txt: cannot read" --text missing.txt --out a)"
printf 'One small paragraph.\n' >tiny.txt
report "one document only" \
    "$(expect 3 "expected at least 2" --text tiny.txt --out a)$(sums a | diff - a.sums)"
report "too little text for the vocabulary" \
    "$(expect 3 "pieces" --text one.txt --vocab 20000 --out a)$(sums a | diff - a.sums)"
report "a tokeniser that is none" \
    "$(expect 3 "not a SentencePiece model" --text one.txt --tokenizer tiny.txt --out a)$(sums a | diff - a.sums)"
mkdir foreign && cp a/fineweb_train_000000.bin foreign/
report "shards of somebody else are not replaced" \
    "$(expect 2 "did not make" --text one.txt --out foreign)"
report "an output directory that cannot be made" \
    "$(expect 4 "cannot write" --text one.txt --out /proc/nothing)"
mkdir bin && printf '#!/bin/sh\necho "Filesystem 1024-blocks Used Available"\necho "x 9 9 10 9 /"\n' >bin/df
chmod +x bin/df
report "no space" "$(PATH=$dir/bin:$PATH expect 4 "10 KiB free" --text one.txt --out f)$(ls -A f)"
report "a write that fails" \
    "$(trap "" XFSZ; ulimit -f 40; expect 4 "failed with status" --text one.txt --out f)$(ls -A f)"
report "an unknown option" "$(expect 2 "unknown argument --frob" --frob)"
report "a number out of range" "$(expect 2 "from 261 to 65536" --vocab 3)"

# ---- extraction ----

cat >dict.txt <<'END'
   This text in front belongs to no entry.

Lark \Lark\ (l[aum]rk), n. [Perh fr. AS. l[=a]c play. Cf.
   {Lake}, v. i.]
   A frolic; a jolly time. [Colloq.] --Dickens.
   [1913 Webster]

Lark \Lark\, n. (Zool.)
   1. Any one numerous species of singing birds of the genus
      {Alauda}, as in the caf['e] (family {Alaudid[ae]}). They
      mostly be long-
      tailed in Europe.
      [1913 Webster]

            [They] sang, and sang.              --Sydney Daily
                                                Telegraph.

   Syn: bird; {finch}.
        [WordNet 1.5]

   {Lark bunting} (Zool.), a bird found on the plains of the
      Western United States; -- so called.
      [1913 Webster]

Short \Short\, a.
   Not long.
END
sed -i $'s/^Short .*/   A bird\222s paragraph in another encoding.\\n\\n&/' dict.txt
printf '%s' "Lark. A frolic; a jolly time. Any one numerous species of singing birds of the genus \
Alauda, as in the café (family Alaudidæ). They mostly be long-tailed in Europe. They sang, and sang. \
Lark bunting, a bird found on the plains of the Western United States; so called." >dict.want
report "the dictionary's markup" \
    "$(awk -f $tools/gcide.awk dict.txt | diff - <(cat dict.want; echo))"

cat >page.html <<'END'
<html><head><title>No</title></head><body><p id="title">Product</p><ul class="docnav top"><li>Prev</li></ul>
<h2>1. A heading that is long enough to be taken for a paragraph of text</h2><div class="para">
  The <code>dpkg &amp;lt; x</code> command &#8220;installs&#x201d; a package, and it
  has a long&nbsp;manual page.<pre class="screen">$ dpkg -i x.deb that
must go.</pre></div><pre>and this.</pre><table><tr><td>A cell.</td></tr></table>
<div class="para">A second paragraph, which is long enough to stay in the text.</div>
<ul class="docnav"><li>A link with a long enough text to be taken for a paragraph.</li></ul></body></html>
END
printf '%s\n' 'The dpkg &lt; x command “installs” a package, and it has a long manual page. A second paragraph, which is long enough to stay in the text.' >page.want
report "the handbook's markup" "$(awk -f $tools/html.awk page.html | diff - page.want)"
printf 'Ge1:1 In the beginning.\nGe1:2 And the earth.\nGe2:1 Thus.\n' >verses
report "chapters and verses" \
    "$(awk -f $tools/bible.awk verses | diff - <(printf 'In the beginning. And the earth.\nThus.\n'))"

# ---- comparison ----

report "compressors on the held-out text" "$(
    $tools/compare.sh a >table || echo "exit status $?"
    xz=$(xz -9e -c a/heldout.txt | wc -c)
    awk -v xz="$xz" -v n="$(wc -c <a/heldout.txt)" '
        $1 == "xz" && $3 == xz && sprintf("%.4f", 8 * xz / n) == $NF { ok++ }
        $1 == "bzip2" || $1 == "zstd" { ok++ }
        END { if (ok != 3) print "not the three lines expected" }' table
)"
report "compare.sh without a text" "$(
    got=0
    $tools/compare.sh /proc/nothing >/dev/null 2>&1 || got=$?
    ((got == 3)) || echo "exit status $got, expected 3"
)"

exit $failed
