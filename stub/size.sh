#!/bin/bash
# size.sh - where the bytes of loader and runners come from: `make size` runs it with the build directory.
# A runner is linked a second time with its symbols; its functions are what the link made of those in the
# sources, so one may hold others that were put into it.
set -eu
B=${1:-build}
loader=$(stat -c %s "$B/stub/loader")
echo "loader $loader bytes (budget 2048)"
for r in runner runner_full; do
    nm -n -S "$B/stub/$r.symbols" | "$B/tests/size" "$B/stub/$r" 400000 >"$B/stub/$r.size"
    echo
    awk -v l="$loader" -v r=$r 'NR == 1 { print r ": " $1 " bytes stored, " $2 " before; with the loader " $1 + l }' \
        "$B/stub/$r.size"
    sed -n '2,41p' "$B/stub/$r.size"
    echo "     ... all of them: $B/stub/$r.size"
done
[ -s "$B/stub/cuda.ptx" ] || { echo; echo "no kernels for a card: built without nvcc"; exit 0; }
stored() { "$B/tests/size" "$1" 0 </dev/null | awk 'NR == 1 { print $1 }'; }
runner=$(stored "$B/stub/runner_cuda") kernels=$(stored "$B/stub/cuda.ptx")
echo
echo "runner_cuda: $runner bytes stored, kernels $kernels; with the loader $((runner + kernels + loader)) (budget 98304)"
