#!/bin/bash
# gpu.sh - the figures that need a graphics card, beside its own ceilings and PyTorch in the same run: `make bench-gpu`.
# Ours are printed as they come; a peer that fails or takes too long is named and left out of the ratio.
#
# Settings by environment:
#   PARTS    some of: ops pr1296 pr1263
#   PEERS    some of: eager compile cudnn (compiled, with cuDNN's attention); empty: ours alone
#   PYTHON   a Python whose torch sees the card (otherwise ours alone)
#   PATIENCE seconds that a peer may take, compilation included
#   B        build directory
set -u
export LC_ALL=C
B=${B:-build} PYTHON=${PYTHON:-python3} PARTS=${PARTS:-ops pr1296 pr1263} PEERS=${PEERS-eager compile cudnn}
PATIENCE=${PATIENCE:-200}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

best() { sed -n "s/^$1.*best \([0-9.]*\) s.*/\1/p" "$tmp/ours"; }
peer() { # arguments of torch_peer.py: the best of PEERS, or 0
    for how in $PEERS; do
        began=$SECONDS
        case $how in eager) with= ;; cudnn) with="compile cudnn" ;; *) with=$how ;; esac
        timeout "$PATIENCE" "$PYTHON" bench/torch_peer.py "$@" cuda $with > "$tmp/peer" 2> "$tmp/words"
        status=$?
        if [ $status != 0 ]; then
            echo "torch $how $1 $2: no figure, status $status after $((SECONDS - began)) s" >&2
            tail -n 3 "$tmp/words" >&2
            continue
        fi
        echo "$(cat "$tmp/peer") ($((SECONDS - began)) s)" >&2
        sed -n 's/.*best \([0-9.]*\).*/\1/p' "$tmp/peer"
    done | sort -g | head -n 1 | grep . || echo 0
}
ratio() { # name, ours, peer
    awk -v n="$1" -v o="$2" -v p="$3" 'BEGIN { printf "%-34s ours %9.6f s", n, o
        if (p > 0 && o > 0) printf "   torch %9.6f s   ratio %.2f", p, p / o
        print "" }'
}
ours() { # recipe: whole steps and windows
    "$B/bench/gpu" run "recipes/$1.conf" --seqs 48 --micros 8 --windows 64 | tee "$tmp/ours"
    [ "${PIPESTATUS[0]}" = 0 ] || failed=1
}
ops() { "$B/bench/gpu" ops || failed=1; }
pr1296() {
    ours pr1296
    ratio "step of 786,432 tokens" "$(best step)" "$(peer train pr1296 48 5 1 8)"
    ratio "sliding window" "$(best sliding)" "$(peer slide pr1296 64 256 1 64)"
    echo "with the MLP by wgmma (KERN_MLP, docs/cuda.md):"
    KERN_MLP=wgmma "$B/bench/gpu" run recipes/pr1296.conf --seqs 48 --micros 8 --windows 64 | grep '^step'
}
pr1263() {
    ours pr1263
    ratio "SLOT window, 16 steps" "$(best slot)" "$(peer slot pr1263 64 128 1 32)"
}

for part in $PARTS; do
    case $part in
    ops | pr1296 | pr1263) ;;
    *)
        echo "gpu.sh: PARTS: there is no $part" >&2
        exit 2
        ;;
    esac
done
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,memory.total --format=csv,noheader || {
    echo "no graphics card here"
    exit 4
}
if [ -n "$PEERS" ] && ! "$PYTHON" -c 'import torch; assert torch.cuda.is_available()' 2> "$tmp/words"; then
    echo "(no torch with CUDA in $PYTHON: set PYTHON; ours alone)"
    PEERS=
fi
for part in $PARTS; do
    start=$SECONDS
    echo "== $part"
    $part
    echo "   $part: $((SECONDS - start)) s"
done
exit $failed
