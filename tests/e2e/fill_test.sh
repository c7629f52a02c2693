#!/bin/bash
# fill_test.sh - a model quantised to a number of bytes (QUANTIZER=rd), packed, and scored from its file.
#
# Guards against a submission that is larger than was promised or much smaller, that the runner decodes to other
# weights than the quantiser meant, and against a target that cannot be met and is not said to be.
set -u
name=fill
. "$(dirname "$0")/lib.sh"
cd "$dir" || exit 1
make_data data
make_recipe tiny.conf
"$BIN/trainer" tiny.conf DATA_PATH=data MODEL_DIM=64 --out m --quiet || fail "trainer"

least=$("$BIN/packer" quantize m/model.safetensors -o m/q --data data --target-bytes 2000 --quiet 2>&1)
[ $? = 4 ] || fail "target of 2000: not refused"
rest=$(echo "$least" | sed -n 's/.*file has \([0-9]*\) bytes.*over the target of 2000.*/\1/p')
[ -n "$rest" ] || fail "target of 2000: $least"
[ -e m/q ] && fail "target of 2000: left a file"

for more in 12000 20000; do
    target=$((rest + more))
    "$BIN/packer" quantize m/model.safetensors -o m/q --data data --target-bytes $target --quiet \
        RD_CALIB_TOKENS=4096 RD_KL_TOKENS=1024 >m/report || fail "$target: quantise"
    "$BIN/packer" pack m/q -o m/s --target-bytes $target >/dev/null || fail "$target: pack"
    size=$(wc -c <m/s)
    grep -q 'cannot be finer' m/report || [ "$size" -ge $((target - target / 1000)) ] ||
        fail "$target: only $size bytes"
    "$BIN/verify" blob m/s --data data --eval plain --execute >m/verify || fail "$target: verify"
    tail -n 1 m/verify | grep -q '^verified' || fail "$target: $(tail -n 1 m/verify)"
done
exit $failed
