#!/bin/bash
# compare.sh - how well general compressors do on the held-out text, in bits per byte.
set -euo pipefail
export LC_ALL=C

die() { # die STATUS MESSAGE
    echo "compare: $2" >&2
    exit "$1"
}

if [[ ${1:-} == --help ]]; then
    cat <<'END'
usage: compare.sh DIR|FILE

Prints bits per byte of xz -9e, bzip2 -9 and zstd -19 on DIR/heldout.txt (what prepare.sh wrote) or
on FILE: 8 * compressed bytes / bytes. A model's BPB on the held-out shard is over the same bytes.
Lines begin with the compressor's name; bits per byte is the last field.

example: compare.sh out/data | awk '$1 == "xz" { print $NF }'
END
    exit 0
fi
(($# == 1)) || die 2 "expected one directory or file; see compare.sh --help"
[[ -d $1 ]] && file=$1/heldout.txt || file=$1
[[ -f $file && -r $file ]] || die 3 "$file: cannot read it; prepare.sh writes it"
bytes=$(wc -c <"$file")
((bytes > 0)) || die 3 "$file: empty, expected text"
for program in xz bzip2 zstd; do
    command -v $program >/dev/null ||
        die 4 "$program is missing; install it: apt-get install $program"
done

line() { # line NAME COMMAND...: one row of the table
    local name=$1 packed
    shift
    packed=$("$@" <"$file" | wc -c)
    awk -v name="$name" -v packed="$packed" -v bytes="$bytes" \
        'BEGIN { printf "%-12s %12d bytes %9.4f\n", name, packed, 8 * packed / bytes }'
}

printf '%-12s %12d bytes %9s\n' "text" "$bytes" "bits/byte"
line "xz -9e" xz -9e -c
line "bzip2 -9" bzip2 -9 -c
line "zstd -19" zstd -19 -q -c
