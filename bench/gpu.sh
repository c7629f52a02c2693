#!/bin/bash
# gpu.sh - the figures that need a graphics card, beside its own ceilings and PyTorch in the same run: `make bench-gpu`.
#
# Settings by environment: B  build directory    PYTHON  a Python whose torch sees the card (otherwise ours alone)
set -u
export LC_ALL=C
B=${B:-build} PYTHON=${PYTHON:-python3}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,memory.total --format=csv,noheader || {
    echo "no graphics card here"
    exit 4
}
has_torch=$("$PYTHON" -c 'import torch; assert torch.cuda.is_available()' 2> "$tmp/words" && echo 1 || echo 0)
[ "$has_torch" = 1 ] || echo "(no torch with CUDA in $PYTHON: set PYTHON; ours alone)"
best() { sed -n "s/^$1.*best \([0-9.]*\) s.*/\1/p" "$tmp/ours"; }
peer() { # arguments of torch_peer.py: the best of eager, compiled, compiled with cuDNN's attention, or 0
    [ "$has_torch" = 1 ] || { echo 0; return; }
    for how in '' compile 'compile cudnn'; do
        "$PYTHON" bench/torch_peer.py "$@" cuda $how > "$tmp/peer" 2> "$tmp/words" || tail -n 3 "$tmp/words" >&2
        cat "$tmp/peer" >&2
        sed -n 's/.*best \([0-9.]*\).*/\1/p' "$tmp/peer"
    done | sort -g | head -n 1 | grep . || echo 0
}
ratio() { # name, ours, peer
    awk -v n="$1" -v o="$2" -v p="$3" 'BEGIN { printf "%-34s ours %9.6f s", n, o
        if (p > 0 && o > 0) printf "   torch %9.6f s   ratio %.2f", p, p / o
        print "" }'
}
failed=0
echo "== operations at the shapes of PR #1296"
"$B/bench/gpu" ops || failed=1
for recipe in pr1296 pr1263; do
    echo "== $recipe"
    "$B/bench/gpu" run recipes/$recipe.conf --seqs 48 --micros 8 --windows 64 > "$tmp/ours" || failed=1
    cat "$tmp/ours"
    if [ $recipe = pr1296 ]; then
        ratio "step of 786,432 tokens" "$(best step)" "$(peer train $recipe 48 5 1 8)"
        ratio "sliding window" "$(best sliding)" "$(peer slide $recipe 64 256 1 64)"
    else
        ratio "SLOT window, 16 steps" "$(best slot)" "$(peer slot $recipe 64 128 1 32)"
    fi
done
exit $failed
