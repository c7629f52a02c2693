#!/bin/bash
# prepare.sh - English text to token shards: extract, train the tokeniser, encode, hold out.
# The manual is docs/data.md; --help is below.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'END'
usage: prepare.sh [--text FILE...] [--out DIR] [option]...

Makes token shards, a SentencePiece tokeniser and the held-out text from the given UTF-8 text
files or, without --text, from the Debian packages dict-gcide, bible-kjv and debian-handbook.

  --text FILE...       text files; empty lines separate paragraphs
  --out DIR            output directory (default out/data)
  --vocab N            pieces of the tokeniser to train (default 1024)
  --tokenizer MODEL    use this SentencePiece model instead of training one
  --heldout-bytes N    text to hold out (default 300000, at most a tenth of the text)
  --doc-bytes N        join paragraphs to documents of N bytes (default 3000; 1: do not join)
  --lines              every line of the files is a document
  --shard-tokens N     tokens in a full shard (default 100000000)
  --seed N             order of the documents (default 1)
  --force              make everything again even when nothing has changed

example: prepare.sh --text novel.txt letters.txt --out data/mine
result:  DIR/fineweb_{train,val}_*.bin, DIR/fineweb_1024_bpe.model, DIR/heldout.txt
exit status: 0 done, 2 wrong use, 3 bad input, 4 a program, space or memory is missing
END
}

die() { # die STATUS MESSAGE
    echo "prepare: $2" >&2
    exit "$1"
}

# ---- settings ----

texts=() out=out/data vocab=1024 tokenizer= heldout_bytes=300000 doc_bytes=3000 lines=0
shard_tokens=100000000 seed=1 force=0

number() { # number OPTION VALUE MIN MAX
    [[ $2 =~ ^[0-9]{1,15}$ ]] && ((10#$2 >= $3 && 10#$2 <= $4)) ||
        die 2 "$1 $2: expected a whole number from $3 to $4"
}

while (($#)); do
    case $1 in
    --text)
        shift
        (($#)) && [[ $1 != --* ]] || die 2 "--text needs at least one file"
        while (($#)) && [[ $1 != --* ]]; do
            texts+=("$1")
            shift
        done
        continue
        ;;
    --lines) lines=1 ;;
    --force) force=1 ;;
    --help | -h)
        usage
        exit 0
        ;;
    --out | --vocab | --tokenizer | --heldout-bytes | --doc-bytes | --shard-tokens | --seed)
        (($# > 1)) || die 2 "$1 needs a value"
        case $1 in
        --out) out=$2 ;;
        --vocab) number "$1" "$2" 261 65536 && vocab=$((10#$2)) ;;
        --tokenizer) tokenizer=$2 ;;
        --heldout-bytes) number "$1" "$2" 1 999999999999 && heldout_bytes=$((10#$2)) ;;
        --doc-bytes) number "$1" "$2" 1 999999999 && doc_bytes=$((10#$2)) ;;
        --shard-tokens) number "$1" "$2" 1 2147483647 && shard_tokens=$((10#$2)) ;;
        --seed) number "$1" "$2" 1 2147483646 && seed=$((10#$2)) ;;
        esac
        shift
        ;;
    *) die 2 "unknown argument $1; see prepare.sh --help" ;;
    esac
    shift
done
[[ -n $out ]] || die 2 "--out needs a directory"

# ---- what is there ----

# In the source tree, beside an installed share/pgolf/data, or on the path.
for shards in "${SHARDS:-$here/../../bin/shards}" "$here/../../../bin/shards" \
    "$(command -v shards || true)"; do
    [[ ! -x $shards ]] || break
done
[[ -x $shards ]] || die 4 "bin/shards is missing; run make first"
for program in spm_train spm_encode spm_decode spm_export_vocab; do
    command -v $program >/dev/null ||
        die 4 "$program is missing; install it: apt-get install sentencepiece"
done
[[ -z $tokenizer || -r $tokenizer ]] || die 3 "$tokenizer: cannot read the tokeniser"

gcide=${GCIDE:-/usr/share/dictd/gcide.dict.dz}
bible_data=${BIBLE_DATA:-/usr/lib/bible.data}
handbook=${HANDBOOK:-/usr/share/doc/debian-handbook/html/en-US}
inputs=()
if ((${#texts[@]})); then
    for file in "${texts[@]}"; do
        [[ -f $file && -r $file ]] || die 3 "$file: cannot read this text file"
        [[ -s $file ]] || die 3 "$file: empty, expected text"
        inputs+=("$file")
    done
else
    missing=()
    [[ -r $gcide ]] && inputs+=("$gcide") || missing+=(dict-gcide)
    command -v bible >/dev/null && [[ -r $bible_data ]] && inputs+=("$bible_data") ||
        missing+=(bible-kjv bible-kjv-text)
    [[ -r $handbook/index.html ]] && inputs+=("$handbook"/*.html) || missing+=(debian-handbook)
    ((${#inputs[@]})) ||
        die 3 "no text: give --text FILE or install some: apt-get install ${missing[*]}"
    if ((${#missing[@]})); then
        echo "prepare: going on without ${missing[*]} (not installed, or /usr/share/doc left out" \
            "by dpkg's configuration); the results will differ from those with all three texts" >&2
    fi
fi

# ---- is it done already? ----

# Everything that decides the result: settings, texts, this tool, the SentencePiece version.
key=$({
    echo "$vocab $heldout_bytes $doc_bytes $lines $shard_tokens $seed ${#texts[@]}"
    spm_train --version 2>&1
    sha256sum -- "${inputs[@]}" ${tokenizer:+"$tokenizer"} "$here"/*.awk "$here/prepare.sh" |
        cut -c 1-64
} | sha256sum | cut -c 1-64)
stamp=$out/prepare.stamp
name=fineweb
[[ -n $tokenizer ]] && model=$(basename "$tokenizer") || model=${name}_${vocab}_bpe.model

if [[ -f $stamp ]] && ((!force)) && [[ $(head -n 1 "$stamp") == "# $key" ]] &&
    (cd "$out" && tail -n +2 prepare.stamp | sha256sum --check --status 2>/dev/null); then
    echo "$out: up to date, nothing to do (--force makes it again)"
    "$shards" --info "$out" | tail -n 2
    exit 0
fi

mkdir -p -- "$out" 2>/dev/null && [[ -w $out ]] || die 4 "$out: cannot write to this directory"
out=$(cd "$out" && pwd)
stamp=$out/prepare.stamp
for file in "$out/$name"_*.bin; do
    [[ ! -e $file ]] || grep -qsF "  ${file##*/}" "$stamp" ||
        die 2 "$out: holds ${file##*/}, which this program did not make; choose another --out"
done

# Work in a directory of our own; what is in $out changes only when all is complete.
work=$(mktemp -d "$out/.prepare.XXXXXX") || die 4 "$out: cannot write to this directory"
step=starting
finish() {
    local status=$?
    rm -rf -- "$work"
    if ((status == 1 || status > 4)); then
        echo "prepare: $step failed with status $status; nothing in $out was changed" >&2
        status=4
    fi
    exit $status
}
trap finish EXIT
trap 'echo "prepare: stopped by a signal; nothing in $out was changed" >&2; exit 4' INT TERM HUP

# The copies of the text that exist at one time, ids and shards included, are below 6 times the
# text; the text of the three packages is 20 MB.
kb=$(df -Pk "$out" | awk 'NR == 2 {print $4}')
((${#texts[@]})) && need=$((6 * $(cat -- "${texts[@]}" | wc -c) / 1024)) || need=120000
((kb >= need)) || die 4 "$out: $kb KiB free, about $need KiB needed"

# ---- documents ----

add_source() { # add_source LABEL: documents on standard input
    cat >"$work/source"
    printf '  %-18s %7d documents %10d bytes\n' "$1" "$(wc -l <"$work/source")" \
        "$(($(wc -c <"$work/source") - $(wc -l <"$work/source")))"
    cat "$work/source" >>"$work/documents"
}

step="extracting the text"
echo "text"
: >"$work/documents"
if ((${#texts[@]})); then
    for file in "${texts[@]}"; do
        iconv -f UTF-8 -t UTF-8 -- "$file" >/dev/null 2>"$work/iconv" ||
            die 3 "$file: not UTF-8 text ($(head -n 1 "$work/iconv" | sed 's/.*: //'))"
        # awk takes an argument with = for a setting, so the file comes by standard input
        tr -d '\000\r' <"$file" | awk -v DOC="$doc_bytes" -v LINES="$lines" -f "$here/text.awk" |
            add_source "${file##*/}"
    done
else
    for input in "${inputs[@]}"; do
        case $input in
        "$gcide") gzip -dc <"$gcide" | awk -f "$here/gcide.awk" | add_source dict-gcide ;;
        "$bible_data")
            bible -d "$(basename "$bible_data")" -p "$(dirname "$bible_data")" -f gen1:1-rev22:21 \
                </dev/null | awk -f "$here/bible.awk" | add_source bible-kjv-text
            ;;
        "$handbook/index.html")
            awk -v DOC="$doc_bytes" -f "$here/html.awk" "$handbook"/*.html |
                add_source debian-handbook
            ;;
        esac
    done
fi

documents=$(wc -l <"$work/documents")
bytes=$(($(wc -c <"$work/documents") - documents))
((documents >= 2)) ||
    die 3 "$documents documents, expected at least 2; give more text or a smaller --doc-bytes"
((heldout_bytes * 10 <= bytes)) || heldout_bytes=$((bytes / 10))

step="ordering the documents"
awk -v TOTAL="$bytes" -v HELD="$heldout_bytes" -v SEED="$seed" -f "$here/split.awk" \
    "$work/documents" | sort -T "$work" >"$work/ordered"
awk -v held="$work/heldout" -v train="$work/train" '
    { file = substr($0, 1, 1) == "0" ? held : train; print substr($0, index($0, "\t") + 1) > file }
' "$work/ordered"
[[ -s $work/heldout && -s $work/train ]] ||
    die 3 "$documents documents cannot be divided; give more text or a smaller --doc-bytes"
rm "$work/ordered" "$work/documents" "$work/source"

# ---- tokeniser ----

# spm_train leaves out lines over 4192 bytes, so documents are folded. Of much text every k-th line
# is taken, which bounds time and memory.
step="training the tokeniser"
mkdir "$work/new"
if [[ -n $tokenizer ]]; then
    cp -- "$tokenizer" "$work/new/$model"
else
    sample_bytes=10000000
    k=$((bytes / sample_bytes + 1))
    fold -b -s -w 4000 "$work/train" | awk -v K="$k" 'NR % K == 0' >"$work/sample"
    # The model file records these two names: without directories, equal texts give equal files.
    (
        cd "$work"
        spm_train --input=sample --model_prefix="${model%.model}" --model_type=bpe \
            --vocab_size="$vocab" --character_coverage=0.999 --byte_fallback=true \
            --split_digits=true --normalization_rule_name=nmt_nfkc --add_dummy_prefix=false \
            --pad_id=0 --bos_id=1 --eos_id=2 --unk_id=3 --hard_vocab_limit=false \
            --minloglevel=1 2>log
    ) || {
        tail -n 3 "$work/log" >&2
        die 3 "spm_train cannot make $vocab pieces from $bytes bytes of text"
    }
    mv "$work/${model%.model}".{model,vocab} "$work/new/"
    rm "$work/sample"
fi
spm_export_vocab --model="$work/new/$model" --output="$work/pieces" >/dev/null 2>&1 ||
    die 3 "$tokenizer: not a SentencePiece model"
pieces=$(wc -l <"$work/pieces")
[[ -n $tokenizer ]] || ((pieces == vocab)) ||
    die 3 "the text is too short for $vocab pieces, spm_train found $pieces; lower --vocab"
bos=$(awk -F '\t' '$1 == "<s>" {print NR - 1}' "$work/pieces")
[[ $bos == 1 ]] || die 3 "$model: <s> has id ${bos:-none}, expected 1 as in the challenge"
grep -q '^<0x00>' "$work/pieces" || die 3 "$model: has no byte pieces, expected byte fallback"

# ---- shards ----

step="encoding"
encode() {
    spm_encode --model="$work/new/$model" --output_format=id
}
# The encoder has one thread: as many parts as processors, put together again in order.
split -n "l/$(nproc)" -a 4 -d "$work/train" "$work/part."
encoders=()
for part in "$work"/part.????; do
    encode <"$part" >"$part.ids" &
    encoders+=($!)
done
encode <"$work/heldout" | grep . >"$work/heldout.ids"
for encoder in "${encoders[@]}"; do
    wait "$encoder"
done
# A document of nothing but characters that the normaliser drops has no tokens and is not counted.
heldout_documents=$(wc -l <"$work/heldout.ids")
cat "$work/heldout.ids" "$work"/part.????.ids |
    "$shards" --out "$work/new" --name "$name" --val-docs "$heldout_documents" --vocab "$pieces" \
        --shard-tokens "$shard_tokens" >"$work/counts"

# The bytes that a score divides by: what the held-out tokens spell, one document after the other.
step="decoding the held-out text"
spm_decode --model="$work/new/$model" --input_format=id <"$work/heldout.ids" | tr -d '\n' \
    >"$work/new/heldout.txt"

# ---- move into place ----

step="moving the files to $out"
{
    echo "# $key"
    (cd "$work/new" && sha256sum -- *)
} >"$work/prepare.stamp"
if [[ -f $stamp ]]; then
    tail -n +2 "$stamp" | cut -c 67- | while IFS= read -r old; do
        [[ $old == */* ]] || rm -f -- "$out/$old"
    done
    rm -f -- "$stamp"
fi
mv -f -- "$work/new"/* "$out/"
mv -f -- "$work/prepare.stamp" "$stamp"

# ---- summary ----

heldout_size=$(wc -c <"$out/heldout.txt")
awk -v held="$heldout_size" -v trained="$(($(wc -c <"$work/train") - $(wc -l <"$work/train")))" '
    { for (i = 2; i <= NF; i++) { split($i, kv, ":"); v[$1, kv[1]] = kv[2] } }
    function line(what, bytes) {
        printf "  %-9s %7d documents %10d bytes %9d tokens %6.3f bytes per token\n", what,
            v[what, "docs"], bytes, v[what, "tokens"], bytes / v[what, "tokens"]
    }
    END { line("train", trained); line("val", held) }' "$work/counts" >"$work/summary"
echo "tokeniser $model: $pieces pieces"
echo "shards in $out"
cat "$work/summary"
