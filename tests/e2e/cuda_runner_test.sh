#!/bin/bash
# cuda_runner_test.sh - guards against a file packed with --runner cuda that does not run where there is no card, that
# is larger than promised, that ends instead of going on when something of the driver fails, or that computes
# something else than the CPU on a card.
#
# There is no card here. The driver's library is a stand-in that executes the kernels on the CPU (tests/gpu/driver),
# so what is not seen is the PTX as a driver compiles it.
#
# Environment: BIN and B, the directories of the programs and of the build (bin, build).
set -u
name=cuda_runner_test
B=$(cd "${B:-build}" && pwd)
here=$(dirname "$0")
# shellcheck source=tests/e2e/lib.sh
. "$here/lib.sh"
driver=$B/emu/libcuda.so.1
make_data "$dir/data"
make_recipe "$dir/r.conf"
printf 'SLOT_STEPS=2\nTTT_CHUNK_TOKENS=32\nTTT_EPOCHS=2\n' >>"$dir/r.conf"
sub=$dir/sub
"$BIN/trainer" "$dir/r.conf" DATA_PATH="$dir/data" ITERATIONS=3 --out "$dir/run" --quiet || fail trainer
cp "$dir/data/letters.model" "$dir" 2>/dev/null
"$BIN/packer" pack "$dir/run/model.quant.safetensors" -o "$dir/cpu" >/dev/null || fail "pack for the CPU"
if ! "$BIN/packer" pack "$dir/run/model.quant.safetensors" --runner cuda -o "$sub" >"$dir/table" 2>"$dir/err.txt"; then
    if grep -q "built without nvcc" "$dir/err.txt"; then
        echo "skip $name: this build has no CUDA kernels"
        exit $failed
    fi
    fail "pack: $(cat "$dir/err.txt")"
fi

# ---- the file ----

bytes=$("$sub" --info | awk -F '[:,]' '/loader|header|runner|cuda/ { n += $8 } END { print n }')
if [ "$bytes" -le $((96 * 1024)) ]; then ok "$bytes bytes of code"; else fail "$bytes bytes of code, 98304 are promised"; fi
check "extract" "$sub" --extract "$dir/parts"
if tr '\0' '\n' <"$dir/parts/cuda" | grep -aq '^\.version 7\.0$'; then ok "kernels are PTX"; else fail "kernels are no PTX"; fi
check "verify" "$BIN/verify" blob "$sub" --data "$dir/data" --max-tokens 64 --execute
for line in 'builds  *loader known, runner known' 'cuda  *[0-9]* bytes of kernels, those of this build' \
    'needs  *libcuda.so.1 to use a card' '^verified$'; do
    if grep -q "$line" "$dir/out.txt"; then ok "verify says: $line"; else fail "verify does not say: $line"; fi
done
check "pack with the source" "$BIN/packer" pack "$dir/run/model.quant.safetensors" --runner cuda --with-source -o "$dir/all"
check "info with the source" "$dir/all" --info
if [ "$(grep -c '"kind":"\(source\|cuda\)"' "$dir/out.txt")" = 2 ]; then ok "both kinds"; else fail "not both kinds"; fi
cp "$sub" "$dir/bad"
flip "$dir/bad" $(($(size "$sub") - 100))
refused "a kernel damaged" 3 "damaged" "$dir/bad" --info
refused "a kernel damaged, verify" 3 "cuda: damaged" "$BIN/verify" blob "$dir/bad" --data "$dir/data"
refused "a device that is none" 2 "must be auto, cpu or cuda" "$sub" --data "$dir/data" --device gpu

# ---- without a card: the CPU's bits, and a line that says why ----

"$dir/cpu" --data "$dir/data" --max-tokens 64 --nll "$dir/cpu.npy" >"$dir/cpu.txt" || fail "CPU"

# left CASE REASON [VAR=VALUE]... -- ARGUMENT...
left() {
    what=$1 why=$2
    shift 2
    set_to=()
    while [ "$1" != -- ]; do set_to+=("$1") && shift; done
    shift
    rm -f "$dir/x.npy"
    if ! env "${set_to[@]}" "$sub" --data "$dir/data" --max-tokens 64 --nll "$dir/x.npy" "$@" >"$dir/x.txt" 2>"$dir/x.err"; then
        fail "$what: $(cat "$dir/x.err")"
    elif [ "$(cat "$dir/x.err")" != "submission: no CUDA ($why): scoring on the CPU" ]; then
        fail "$what: said $(cat "$dir/x.err")"
    elif [ "$(result "$dir/x.txt")" != "$(result "$dir/cpu.txt")" ]; then
        fail "$what: $(cat "$dir/x.txt")"
    else
        same "$what" "$dir/x.npy" "$dir/cpu.npy"
    fi
}

check "--device cpu" "$sub" --data "$dir/data" --max-tokens 64 --device cpu
if [ ! -s "$dir/err.txt" ] && [ "$(result "$dir/out.txt")" = "$(result "$dir/cpu.txt")" ]; then
    ok "--device cpu says nothing"
else
    fail "--device cpu: $(cat "$dir/out.txt" "$dir/err.txt")"
fi
if [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; then
    echo "skip $name: no option given (there is a device)"
else
    left "no device, no option" "there is no NVIDIA device" X=1 --
fi
mkdir "$dir/none" "$dir/old"
: | ${CC:-gcc} -shared -o "$dir/old/libcuda.so.1" -x c - || fail "an empty library"
left "old library" "libcuda.so.1 is too old" LD_LIBRARY_PATH="$dir/old" -- --device auto
refused "old library, forced" 4 "no CUDA (libcuda.so.1 is too old)" \
    env LD_LIBRARY_PATH="$dir/old" "$sub" --data "$dir/data" --device cuda

# ---- with the stand-in ----

if [ ! -e "$driver" ]; then
    echo "skip $name: $driver is not built"
    exit $failed
fi
card="LD_LIBRARY_PATH=$B/emu"
left "cuInit fails" "cuInit: CUDA_ERROR_NO_DEVICE" "$card" FAKE_CUDA=init -- --device auto
left "an old card" "Emulated card, sm_75, sm_80 is needed" "$card" FAKE_CUDA=sm_75 -- --device auto
left "an old driver" "cuModuleLoadData: CUDA_ERROR_UNSUPPORTED_PTX_VERSION" "$card" FAKE_CUDA=ptx -- --device auto
left "no memory" "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY" "$card" FAKE_CUDA=memory -- --device auto
left "the device fails" "cuCtxSynchronize: CUDA_ERROR_LAUNCH_FAILED" "$card" FAKE_CUDA=sync -- --device auto
refused "cuInit fails, forced" 4 "no CUDA (cuInit: CUDA_ERROR_NO_DEVICE)" \
    env "$card" FAKE_CUDA=init "$sub" --data "$dir/data" --device cuda
"$sub" --data "$dir/data" --max-tokens 64 --eval ttt --device cpu --nll "$dir/cpu.npy" >"$dir/cpu.txt" || fail "ttt, CPU"
left "the device fails, ttt" "cuCtxSynchronize: CUDA_ERROR_LAUNCH_FAILED" "$card" FAKE_CUDA=sync -- --device auto --eval ttt

# near CASE FILE FILE: the last val_bpb of both, within 2e-4.
near() {
    if awk -F '[ :]' '/^final_/ { v[FILENAME] = $5 } END { for (f in v) { n++; d = n == 1 ? v[f] : d - v[f] }
        exit !(n == 2 && d * d < 4e-8) }' "$2" "$3"; then
        ok "$1"
    else
        fail "$1: $(cat "$2" "$3")"
    fi
}

# on_card CASE FILE OPTION...: the CPU's score, and the same bits twice.
on_card() {
    mode=$1 file=$2
    shift 2
    "$file" --data "$dir/data" "$@" --device cpu >"$dir/cpu.txt" || fail "$mode, CPU"
    check "$mode on a card" env "$card" "$file" --data "$dir/data" "$@" --device cuda --nll "$dir/x.npy"
    near "$mode on a card: the CPU's score" "$dir/out.txt" "$dir/cpu.txt"
    check "$mode on a card again" env "$card" EMU_ORDER=down "$file" --data "$dir/data" "$@" --device auto --nll "$dir/y.npy"
    same "$mode on a card: the same bits again" "$dir/x.npy" "$dir/y.npy"
}
for mode in sliding slot ttt; do on_card $mode "$sub" --max-tokens 128 --eval $mode; done

# Other models: every operation whose gradient test-time training needs, and frozen blocks; wide heads, and so many
# rows that their sums take two steps.
# trained NAME SETTING...
trained() {
    to=$1
    shift
    "$BIN/trainer" "$dir/r.conf" DATA_PATH="$dir/data" ITERATIONS=3 EVAL_MODE=ttt TTT_EPOCHS=1 NUM_LAYERS=1 "$@" \
        --out "$dir/$to.run" --quiet || fail "trainer, $to"
    check "pack, $to" "$BIN/packer" pack "$dir/$to.run/model.quant.safetensors" --runner cuda -o "$dir/$to"
}
trained every NUM_LAYERS=2 XSA_LAST_N=1 SMEAR_GATE=1 BIGRAM_VOCAB_SIZE=64 BIGRAM_DIM=8 VE_ENABLED=1 VE_LAYERS=1 VE_DIM=8 \
    SKIP_GATES_ENABLED=1 EMBED_BF16=1 MLP_SLOPE=0.5 ROPE_DIMS=4 TTT_CHUNK_TOKENS=64 TTT_FREEZE_BLOCKS=1 \
    TTT_FREEZE_MATRICES=0 TTT_LR=0.05 EVAL_STRIDE=32
on_card "ttt of every operation" "$dir/every" --max-tokens 192
trained wide MODEL_DIM=72 NUM_HEADS=1 NUM_KV_HEADS=1 EVAL_SEQ_LEN=1040 EVAL_STRIDE=480 TTT_CHUNK_TOKENS=1040 TTT_LR=0.1
on_card "ttt of long rows and wide heads" "$dir/wide" --max-tokens 1520
exit $failed
