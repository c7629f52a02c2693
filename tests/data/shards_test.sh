#!/bin/bash
# shards_test.sh - bin/shards as a program: options, messages, exit statuses, pipes and signals.
#
# Guards against: a promise of `shards --help` that does not hold; a failure with status 0; files
# left behind when the program is stopped.
set -u
export LC_ALL=C

project=$(cd "$(dirname "$0")/../.." && pwd)
shards=${SHARDS:-$project/bin/shards}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failed=0

report() { # report NAME FAULT
    if [[ -n $2 ]]; then
        echo "FAIL shards: $1: $2"
        failed=1
    else
        echo "ok   shards: $1"
    fi
}

expect() { # expect STATUS TEXT INPUT ARGUMENT...: run, and say what is not as expected
    local status=$1 text=$2 input=$3 got=0
    shift 3
    printf '%b' "$input" | "$shards" "$@" >out.txt 2>err.txt || got=$?
    if ((got != status)); then
        echo "exit status $got, expected $status: $(cat err.txt)"
    elif ! cat out.txt err.txt | grep -q -- "$text"; then
        echo "no '$text' in: $(cat out.txt err.txt)"
    elif ((status)) && (($(wc -l <err.txt) != 1)); then
        echo "expected one line on standard error, got: $(cat err.txt)"
    fi
}

tokens() { # tokens FILE
    tail -c +1025 "$1" | od -An -v -tu2 | tr -s ' \n' ' ' | sed 's/^ //; s/ $//'
}

fault=$(expect 0 "train files:2 docs:2 tokens:5 max_id:9" "5 6\n7\n8 9\n" --out a --val-docs 1 --shard-tokens 3)
[[ -n $fault ]] || fault=$([[ $(tokens a/fineweb_val_000000.bin) == "1 5 6" ]] || echo "wrong val tokens")
[[ -n $fault ]] || fault=$([[ $(tokens a/fineweb_train_000000.bin) == "1 7 1" ]] || echo "wrong train tokens")
[[ -n $fault ]] || fault=$([[ $(tokens a/fineweb_train_000001.bin) == "8 9" ]] || echo "wrong train tokens")
report "writes the challenge's files" "$fault"
report "--info of a directory" \
    "$(expect 0 "^train files:2 docs:2 tokens:5 max_id:9" "" --info a --vocab 10)"
report "--info of a file" \
    "$(expect 0 "a/fineweb_val_000000.bin files:1 docs:1 tokens:3 max_id:6" "" --info a/fineweb_val_000000.bin)"
report "--info with an id outside --vocab" \
    "$(expect 3 "id 9, expected ids below 9" "" --info a --vocab 9)"
head -c 1026 a/fineweb_val_000000.bin >cut.bin
report "--info of a file cut short" \
    "$(expect 3 "header says 3 tokens (6 bytes), file holds 2 bytes" "" --info cut.bin)"
report "--info of nothing" "$(expect 3 "cannot open" "" --info missing.bin)"
mkdir empty
report "--info of an empty directory" "$(expect 3 "no shards" "" --info empty)"
report "a directory that has shards" "$(expect 2 "already holds" "5\n" --out a)"
report "--replace" \
    "$(expect 0 "train files:1 docs:1 tokens:2" "5\n" --out a --replace)$(ls a | grep -v 'train_000000')"
report "not a number in the input" "$(expect 3 "line 2: byte 'x'" "5\n6 x\n" --out b)$(ls -A b)"
report "an id outside the vocabulary" \
    "$(expect 3 "line 1: id 1024" "1024\n" --out b --vocab 1024)$(ls -A b)"
report "no input" "$(expect 3 "no documents" "" --out b)$(ls -A b)"
report "an unknown option" "$(expect 2 "unknown option --frob" "" --frob)"
report "a value that is missing" "$(expect 2 "needs a value" "" --out)"
report "a number that is none" "$(expect 2 "expected a whole number" "5\n" --out b --val-docs -1)"
report "a number that is too large" \
    "$(expect 2 "expected a whole number" "5\n" --out b --val-docs 99999999999999999999)"
report "two rules for held-out documents" \
    "$(expect 2 "more than one rule" "5\n" --out b --val-docs 1 --val-fraction 0.5)"
report "no output directory" "$(expect 2 "expected --out DIR" "5\n")"
report "an output directory that cannot be made" \
    "$(expect 4 "cannot make the directory" "5\n" --out /proc/nothing)"
report "no space" \
    "$(ulimit -f 2; expect 4 "cannot write" "$(yes 7 | head -n 3000 | tr '\n' ' ')\n" --out b)$(ls -A b)"
report "standard output that is full" "$(
    got=0
    "$shards" --help >/dev/full 2>err.txt || got=$?
    ((got == 4)) || echo "exit status $got, expected 4"
)"

# Stopped while it waits for input: nothing stays, and the status says so.
stop_with() { # stop_with SIGNAL
    mkfifo "fifo$1"
    "$shards" --out "stopped$1" --shard-tokens 2 <"fifo$1" 2>err.txt &
    local pid=$! got=0
    exec 8>"fifo$1"
    seq 2 30000 >&8 # more than one buffer, so that shards exist when the signal comes
    for ((i = 0; i < 100; i++)); do
        [[ -n $(ls -A "stopped$1" 2>/dev/null) ]] && break || sleep 0.05
    done
    kill "-$1" $pid
    wait $pid || got=$?
    exec 8>&-
    ((got == 4)) || echo "exit status $got, expected 4"
    grep -q "stopped by a signal" err.txt || echo "message: $(cat err.txt)"
    ls -A "stopped$1"
}
for signal in TERM HUP; do
    report "stopped by SIG$signal" "$(stop_with $signal)"
done

# A line much longer than any buffer, through a pipe; memory must not grow with it.
report "a document of two million tokens in 64 MB of memory" "$(
    ulimit -v 65536
    "$shards" --help >/dev/null 2>&1 || exit 0 # a sanitizer's build cannot start in so little
    yes 7 | head -n 2000000 | tr '\n' ' ' | "$shards" --out long >out.txt 2>&1 ||
        echo "exit status $?: $(cat out.txt)"
    grep -q "train files:1 docs:1 tokens:2000001" out.txt || cat out.txt
)"

exit $failed
