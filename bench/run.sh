#!/bin/bash
# run.sh - the tables of bench/README.md: ours and each peer in the same run, interleaved. `make bench`.
#
# Settings by environment:
#   BIN, B      programs and build directory           THREADS  2
#   PYTHON      a Python that has torch 2.x; without one ours is measured alone
#   SHARDS      directory with token shards and tokeniser of 1024 pieces; without it, and for 4096 pieces
#               always, shards are made from Debian's English texts in OUT (out/bench)
#   PARTS       which parts to run: gemm ops codecs baseline pr1296 pr1263 scaling
#   SETS        weights for the codecs: safetensors and .ptz files, and the word gaussian; by default those in
#               ../shared and of the twins (out/twins) that are there, and gaussian (half an hour in all)
#   SECONDS_PER_SHAPE 0.5
set -eu
export LC_ALL=C
BIN=${BIN:-bin} B=${B:-build} THREADS=${THREADS:-2} PYTHON=${PYTHON:-python3} OUT=${OUT:-out/bench}
PARTS=${PARTS:-gemm ops codecs baseline pr1296 pr1263 scaling}
export OPENBLAS_CORETYPE=${OPENBLAS_CORETYPE:-SkylakeX}
# Threads of OpenBLAS spin after a call and would take the core that the other side is measured on.
export OPENBLAS_THREAD_TIMEOUT=4
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$OUT"
SECONDS=0

part() { # is it wanted? then say so, with the seconds so far
    case " $PARTS " in *" $1 "*) ;; *) return 1 ;; esac
    printf '\n== %s (%d s so far)\n' "$2" "$SECONDS"
}
shards() { # of $1 pieces
    if [ "$1" = 1024 ] && [ -n "${SHARDS:-}" ]; then
        echo "$SHARDS"
    else
        env -u SHARDS trainer/data/prepare.sh --vocab "$1" --out "$OUT/sp$1" >&2
        echo "$OUT/sp$1"
    fi
}
ours_train() { # recipe, data, tokens, steps: best step but the first, in seconds
    rm -rf "$tmp/run"
    "$BIN/trainer" "recipes/$1.conf" DATA_PATH="$2" MAX_WALLCLOCK_SECONDS=0 GPTQ_RESERVE_SECONDS=0 \
        VAL_LOSS_EVERY=0 VAL_MAX_TOKENS=2048 TRAIN_BATCH_TOKENS="$3" MICRO_BATCH_TOKENS="$3" \
        LOADER_RANKS=1 WARMUP_STEPS=0 RECUR_START_STEP=0 ITERATIONS="$4" TRAIN_LOG_EVERY=1 \
        QUANT_METHOD=search PRUNE_TARGET_BYTES=0 --threads "$THREADS" --out "$tmp/run" --quiet
    awk '/train_loss/ { match($0, /train_time:[0-9]+/)
            ms = substr($0, RSTART + 11, RLENGTH - 11); if (n++) d[n - 1] = ms - last; last = ms }
        END { best = d[1]; for (i in d) if (d[i] < best) best = d[i]; printf "%.6f\n", best / 1000 }' \
        "$tmp/run/train.log"
}
ours_score() { # mode, data, positions, windows of them: seconds per window of the model trained last
    "$BIN/verify" score "$tmp/run/model.safetensors" --data "$2" --eval "$1" --max-tokens "$3" \
        --threads "$THREADS" EVAL_WINDOWS=new 2> "$tmp/words" |
        awk -v mode="final_$1" -v n="$4" '$1 == mode { match($0, /time_ms:[0-9]+/)
            printf "%.6f\n", substr($0, RSTART + 8, RLENGTH - 8) / 1000 / n }'
}
has_torch=$("$PYTHON" -c 'import torch' 2>/dev/null && echo 1 || echo 0)
[ "$has_torch" = 1 ] || echo "(no torch in $PYTHON: set PYTHON; ours alone)"
peer() { # arguments of torch_peer.py: its best; 0 without torch or when it fails, whose last words are shown
    [ "$has_torch" = 1 ] || { echo 0; return; }
    "$PYTHON" bench/torch_peer.py "$@" > "$tmp/peer" 2> "$tmp/words" || tail -n 3 "$tmp/words" >&2
    cat "$tmp/peer" >&2
    sed -n 's/.*best \([0-9.]*\).*/\1/p' "$tmp/peer" | grep . || echo 0
}
ratio() { # name, ours, eager, compiled
    awk -v n="$1" -v o="$2" -v e="$3" -v c="$4" 'BEGIN { p = (c > 0 && (c < e || e == 0)) ? c : e
        printf "%-34s ours %8.4f s", n, o
        if (p > 0) printf "   torch eager %8.4f s   compiled %8.4f s   ratio to the better %.2f", e, c, p / o
        print "" }'
}
compare() { # name, ours, then the peer's arguments
    name=$1 ours=$2
    shift 2
    eager=$(peer "$@")
    compiled=$(peer "$@" compile)
    ratio "$name" "$ours" "$eager" "$compiled"
}

if part gemm "matrix products beside OpenBLAS ($OPENBLAS_CORETYPE)"; then
    for t in $(printf '1\n%s\n' "$THREADS" | sort -nu); do
        "$B/bench/gemm" "$t" "${SECONDS_PER_SHAPE:-0.5}"
    done
fi
if part ops "operations by themselves"; then
    "$B/bench/ops" "$THREADS"
fi
if part codecs "weight codecs beside general compressors"; then
    for set in ../shared/data/weights/*.safetensors ../shared/fixtures/ptz/conker5.int6.ptz \
        out/twins/*/model.quant.safetensors gaussian; do
        [ "$set" != gaussian ] && [ ! -e "$set" ] || found="${found:-} $set"
    done
    # shellcheck disable=SC2086
    "$B/bench/codecs" ${SETS:-$found}
fi
if part baseline "baseline (9 layers, 512 wide, sequence 1024), fp32, $THREADS threads"; then
    data=$(shards 1024)
    for batch in 1 4; do
        ours=$(ours_train baseline "$data" $((1024 * batch)) 6)
        compare "training step, $batch x 1024" "$ours" train baseline $batch 5 "$THREADS"
    done
    ours=$(ours_score sliding "$data" 3072 33)
    compare "sliding window of 1024, stride 64" "$ours" slide baseline 64 32 "$THREADS" 4
fi
if part pr1296 "PR #1296 (11 layers run as 13, 512 wide, MLP 2048, 4096 pieces), fp32, $THREADS threads"; then
    data=$(shards 4096)
    ours=$(ours_train pr1296 "$data" 2048 6)
    compare "training step, 1 x 2048" "$ours" train pr1296 1 5 "$THREADS"
    ours=$(ours_score sliding "$data" 4096 33)
    compare "sliding window of 2048, stride 64" "$ours" slide pr1296 64 16 "$THREADS" 4
fi
if part pr1263 "SLOT of PR #1263 (11 layers, 1024 pieces), fp32, $THREADS threads"; then
    data=$(shards 1024)
    ours_train pr1263 "$data" 2048 2 > /dev/null # for its weights
    ours=$(ours_score slot "$data" 4096 33)
    compare "SLOT window of 2048, 16 steps" "$ours" slot pr1263 64 8 "$THREADS" 4
fi
if part scaling "what several processes send, beside the formula of docs/scaling.md"; then
    bash bench/scaling.sh
fi
printf '\n%d s in all\n' "$SECONDS"
