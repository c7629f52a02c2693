#!/bin/sh
# loader_test.sh - guards against a packed file that does not run as a user starts it: through a pipe of
# tools, renamed, linked, without write permission, damaged on the way, with too little memory.
#
# Environment: BIN and B, the directories of the programs and of the build (bin, build).
set -eu
bin=${BIN:-bin} build=${B:-build}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

# check NAME EXPECTED_STATUS EXPECTED_TEXT COMMAND... : status, and text in what it prints (both streams)
check() {
    name=$1 want=$2 text=$3
    shift 3
    got=0
    said=$("$@" 2>&1) || got=$?
    case $said in
    *"$text"*) [ "$got" = "$want" ] && return ;;
    esac
    echo "loader_test: $name: status $got, expected $want with \"$text\"; said: $said" >&2
    failed=1
}

# The smallest model there is, by hand: length of the header, header, 37 fp16 zeros.
header='{"__metadata__":{"recipe":"VOCAB_SIZE=2\nNUM_LAYERS=1\nMODEL_DIM=2\nNUM_HEADS=1\nNUM_KV_HEADS=1\nMLP_MULT=1\nEVAL_MODE=slot\n"}'
at=0
tensor() { # tensor NAME SHAPE BYTES
    header="$header,\"$1\":{\"dtype\":\"F16\",\"shape\":[$2],\"data_offsets\":[$at,$((at + $3))]}"
    at=$((at + $3))
}
tensor tok_emb.weight 2,2 8
tensor blocks.0.attn_scale 2 4
tensor blocks.0.mlp_scale 2 4
tensor blocks.0.resid_mix 2,2 8
tensor blocks.0.attn.q_gain 1 2
for m in attn.c_q attn.c_k attn.c_v attn.proj mlp.fc mlp.proj; do tensor blocks.0.$m.weight 2,2 8; done
header="$header}"
while [ $((${#header} % 8)) -ne 0 ]; do header="$header "; done
{
    printf "\\$(printf %o $((${#header} % 256)))\\$(printf %o $((${#header} / 256)))\\0\\0\\0\\0\\0\\0"
    printf %s "$header"
    head -c $at /dev/zero
} >"$dir/w.safetensors"
printf '\2\0\0\0\0\2\1\0' >"$dir/byte_table.bin"

sub=$dir/submission
check "pack" 0 "loader" "$bin/packer" pack "$dir/w.safetensors" -o "$sub"
loader=$(wc -c <"$build/stub/loader")
size=$(wc -c <"$sub")
[ "$loader" -le 2048 ] || { echo "loader_test: $loader bytes, the budget is 2048" >&2; failed=1; }

# What was measured (docs/format.md) and a percent: code that grows is to be noticed.
runner_bytes() { "$1" --info | sed -n 's/.*"kind":"runner".*"size":\([0-9]*\),"unp.*/\1/p'; }
code_budget() { # code_budget NAME BYTES BUDGET
    [ $((loader + $2)) -le "$3" ] && return
    echo "loader_test: loader and $1 have $loader + $2 bytes, the budget is $3" >&2
    failed=1
}
runner=$(runner_bytes "$sub")
code_budget runner "$runner" 24165
sed 's/EVAL_MODE=slot/EVAL_MODE=ttt /' "$dir/w.safetensors" >"$dir/ttt.safetensors"
check "pack with test-time training" 0 "loader" "$bin/packer" pack "$dir/ttt.safetensors" -o "$dir/ttt"
full=$(runner_bytes "$dir/ttt")
code_budget "runner with test-time training" "$full" 28455

check "started by its path" 0 '"total_bytes":'"$size" "$sub" --info
check "unknown option" 2 "" "$sub" --no-such-option
ln -s "$sub" "$dir/link"
check "started by a link" 0 '"kind":"weights"' "$dir/link" --info
chmod 555 "$sub"
check "read-only" 0 '"kind":"recipe"' "$sub" --info
check "found in PATH" 0 '"kind":"recipe"' env PATH="$dir:$PATH" submission --info
check "without an environment" 0 '"kind":"recipe"' env -i "$sub" --info
check "other working directory" 0 '"kind":"recipe"' sh -c "cd / && '$sub' --info"
check "standard input closed" 0 '"kind":"recipe"' sh -c "'$sub' --info <&-"
chmod 755 "$sub"

# Damage: one byte in each section behind the loader, then a file cut at several places.
for at in "$loader" $((loader + 100)) $((loader + 400)) $((size / 2)) $((size - 1)); do
    cp "$sub" "$dir/bad"
    byte=$(dd if="$sub" bs=1 skip="$at" count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
    printf "\\$(printf %03o $((byte ^ 16)))" | dd of="$dir/bad" bs=1 seek="$at" conv=notrunc 2>/dev/null
    check "byte $at damaged" 3 "submission: damaged" "$dir/bad" --info
done
for n in "$loader" $((loader + 40)) $((loader + 328)) $((size / 2)) $((size - 1)); do
    head -c "$n" "$sub" >"$dir/bad"
    check "cut to $n bytes" 3 "submission: damaged" "$dir/bad" --info
done
{ cat "$sub"; printf x; } >"$dir/bad"
check "a byte too many" 3 "submission: damaged" "$dir/bad" --info

# Too little of something: a message and status 4, nothing worse.
check "no descriptors" 4 "submission: refused" sh -c "ulimit -n 3; '$sub' --info"

check "budget" 4 "over the target of 1000" \
    "$bin/packer" pack "$dir/w.safetensors" -o "$dir/none" --target-bytes 1000
[ ! -e "$dir/none" ] || { echo "loader_test: a file over its budget was left" >&2; failed=1; }
check "two runs" 0 "" "$bin/packer" pack "$dir/w.safetensors" -o "$dir/again"
cmp "$sub" "$dir/again" || failed=1

[ $failed = 0 ] && echo "loader_test: ok (loader $loader bytes, runner $runner, with test-time training $full)"
exit $failed
