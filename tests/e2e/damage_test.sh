#!/bin/bash
# damage_test.sh - every program against every kind of bad input: the exit status by the contract (design.md,
# "Commands" and "Failure"), one line that names the file and the reason, and nothing half-written.
#
# Guards against a crash, a silent success, a message that helps nobody, a partial file under a good name.
set -u
name=damage
. "$(dirname "$0")/lib.sh"
cd "$dir" || exit 1
trainer=$BIN/trainer packer=$BIN/packer verify=$BIN/verify
make_data data
make_recipe tiny.conf
"$trainer" tiny.conf DATA_PATH=data CHECKPOINT_EVERY=30 --out m --quiet || fail "trainer"
w=m/model.quant.safetensors
"$packer" pack $w -o s >/dev/null || fail "packer"
val=fineweb_val_000000.bin train=fineweb_train_000000.bin

# nothing CASE PATH...: none of these may be there, nor a temporary file beside them.
nothing() {
    what=$1
    shift
    for p in "$@"; do
        for q in "$p" "$p".tmp*; do
            [ -e "$q" ] || continue
            fail "$what: left $q behind"
            rm -rf "$q"
        done
    done
}
# kept CASE FILE: the older file, whose text is "older", is still there, and nothing temporary.
kept() {
    [ "$(cat "$2" 2>/dev/null)" = older ] || fail "$1: the older $2 is gone"
    nothing "$1" "$2".tmp
    for q in "$2".tmp*; do [ -e "$q" ] && fail "$1: left $q behind"; done
}

# ---- bad token streams: for everything that scores or trains ----

bad_data() { # bad_data DIR FILE: a copy of the data whose FILE may be changed
    rm -rf "$1"
    mkdir "$1"
    cp data/* "$1"
}
bad_data d_cut && head -c 3001 data/$val >d_cut/$val
bad_data d_head && head -c 500 data/$val >d_head/$val
bad_data d_magic && flip d_magic/$val 0
bad_data d_version && flip d_version/$val 4
bad_data d_count && flip d_count/$val 8
bad_data d_zero && head -c 1024 data/$val >d_zero/$val && poke d_zero/$val 8 0 0 0 0
bad_data d_token && poke d_token/$val 1124 40 0 # 32, the vocabulary
bad_data d_short && { head -c 1024 data/$val; head -c 20 /dev/zero; } >d_short/$val &&
    poke d_short/$val 8 12 0 0 0
bad_data d_empty && : >d_empty/$val
mkdir d_none d_dir d_dir/$val
cp data/letters.model d_none
cp data/letters.model data/$train d_dir
# data directory : what the line must say
streams="d_cut=$val:.header.says d_head=$val:.not.a.token.shard d_magic=$val:.not.a.token.shard
d_version=$val:.not.a.token.shard d_count=$val:.header.says d_zero=$val:.holds.no.tokens
d_token=$val:.token.50.is.32,.the.vocabulary.has.32 d_empty=$val:.not.a.token.shard
d_short=one.window.needs.32 d_none=d_none:.no d_dir=$val: nowhere=nowhere:.no.such"
for x in $streams; do
    d=${x%%=*} text=${x#*=}
    refused "submission, $d" 3 "$text" ./s --data $d --nll n.npy
    nothing "submission, $d" n.npy
    refused "verify score, $d" 3 "$text" "$verify" score $w --data $d --nll n.npy
    nothing "verify score, $d" n.npy
    refused "verify blob, $d" 3 "$text" "$verify" blob s --data $d --nll n.npy
    nothing "verify blob, $d" n.npy
    refused "trainer, $d" 3 "$text" "$trainer" tiny.conf DATA_PATH=$d --out t --quiet
    nothing "trainer, $d" t/model.safetensors t/model.quant.safetensors t/checkpoint
    rm -rf t
done
# A damaged train shard is met when training reaches it.
bad_data e_cut && head -c 3001 data/$train >e_cut/$train
bad_data e_token && poke e_token/$train 1124 0 4
bad_data e_none && rm e_none/$train
for x in "e_cut=$train:.header.says" "e_token=$train:.token.50.is.1024" "e_none=no.\*_train_"; do
    d=${x%%=*}
    refused "trainer, $d" 3 "${x#*=}" "$trainer" tiny.conf DATA_PATH=$d --out t --quiet
    nothing "trainer, $d" t/model.safetensors t/model.quant.safetensors t/checkpoint
    rm -rf t
done

# ---- recipes and settings ----

run="$trainer tiny.conf DATA_PATH=data --out t --quiet"
refused "trainer: unknown key" 2 "command line: unknown key NUM_LAYER; .*NUM_LAYERS" $run NUM_LAYER=3
refused "trainer: not a number" 2 "NUM_LAYERS=three" $run NUM_LAYERS=three
refused "trainer: empty number" 2 "NUM_LAYERS=" $run NUM_LAYERS=
refused "trainer: bad environment" 2 "environment: SEED=x" env SEED=x $run
for x in NUM_LAYERS=0 NUM_HEADS=0 NUM_HEADS=5 NUM_KV_HEADS=3 MODEL_DIM=0 MODEL_DIM=1000000000000 \
    ROPE_DIMS=3 ROPE_DIMS=10 MLP_MULT=0 VOCAB_SIZE=0 VOCAB_SIZE=70000 TRAIN_SEQ_LEN=0 EVAL_STRIDE=0 \
    LOGIT_SOFTCAP=-1 TRAIN_BATCH_TOKENS=0 TRAIN_BATCH_TOKENS=33 TRAIN_BATCH_TOKENS=-1 \
    MICRO_BATCH_TOKENS=33 ITERATIONS=-1 QUANT_BITS=1 QUANT_BITS=9 QUANT_EMBED_BITS=0 EVAL_MODE=slide \
    EVAL_WINDOWS=newer INIT=zeros QUANT_CLIP=none; do
    refused "trainer: impossible $x" 2 "${x%%=*}" $run $x
    nothing "trainer: impossible $x" t/model.safetensors
done
echo 'NUM_LAYER=3' >bad.conf
refused "trainer: unknown key in a file" 2 "bad.conf:1: unknown key NUM_LAYER; .*NUM_LAYERS" \
    "$trainer" bad.conf --out t
head -c 3000 /dev/urandom >noise
refused "trainer: noise as a recipe" 2 "noise" "$trainer" noise --out t
refused "trainer: no such recipe" 3 "none.conf" "$trainer" none.conf --out t
refused "trainer: a folder as a recipe" 3 "data: not a regular file" "$trainer" data --out t
refused "trainer: no recipe" 2 "recipe" "$trainer"
refused "trainer: unknown option" 2 "--nonsense" $run --nonsense
refused "trainer: option without a value" 2 "--out" "$trainer" tiny.conf --out
refused "trainer: unknown device" 2 "--device tpu" $run --device tpu
refused "trainer: vocabulary and tokeniser differ" 3 "VOCAB_SIZE\|pieces" $run VOCAB_SIZE=64
refused "verify: unknown key" 2 "unknown key EVAL_STRID; .*EVAL_STRIDE" \
    "$verify" score $w --data data EVAL_STRID=3
refused "verify: impossible" 2 "EVAL_STRIDE" "$verify" score $w --data data EVAL_STRIDE=0
refused "verify: another model" 3 "tensor" "$verify" score $w --data data MODEL_DIM=64
refused "verify: mode" 2 "slide" "$verify" score $w --data data --eval slide
refused "submission: mode" 2 "slide" ./s --data data --eval slide
refused "submission: unknown option" 2 "--nonsense" ./s --nonsense
refused "submission: no data" 2 "--data" ./s
refused "submission: option without a value" 2 "--data" ./s --data
refused "submission: not a number" 2 "--threads" ./s --data data --threads two
refused "submission: not a number of tokens" 2 "--max-tokens" ./s --data data --max-tokens 1e3
refused "packer: no output" 2 "-o" "$packer" pack $w
refused "packer: codec" 2 "--codec" "$packer" pack $w -o y --codec rar
refused "packer: unknown key" 2 "QUANT_BIT; .*QUANT_BITS" \
    "$packer" quantize m/model.safetensors -o y QUANT_BIT=5
refused "packer: bits" 2 "QUANT_BITS" "$packer" quantize m/model.safetensors -o y QUANT_BITS=12
nothing "wrong use" y t/model.safetensors

# ---- training that goes wrong ----

refused "trainer: diverges" 3 "step [0-9]*.*\(tensor\|loss\|[a-z]*\.weight\)" \
    $run MATRIX_LR=1e20 SCALAR_LR=1e20 TIED_EMBED_LR=1e20
nothing "trainer: diverges" t/model.safetensors t/model.quant.safetensors
rm -rf t
refused "trainer: nothing to resume" 3 "t/checkpoint" $run --resume
cp -r m r
go="$trainer tiny.conf DATA_PATH=data ITERATIONS=40 --out r --resume --quiet"
rm r/*.safetensors
n=$(size m/checkpoint)
for cut in 0 1 8 100 $((n / 2)) $((n - 1)); do
    head -c "$cut" m/checkpoint >r/checkpoint
    refused "trainer: checkpoint cut to $cut" 3 "r/checkpoint" $go
done
for at in 3 20 $((n / 3)) $((n / 2)) $((n - 3)); do
    cp m/checkpoint r/checkpoint
    flip r/checkpoint $at
    refused "trainer: checkpoint with a flipped bit at $at" 3 "r/checkpoint" $go
done
cp m/checkpoint r/checkpoint
refused "trainer: another recipe's checkpoint" 3 "MODEL_DIM" $go MODEL_DIM=64
bad_data d_other && cp data/$val d_other/$train
refused "trainer: other shards than the checkpoint's" 3 "checkpoint\|shard" $go DATA_PATH=d_other
nothing "refused checkpoints" r/model.safetensors r/model.quant.safetensors
check "trainer: the good checkpoint after all" $go

# ---- weights ----

n=$(size $w)
head=$(st_header $w)
mkdir c
cp m/byte_table.bin c
weights() { # weights CASE STATUS TEXT: c/w through every program that reads weights
    refused "packer pack, $1" "$2" "$3" "$packer" pack c/w -o y
    refused "verify score, $1" "$2" "$3" "$verify" score c/w --data data --nll n.npy
    nothing "$1" y n.npy
}
for cut in 0 7 8 50 $((head / 2)) $((8 + head)) $((n - 1)); do
    head -c "$cut" $w >c/w
    weights "weights cut to $cut" 3 "c/w: "
done
{ cat $w; printf x; } >c/w
weights "a byte behind the weights" 3 "c/w: 1 bytes behind"
for at in 2 8 9; do
    cp $w c/w
    flip c/w $at
    weights "weights with a flipped bit at $at" 3 "c/w: "
done
tensor=blocks.1.attn_scale
cp $w c/w
poke c/w "$(st_offset c/w $tensor)" 0 176 # fp16 NaN is 0x7e00
weights "NaN" 3 "c/w: tensor $tensor: element 0 is not finite"
cp $w c/w
poke c/w "$(st_offset c/w blocks.0.mlp.fc.weight.scale)" 0 174 # infinity
weights "infinite scale" 3 "c/w: tensor blocks.0.mlp.fc.weight: .* not finite"
sed "s/$tensor/blocks.1.attn_scald/" $w >c/w
weights "a tensor of another name" 3 "c/w: tensor $tensor"
sed 's/NUM_LAYERS=2/NUM_LAYERS=3/' $w >c/w
weights "a recipe with more layers" 3 "tensor blocks.2"
sed 's/NUM_HEADS=4/NUM_HEADS=0/' $w >c/w
weights "an impossible recipe in the weights" "2|3" "NUM_HEADS=0"
cp m/checkpoint c/w
weights "a checkpoint as weights" 3 "c/w"
cp s c/w
weights "a submission as weights" 3 "c/w"
: >c/w
weights "empty weights" 3 "c/w"
rm c/w
weights "no weights" 3 "c/w"
mkdir c/w
weights "a folder as weights" 3 "c/w"
rmdir c/w
cp m/model.safetensors c/w
poke c/w "$(st_offset c/w blocks.0.mlp.fc.weight)" 0 0 300 177
refused "packer quantize, NaN" 3 "blocks.0.mlp.fc.weight" "$packer" quantize c/w -o y
head -c 5000 m/model.safetensors >c/w
refused "packer quantize, cut" 3 "c/w" "$packer" quantize c/w -o y
nothing "packer quantize" y

# The byte table beside the weights.
cp $w c/w
for cut in 0 3 40 67; do
    head -c $cut m/byte_table.bin >c/byte_table.bin
    weights "byte table cut to $cut" 3 "byte_table.bin: not a byte table"
done
cp m/byte_table.bin c/byte_table.bin
poke c/byte_table.bin 5 7
weights "byte table with unknown flags" 3 "byte_table.bin: piece 0: unknown flags"
rm c/byte_table.bin
refused "packer pack, no byte table" 3 "byte_table.bin\|tokeni[sz]er" "$packer" pack c/w -o y

# ---- the submission itself ----

n=$(size s)
for cut in 64 120 1000 3000 20000 $((n - 100)) $((n - 1)); do
    head -c $cut s >x
    chmod 755 x
    what="submission cut to $cut"
    if [ $cut -lt 3000 ]; then # not even the loader is whole, so nobody can say anything
        if bash -c './x --data data; exit $?' >out.txt 2>&1; then fail "$what: exit status 0"; else ok "$what"; fi
    else
        refused "$what" 3 "" ./x --data data
        [ -s out.txt ] && fail "$what: prints $(cat out.txt)"
    fi
    got=0
    "$verify" blob x --data data >out.txt 2>err.txt || got=$?
    [ $got -eq 3 ] || fail "verify blob, $what: exit status $got"
done
./s --info | tr ',' '\n' | sed -n 's/.*"offset":\([0-9]*\).*/\1/p' >offsets
[ "$(wc -l <offsets)" -eq 6 ] || fail "info shows $(wc -l <offsets) sections"
# In the beginning and the middle of each section but the loader itself, which cannot check itself.
for at in $(tail -n +2 offsets | awk '{ print $1 + 1; print $1 + 40 } { print $1 + 9 }') $((n - 1)); do
    cp s x
    flip x "$at"
    refused "submission with a flipped bit at $at" 3 "" ./x --data data
    [ -s out.txt ] && fail "flipped bit at $at: prints $(cat out.txt)"
    got=0
    "$verify" blob x --data data >out.txt 2>err.txt || got=$?
    [ $got -eq 3 ] || fail "verify blob, flipped bit at $at: exit status $got"
done
{ cat s; printf x; } >x
refused "verify blob: a byte behind the end" 3 "" "$verify" blob x --data data --quiet

# ---- where nothing can be written ----

echo older >old
mkdir locked
cp old locked/old
chmod 555 locked
chmod 755 .
nobody=
if [ "$(id -u)" = 0 ]; then # root may write anywhere; be nobody for these
    nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"
    command -v setpriv >/dev/null || { echo "skip $name: read-only folder: no setpriv"; nobody=skip; }
    # The programs must be reachable for nobody.
    mkdir bin && cp "$trainer" "$packer" "$verify" bin && chmod -R a+rX .
else
    mkdir bin && cp "$trainer" "$packer" "$verify" bin
fi
if [ "$nobody" != skip ]; then
    refused "read-only: submission" 4 "locked/n.npy" $nobody ./s --data data --nll locked/n.npy
    refused "read-only: verify" 4 "locked/n.npy" $nobody bin/verify score $w --data data --nll locked/n.npy
    refused "read-only: packer" 4 "locked/old" $nobody bin/packer pack $w -o locked/old
    kept "read-only: packer" locked/old
    refused "read-only: trainer" 4 "locked" $nobody bin/trainer tiny.conf DATA_PATH=data --out locked --quiet
    refused "read-only: trainer, new folder" 4 "locked/t" \
        $nobody bin/trainer tiny.conf DATA_PATH=data --out locked/t --quiet
    kept "read-only: trainer" locked/old
fi
chmod 755 locked
refused "no folder: submission" 4 "no/where.npy" ./s --data data --nll no/where.npy
refused "no folder: verify" 4 "no/where.npy" "$verify" score $w --data data --nll no/where.npy
refused "no folder: packer" 4 "no/where" "$packer" pack $w -o no/where
refused "no folder: quantize" 4 "no/where" "$packer" quantize m/model.safetensors -o no/where
refused "a file as the folder: trainer" 4 "old" "$trainer" tiny.conf DATA_PATH=data --out old --quiet
refused "a folder as the file: packer" 4 "data" "$packer" pack $w -o data

# The disk is full: first a device that always is, then a limit on the size of files.
if [ -w /dev/full ]; then
    refused "full disk: submission" 4 "/dev/full" ./s --data data --nll /dev/full
    refused "full disk: verify" 4 "/dev/full" "$verify" score $w --data data --nll /dev/full
    refused "full disk: packer" 4 "/dev/full" "$packer" pack $w -o /dev/full
    [ -c /dev/full ] || fail "/dev/full was replaced"
fi
cat >limited <<'EOF'
#!/bin/bash
# limited BLOCKS COMMAND...: no file may grow beyond BLOCKS * 1024 bytes
trap '' XFSZ
ulimit -f "$1"
shift
exec "$@"
EOF
chmod 755 limited
printf older >lim
refused "full disk, packer" 4 "lim" ./limited 20 "$packer" pack $w -o lim
kept "full disk, packer" lim
refused "full disk, quantize" 4 "lim" ./limited 4 "$packer" quantize m/model.safetensors -o lim
kept "full disk, quantize" lim
printf older >lim.npy
refused "full disk, verify" 4 "lim.npy" ./limited 4 "$verify" score $w --data data --nll lim.npy
kept "full disk, verify" lim.npy
# The loader needs room for the runner in memory, which the same limit covers.
refused "no room for the runner" 4 "submission: refused" ./limited 4 ./s --data data
for blocks in 1 8 40; do # the log, the quantised weights, the weights
    rm -rf t
    refused "full disk, trainer, $blocks KB" 4 "t/\|disk\|space" \
        ./limited $blocks "$trainer" tiny.conf DATA_PATH=data CHECKPOINT_EVERY=0 --out t --quiet
    for f in t/*; do
        case $f in
        t/train.log | t/byte_table.bin | t/model.safetensors | t/model.quant.safetensors) ;;
        *) [ -e "$f" ] && fail "full disk, trainer, $blocks KB: left $f" ;;
        esac
    done
    [ -e t/model.safetensors ] && [ "$(size t/model.safetensors)" -ne "$(size m/model.safetensors)" ] &&
        fail "full disk, trainer, $blocks KB: half a model"
done
refused "too small a budget" 4 "[0-9,]* bytes" "$packer" pack $w -o y --target-bytes 20000
nothing "too small a budget" y

# Out of memory: far less address space than scoring needs.
refused "no memory: submission" 4 "" bash -c 'ulimit -v 4000; exec ./s --data data'
grep -q __asan_init "$trainer" || # which needs terabytes of addresses
    refused "no memory: trainer" 4 "" bash -c 'ulimit -v 60000; exec "$0" tiny.conf DATA_PATH=data \
    TRAIN_BATCH_TOKENS=1048576 MICRO_BATCH_TOKENS=1048576 --threads 1 --out t --quiet' "$trainer"

exit $failed
