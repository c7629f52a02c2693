#!/bin/bash
# record_test.sh - exchange with the records' packed files: export, import, scores, refusals.
#
# Guards against a model that comes back from the records' format as another one, a compressor that only half
# of the programs know, and a record that scores differently here than its own script said.
set -u
name=record
. "$(dirname "$0")/lib.sh"
shared=$(cd "$(dirname "$0")/../../../shared" 2>/dev/null && pwd)
cd "$dir" || exit 1
packer=$BIN/packer verify=$BIN/verify
make_data data
make_recipe tiny.conf
"$BIN/trainer" tiny.conf DATA_PATH=data QUANT_CLIP=tensor QUANT_SCALE_FLOOR=1 --out m --quiet || fail "trainer"
w=m/model.quant.safetensors
tensors() { tail -c +$((9 + $(st_header "$1"))) "$1"; }
bits() { "$verify" score "$1" --data data --byte-table m/byte_table.bin 2>err.txt | grep '^scores'; }

# ---- there and back ----

tensors $w >want
bits $w >want.bits
[ -s want.bits ] || fail "no scores: $(cat err.txt)"
for how in "brotli 0 2" "brotli 5 0" "lzma 0 0" "zstd 0 0" "zlib 9 4"; do
    read -r compressor level stride <<<"$how"
    check "export: $how" "$packer" export $w -o r.ptz --compressor "$compressor" --level "$level" --shuffle "$stride"
    grep -q ": $(size r.ptz) bytes ($compressor level" out.txt || fail "export says: $(cat out.txt)"
    check "import: $how" "$packer" import r.ptz --recipe tiny.conf -o back.safetensors
    tensors back.safetensors >have
    same "the same tensors: $how" want have
    check "import without a recipe: $how" "$packer" import r.ptz -o told.safetensors
    grep -q '^recipe: VOCAB_SIZE=.* NUM_LAYERS=' out.txt || fail "no recipe is told: $(cat out.txt)"
    grep -q '^not in the file, defaults unless set: XSA_LAST_N=0' out.txt || fail "defaults are not told"
    tensors told.safetensors >have
    same "the same tensors without a recipe: $how" want have
done
check "import with the script's size" "$packer" import r.ptz --code tiny.conf -o coded.safetensors
head -c 65536 coded.safetensors | grep -aq "\"record_code_bytes\": *\"$(size tiny.conf)\"" || fail "no size of the script"
bits back.safetensors >have.bits
same "the same scores" want.bits have.bits
"$packer" export $w -o a.ptz >/dev/null && "$packer" export back.safetensors -o b.ptz >/dev/null
same "the same file from the imported weights" a.ptz b.ptz
cp m/byte_table.bin .
check "the imported weights are packed" "$packer" pack back.safetensors -o sub --record-size
grep -q "^as the record packed the weights: $(size a.ptz) bytes$" out.txt || fail "--record-size says: $(tail -1 out.txt)"

# ---- refusals ----

printf '\200\002cos\nsystem\n(X\002\000\000\000idtR.' >os.ptz
refused "a pickle that runs something" 3 'os.ptz: .*os.system' "$packer" import os.ptz --recipe tiny.conf -o no
refused "no record" 3 tiny.conf "$packer" import tiny.conf --recipe tiny.conf -o no
head -c 1000 a.ptz >cut.ptz
refused "a cut file" 3 cut.ptz "$packer" import cut.ptz --recipe tiny.conf -o no
refused "another model" 3 'a.ptz: .*do not fit' "$packer" import a.ptz --recipe tiny.conf -o no NUM_LAYERS=3
grep -q '^parameter blocks.2.attn_scale: missing' out.txt || fail "the missing tensors are not listed"
refused "no script" 3 nowhere "$packer" import a.ptz --code nowhere -o no
refused "unknown compressor" 2 rar "$packer" export $w -o no --compressor rar
refused "level" 2 'levels 1 to 9' "$packer" export $w -o no --compressor zlib --level 11
refused "option" 2 --fast "$packer" export $w -o no --fast
refused "no weights" 3 nowhere "$packer" export nowhere -o no
[ -e no ] && fail "a refused command left a file"

# ---- a record that its author published, with what the reference code scores ----

record=$shared/fixtures/ptz/taleef7.int8.ptz
if [ -n "$shared" ] && [ -r "$record" ]; then
    check "published record" "$packer" import "$record" --recipe tiny.conf -o real.safetensors VOCAB_SIZE=1024 \
        NUM_LAYERS=2 MODEL_DIM=64 NUM_HEADS=4 NUM_KV_HEADS=2 MLP_MULT=1 TRAIN_SEQ_LEN=1024 QUANT_BITS=8
    check "its score" "$verify" score real.safetensors --data "$shared/data/fineweb_sp1024/fineweb_val_000000.bin" \
        --tokenizer "$shared/tokenizers/fineweb_1024_bpe.model" --eval plain --max-tokens 65536
    bpb=$(sed -n 's/^final_plain .*val_bpb:\([0-9.]*\).*/\1/p' out.txt)
    check "4.08099557, reproduced as $bpb" awk "BEGIN { d = $bpb - 4.08099557; exit !(d < 2e-6 && d > -2e-6) }"
    check "the same without a recipe" "$packer" import "$record" -o told.safetensors
    tensors real.safetensors >want
    tensors told.safetensors >have
    same "the published record's tensors without a recipe" want have
    refused "a record of another kind" 3 'no matrix tok_emb.weight among 73 tensors' \
        "$packer" import "$shared/fixtures/ptz/conker5.int6.ptz" -o no
    grep -q '^tensor base.linear_embedding.weight.q I8 \[1024, 320\]: ' out.txt || fail "its tensors are not listed"
else
    echo "skip $name: no published records beside the project"
fi
exit $failed
