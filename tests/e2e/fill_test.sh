#!/bin/bash
# fill_test.sh - a model quantised to a number of bytes (QUANTIZER=rd), packed, and scored from its file.
#
# Guards against a submission that is larger than was promised or much smaller, whatever runner it carries, that the
# runner decodes to other weights than the quantiser meant, and against a target that cannot be met and is not said
# to be.
set -u
name=fill
. "$(dirname "$0")/lib.sh"
cd "$dir" || exit 1
make_data data
make_recipe tiny.conf
"$BIN/trainer" tiny.conf DATA_PATH=data MODEL_DIM=64 --out m --quiet || fail "trainer"
"$BIN/trainer" tiny.conf DATA_PATH=data MODEL_DIM=64 EVAL_MODE=ttt TTT_CHUNK_TOKENS=1024 ITERATIONS=2 --out t --quiet ||
    fail "trainer, for ttt"

# refuse DIR: a target of 2000 is refused with the bytes that are missing; sets $least, what the file has at least.
refuse() {
    local said
    said=$("$BIN/packer" quantize $1/model.safetensors -o $1/q --data data --target-bytes 2000 --quiet \
        RD_CALIB_TOKENS=4096 RD_KL_TOKENS=1024 2>&1)
    [ $? = 4 ] || fail "$1: target of 2000: not refused"
    least=$(echo "$said" | sed -n 's/.*file has \([0-9]*\) bytes.*over the target of 2000.*/\1/p')
    over=$(echo "$said" | sed -n 's/.* \([0-9]*\) over the target of 2000.*/\1/p')
    [ -n "$least" ] && [ "$over" = $((least - 2000)) ] || fail "$1: target of 2000: $said"
    [ -e $1/q ] && fail "$1: target of 2000: left a file"
}

# fill DIR TARGET EVAL: at most 0.1 % below the target and never above, as announced; the file scores itself.
fill() {
    local size said where="$1, $2 bytes"
    "$BIN/packer" quantize $1/model.safetensors -o $1/q --data data --target-bytes $2 --quiet --report $1/q.tsv \
        RD_CALIB_TOKENS=4096 RD_KL_TOKENS=1024 >$1/report || fail "$where: quantise"
    "$BIN/packer" pack $1/q -o $1/s --target-bytes $2 >/dev/null || fail "$where: pack"
    size=$(wc -c <$1/s)
    said=$(sed -n 's/^file: \([0-9]*\) bytes, target.*/\1/p' $1/report)
    [ "$size" -le "${said:-0}" ] || fail "$where: $said bytes were announced, $size came out"
    [ "$said" -ge $(($2 - $2 / 1000)) ] || fail "$where: only $said bytes"
    "$BIN/verify" blob $1/s --data data --eval $3 --max-tokens 2048 --execute >$1/verify || fail "$where: verify"
    tail -n 1 $1/verify | grep -q '^verified' || fail "$where: $(tail -n 1 $1/verify)"
    ok "$where: $size"
}

refuse m
for more in 1500 12000 20000; do
    fill m $((least + more)) plain
done
# The report for programs: one line per tensor, as many fields as columns, and about the bytes of the weights.
awk -F'\t' '
    NR == 1 && $0 != "# pgolf quantisation 1" { print "first line: " $0 }
    /^# / { next }
    !n { n = NF; next }
    NF != n { print $1 ": " NF " fields" }
    { sum += $4; lines++ }
    END { if (lines < 10 || sum < 15000 || sum > 25000) print lines " tensors of " sum " bytes" }' m/q.tsv >said
[ -s said ] && fail "report: $(cat said)"

# Scoring by training needs the larger runner.
plain=$least
refuse t
[ "$least" -gt "$plain" ] || fail "a file that trains has $least bytes, one that does not $plain"
fill t $((least + 12000)) ttt
exit $failed
