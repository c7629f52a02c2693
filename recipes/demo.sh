#!/bin/sh
# demo.sh - the main job from end to end, as `make demo` runs it: text, training, packing, verifying.
# Settings by environment: TEXT (files, blank-separated), THREADS, OUT.
set -eu
export LC_ALL=C
OUT=${OUT:-out/demo}
THREADS=${THREADS:-$(nproc)}
BIN=${BIN:-bin}
start=$(date +%s)

step() { printf '\n== %s\n' "$*"; }

step "1/4 text: tokeniser and token shards"
# shellcheck disable=SC2086  # TEXT is a list of files
if [ -n "${TEXT:-}" ]; then
    trainer/data/prepare.sh --text $TEXT --out "$OUT/data"
else
    trainer/data/prepare.sh --out "$OUT/data"
fi

step "2/4 training (recipes/demo.conf)"
"$BIN/trainer" recipes/demo.conf DATA_PATH="$OUT/data" --out "$OUT" --threads "$THREADS"

step "3/4 packing"
"$BIN/packer" pack "$OUT/model.quant.safetensors" -o "$OUT/submission"

step "4/4 the file scores itself, and verify confirms it"
"$OUT/submission" --data "$OUT/data" --threads "$THREADS" | tee "$OUT/score.txt"
# What it printed becomes the claim that verify has to confirm.
sed -E 's/final_(.*) val_loss:(.*) val_bpb:(.*) tokens:(.*) bytes:(.*) time_ms:.*/'\
'{"mode":"\1","val_loss":\2,"val_bpb":\3,"tokens":\4,"bytes":\5}/' "$OUT/score.txt" > "$OUT/claim.json"
"$BIN/verify" blob "$OUT/submission" --data "$OUT/data" --threads "$THREADS" \
    --claim "$OUT/claim.json" --execute

step "bits per byte of the same held-out text"
trainer/data/compare.sh "$OUT/data"
awk '{
    for (i = 1; i <= NF; i++) if (split($i, a, ":") == 2) v[a[1]] = a[2]
    printf "%-12s %12d bytes %9.4f\n", "this model", v["val_bpb"] * v["bytes"] / 8, v["val_bpb"]
}' "$OUT/score.txt"
cat <<EOF

made $OUT/submission in $(($(date +%s) - start)) s. Try:
    $OUT/submission --data $OUT/data --eval plain
    $OUT/submission --help
EOF
