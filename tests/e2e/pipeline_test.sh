#!/bin/bash
# pipeline_test.sh - the whole way on made-up data: shards, training, quantised weights, one file, its score.
#
# Guards against programs that pass their own tests and do not fit together; numbers that differ between
# the programs that print them; files that are not the same the second time; a run that goes on wrongly
# after an interruption.
set -u
name=pipeline
. "$(dirname "$0")/lib.sh"
cd "$dir" || exit 1
make_data data
make_recipe tiny.conf

# ---- training ----

check "train" "$BIN/trainer" tiny.conf DATA_PATH=data --out a
for f in model.safetensors model.quant.safetensors byte_table.bin train.log; do
    [ -s "a/$f" ] || fail "a/$f is missing"
done
check "the log has the community's lines" awk '
    /^step:10\/30 train_loss:[0-9.]+ train_time:[0-9]+ms step_avg:[0-9.]+ms$/ { s = 1 }
    /^step:30\/30 val_loss:[0-9.]+ val_bpb:[0-9.]+ train_time:/ { v = 1 }
    /^final_int6_roundtrip_exact val_loss:[0-9.]+ val_bpb:[0-9.]+$/ { f = 1 }
    /^Serialized model: [0-9]+ bytes$/ { b = 1 }
    END { exit !(s && v && f && b) }' a/train.log
loss() { grep "^step:$1/30 val_loss:" a/train.log | sed 's/.*val_loss:\([0-9.]*\).*/\1/'; }
check "it learns" awk "BEGIN { exit !($(loss 30) < 3.0) }"
"$BIN/trainer" tiny.conf DATA_PATH=data --out b --threads 1 --quiet >b.out 2>&1 || fail "second run"
[ -s b.out ] && fail "--quiet prints: $(cat b.out)"
tensors() { tail -c +$((9 + $(st_header "$1"))) "$1"; } # the header holds the time
for f in model model.quant; do
    tensors a/$f.safetensors >x
    tensors b/$f.safetensors >y
    same "the same $f again, with one thread" x y
done
"$BIN/trainer" tiny.conf DATA_PATH=data SEED=5 --out c --quiet || fail "another seed"
tensors c/model.safetensors >y
if cmp -s x y; then fail "another seed gives the same model"; else ok "another seed"; fi
check "dry run" "$BIN/trainer" tiny.conf DATA_PATH=data --dry-run
cp out.txt dry.txt
check "dry run counts the parameters" grep -q '^parameters: 15656$' dry.txt
[ -e out/tiny ] && fail "a dry run writes"
check "baseline's parameters" sh -c \
    "'$BIN/trainer' '$OLDPWD/recipes/baseline.conf' --dry-run | grep -q '^parameters: 17059912$'"

# ---- interruption ----

# Until a checkpoint stands at some step: SIGTERM as soon as the log shows step 5.
"$BIN/trainer" tiny.conf DATA_PATH=data ITERATIONS=400 WARMDOWN_ITERS=100 TRAIN_LOG_EVERY=1 --out whole \
    --quiet || fail "400 steps"
"$BIN/trainer" tiny.conf DATA_PATH=data ITERATIONS=400 WARMDOWN_ITERS=100 TRAIN_LOG_EVERY=1 --out cut \
    --quiet 2>cut.txt &
pid=$!
for _ in $(seq 200); do
    grep -q '^step:5/' cut/train.log 2>/dev/null && break
    sleep 0.01
done
kill -TERM $pid 2>/dev/null
wait $pid
status=$?
if [ $status -eq 0 ]; then
    echo "skip $name: the run ended before the signal"
elif [ $status -ne 4 ] || [ ! -s cut/checkpoint ] || [ -e cut/model.safetensors ]; then
    fail "interrupted: exit status $status, $(ls cut): $(cat cut.txt)"
else
    ok "interrupted at $(grep -o '^step:[0-9]*' cut/train.log | tail -1)"
    check "resume" "$BIN/trainer" tiny.conf DATA_PATH=data ITERATIONS=400 WARMDOWN_ITERS=100 \
        TRAIN_LOG_EVERY=1 --out cut --resume --quiet
    tensors whole/model.safetensors >x
    tensors cut/model.safetensors >y
    same "the same weights as without interruption" x y
fi

# ---- packing ----

check "pack" "$BIN/packer" pack a/model.quant.safetensors -o s1
cp out.txt table.txt
check "the table of bytes adds up" awk -v size="$(size s1)" '
    { for (i = 1; i <= NF; i++) { n = $i; gsub(",", "", n); if (n == size) found = 1 } }
    END { exit !found }' table.txt
"$BIN/packer" pack a/model.quant.safetensors -o s2 >/dev/null || fail "pack again"
same "the same file from two packs" s1 s2
[ -x s1 ] || fail "not executable"
[ "$(size s1)" -lt 200000 ] || fail "$(size s1) bytes for a model of 15,656 parameters"
check "info is JSON with every section" awk -v size="$(size s1)" '
    { text = text $0 }
    END {
        n = split("total_bytes loader header runner weights byte_table recipe offset size codec", w, " ")
        for (i = 1; i <= n; i++) if (text !~ "\"" w[i] "\"") exit 1
        exit text !~ "\"total_bytes\":" size "[,}]"
    }' <(./s1 --info)

# ---- scoring: four ways, one number ----

for mode in plain sliding; do
    ./s1 --data data --eval $mode --nll s.npy >s.txt || fail "submission, $mode"
    "$BIN/verify" score a/model.quant.safetensors --data data --eval $mode --nll v.npy >v.txt ||
        fail "verify score, $mode"
    "$BIN/verify" blob s1 --data data --eval $mode --execute >b.txt || fail "verify blob, $mode"
    result s.txt >x
    result v.txt >y
    result b.txt >z
    same "$mode: submission and verify score print the same" x y
    same "$mode: submission and verify blob print the same" x z
    same "$mode: the same score of every token" s.npy v.npy
    [ "$(tail -n 1 b.txt)" = verified ] || fail "$mode: the last line is $(tail -n 1 b.txt)"
    check "$mode: the line has the community's form" grep -Eq \
        "^final_$mode val_loss:[0-9]+\.[0-9]{8} val_bpb:[0-9]+\.[0-9]{8} tokens:[0-9]+ bytes:[0-9]+ time_ms:[0-9]+$" s.txt
done
# A shard is a header of 1,024 bytes and two bytes per token; each position is scored once.
tokens=$((($(size data/fineweb_val_000000.bin) - 1024) / 2))
check "every token is scored once" grep -q " tokens:$(((tokens - 1) / 32 * 32)) " s.txt
exact=$(sed -n 's/^final_int6_roundtrip_exact val_loss:\([0-9.]*\).*/\1/p' a/train.log)
./s1 --data data --eval plain >s.txt
check "the log's round trip is the submission's plain score" grep -q "val_loss:$exact " s.txt
./s1 --data data --max-tokens 100 >s.txt
check "max tokens" grep -q ' tokens:96 ' s.txt
./s1 --data data/fineweb_val_000000.bin >y
result y >y2
result z >z2 2>/dev/null
./s1 --data data >z
result z >z2
same "a shard by its name" y2 z2
check "json" sh -c "./s1 --data data --json | grep -q '^{\"mode\":\"sliding\",\"val_loss\":'"
check "help" sh -c './s1 --help | grep -q "^usage: submission"'

# ---- the file goes anywhere ----

mkdir far "far/read only"
cp s1 "far/read only/my submission"
chmod 555 "far/read only/my submission" "far/read only"
ln -s "read only/my submission" far/link
(cd far && env -i ./link --data ../data) >y || fail "through a link, without an environment"
result y >y2
same "through a link, without an environment" y2 z2
(exec 0<&- && ./s1 --data data) >y || fail "without standard input"
result y >y2
same "without standard input" y2 z2
chmod 755 "far/read only"

# ---- codecs, quantiser, budget ----

for codec in range lzma none; do
    check "codec $codec" "$BIN/packer" pack a/model.quant.safetensors -o s.$codec --codec $codec
    ./s.$codec --data data >y
    result y >y2
    same "codec $codec: the same score" y2 z2
done
auto=$(size s1)
for codec in range lzma none; do
    [ "$auto" -le "$(size s.$codec)" ] || fail "codec auto is larger than $codec"
done
check "quantise" "$BIN/packer" quantize a/model.safetensors -o q.safetensors
tensors q.safetensors >x
tensors a/model.quant.safetensors >y
same "the quantiser alone gives the trainer's file" x y
check "pack to the byte" "$BIN/packer" pack a/model.quant.safetensors -o s3 --target-bytes "$auto"
refused "a byte too many" 4 "$auto" \
    "$BIN/packer" pack a/model.quant.safetensors -o s4 --target-bytes $((auto - 1))
[ -e s4 ] && fail "a file beyond the budget was written"
mkdir x1
check "extract" ./s1 --extract x1
check "the recipe inside is the recipe" grep -q '^MODEL_DIM=32$' x1/recipe
same "the byte table inside is the trainer's" x1/byte_table a/byte_table.bin

exit $failed
