#!/bin/bash
# size.sh - where the bytes of loader and runner come from: `make size` runs it with the build directory.
set -eu
B=${1:-build}
echo "loader   $(stat -c %s "$B/stub/loader") bytes (budget 2560, aim 2048)"
echo "full     $(stat -c %s "$B/stub/runner_full") bytes before compression, the runner that trains as well"
echo "runner   $(stat -c %s "$B/stub/runner") bytes before compression; by object:"
size "$B"/musl/*/*.o "$B"/musl/*/*/*.o | awk 'NR > 1 { n = $6; sub(".*/musl/", "", n); print $1, n }' |
    sort -rn | awk '{ printf "%10d  %s\n", $1, $2; s += $1 } END { printf "%10d  text in all\n", s }'
echo "largest functions:"
nm -S --size-sort -r -t d "$B"/musl/*/*.o "$B"/musl/*/*/*.o 2>/dev/null |
    awk '$3 ~ /[tT]/ { printf "%10d  %s\n", $2, $4 }' | sort -rn | head -15
