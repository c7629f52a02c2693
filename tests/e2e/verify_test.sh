#!/bin/bash
# verify_test.sh - bin/verify as a program, on a submission made by the other programs: text in, trained,
# packed, scored by itself, verified; then the same file lied about and damaged.
#
# Guards against: a verdict, message or exit status that is not what docs/verify.md promises; programs
# that each pass their own tests and do not fit together.
set -u
name=verify
. "$(dirname "$0")/lib.sh"
verify=$BIN/verify

# In this file `name` is a case's, and checks keep the output of the last expect.
ok() { echo "ok   verify: $1"; }
fail() { echo "FAIL verify: $1"; failed=1; }

# expect NAME STATUS TEXT COMMAND...: exit status, and TEXT somewhere in the output.
expect() {
    name=$1 status=$2 text=$3
    shift 3
    "$@" >"$dir/out.txt" 2>"$dir/err.txt"
    got=$?
    if [ $got -ne "$status" ]; then
        fail "$name: exit status $got, expected $status: $(cat "$dir/err.txt")"
    elif ! grep -qF -- "$text" "$dir/out.txt" "$dir/err.txt"; then
        fail "$name: nothing says \"$text\": $(cat "$dir/out.txt" "$dir/err.txt")"
    elif [ "$(wc -l <"$dir/err.txt")" -gt 1 ]; then
        fail "$name: more than one line on standard error: $(cat "$dir/err.txt")"
    else
        ok "$name"
    fi
}

check() { # check NAME COMMAND...: the command succeeds
    name=$1
    shift
    if "$@" >"$dir/check.txt" 2>&1; then ok "$name"; else fail "$name: $(cat "$dir/check.txt")"; fi
}

last_line() { # last_line NAME TEXT: what the last command printed last
    case $(tail -n 1 "$dir/out.txt") in
    "$2"*) ok "$1" ;;
    *) fail "$1: the last line is \"$(tail -n 1 "$dir/out.txt")\", expected \"$2\"" ;;
    esac
}

flip() { # flip FILE OFFSET: a copy of the submission with one bit of one byte changed
    cp "$dir/submission" "$1"
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    # shellcheck disable=SC2059  # the format is the byte
    printf "\\$(printf %03o $((byte ^ 16)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

# ---- a submission ----

make_data "$dir/data" || fail "shards"
make_recipe "$dir/recipe.conf"
"$BIN/trainer" "$dir/recipe.conf" DATA_PATH="$dir/data" --out "$dir" --quiet || fail "trainer"
weights=$dir/model.quant.safetensors
"$BIN/packer" pack "$weights" -o "$dir/submission" >/dev/null || fail "packer"
"$dir/submission" --data "$dir/data" --json >"$dir/claim.json" || fail "submission"

# ---- what is true ----

expect "audit, execution and claim" 0 "identical bits" \
    "$verify" blob "$dir/submission" --data "$dir/data" --execute --claim "$dir/claim.json"
last_line "verified is the last line" verified
check "the tokens that are read have a hash" \
    grep -Eq "^data         xxh64:[0-9a-f]{16} of the [0-9]+ tokens that are read$" "$dir/out.txt"
check "result line" grep -q \
    '^final_sliding val_loss:[0-9.]* val_bpb:[0-9.]* tokens:[0-9]* bytes:[0-9]* time_ms:[0-9]*$' \
    "$dir/out.txt"
expect "plain, executed" 0 "identical bits" \
    "$verify" blob "$dir/submission" --data "$dir/data" --execute --eval plain
mkdir "$dir/links"
ln -s "$dir/data/fineweb_val_000000.bin" "$dir/data/letters.model" "$dir/links"
expect "a shard by its name" 0 "identical bits" \
    "$verify" blob "$dir/submission" --data "$dir/data/fineweb_val_000000.bin" --execute
expect "shards that are links" 0 "identical bits" \
    "$verify" blob "$dir/submission" --data "$dir/links" --execute
expect "json" 0 '"verdict":	"verified"' \
    "$verify" blob "$dir/submission" --data "$dir/data" --execute --json
cp "$dir/out.txt" "$dir/own.json"
expect "own report as a claim" 0 "verified" \
    "$verify" blob "$dir/submission" --data "$dir/data" --claim "$dir/own.json"

expect "score of the weights" 0 "final_sliding" \
    "$verify" score "$weights" --data "$dir/data" --nll "$dir/a.npy"
"$dir/submission" --data "$dir/data" --nll "$dir/b.npy" >/dev/null
check "scores of weights and submission" cmp "$dir/a.npy" "$dir/b.npy"
expect "audit writes them too" 0 "verified" \
    "$verify" blob "$dir/submission" --data "$dir/data" --nll "$dir/c.npy"
check "the same scores" cmp "$dir/a.npy" "$dir/c.npy"
for isa in portable avx2 avx512; do
    KERN_ISA=$isa "$verify" score "$weights" --data "$dir/data" --threads 2 --nll "$dir/d.npy" \
        >/dev/null 2>&1 || { echo "skip verify: no $isa here"; continue; }
    check "the same bits with $isa" cmp "$dir/a.npy" "$dir/d.npy"
done
expect "settings on the command line" 0 "final_plain" \
    "$verify" score "$weights" --data "$dir/data" EVAL_SEQ_LEN=64 --eval plain
expect "first tokens only" 0 "tokens:64 " \
    "$verify" score "$weights" --data "$dir/data" --max-tokens 70
expect "quiet" 0 "final_sliding" "$verify" score "$weights" --data "$dir/data" --quiet
[ "$(wc -l <"$dir/out.txt")" -eq 1 ] || fail "quiet prints more than the result"

# ---- what is not ----

sed 's/"val_bpb":[0-9]/"val_bpb":0/' "$dir/claim.json" >"$dir/false.json"
expect "false claim" 1 "val_bpb" \
    "$verify" blob "$dir/submission" --data "$dir/data" --claim "$dir/false.json"
last_line "not verified is the last line" "not verified: val_bpb: claimed 0"
echo '{"bytes_total": 1}' >"$dir/false.json"
expect "false size" 1 "not verified: bytes_total" \
    "$verify" blob "$dir/submission" --data "$dir/data" --claim "$dir/false.json"
echo 'val_bpb 1' >"$dir/false.json"
expect "no memory to execute" 1 "not verified: execution: exit status 4" \
    "$verify" blob "$dir/submission" --data "$dir/data" --execute --memory 1
expect "a claim that is no JSON" 3 "not JSON" \
    "$verify" blob "$dir/submission" --data "$dir/data" --claim "$dir/false.json"

# In the middle of every section: its name and exit status 3. Offsets are in verify's own report.
# shellcheck disable=SC2020  # characters, not words
tr -d '\t\n "{}' <"$dir/own.json" | tr ',[' '\n\n' | awk -F: '
    $1 == "kind" { k = $2 } $1 == "offset" { o = $2 }
    $1 == "size" { print k, o + int($2 / 2) }' >"$dir/middles"
[ "$(wc -l <"$dir/middles")" -eq 6 ] || fail "sections in the report: $(cat "$dir/middles")"
while read -r kind at; do
    flip "$dir/damaged" "$at"
    expect "damaged $kind" 3 "$kind" "$verify" blob "$dir/damaged" --data "$dir/data"
done <"$dir/middles"
head -c 5000 "$dir/submission" >"$dir/damaged"
expect "truncated" 3 "not verified: $dir/damaged" "$verify" blob "$dir/damaged" --data "$dir/data"
{ cat "$dir/submission"; printf x; } >"$dir/damaged"
expect "a byte behind the end" 3 "header says" "$verify" blob "$dir/damaged" --data "$dir/data"
expect "weights are no submission" 3 "packer import" "$verify" blob "$weights" --data "$dir/data"

# ---- wrong use, bad surroundings ----

for p in trainer packer verify shards; do
    expect "$p --version" 0 "$p 0." "$BIN/$p" --version
done
expect "no command" 2 "say what to do" "$verify"
expect "record of nothing" 3 "x: No such file" "$verify" record x
mkdir -p "$dir/folders/good" "$dir/folders/none"
echo '{"val_bpb": 1.1}' >"$dir/folders/good/submission.json"
expect "a folder without files among others" 3 "not readable: $dir/folders/none" \
    "$verify" record "$dir/folders/none" "$dir/folders/good" "$dir/folders/nowhere"
check "the others are judged" grep -q "  good$" "$dir/out.txt"
check "and counted" grep -q "^1 records: .* 2 not readable" "$dir/out.txt"
mkdir "$dir/alone" && cp "$weights" "$dir/alone/w"
expect "weights without their byte table" 3 "byte_table.bin: not there; --tokenizer names" \
    "$BIN/packer" pack "$dir/alone/w" -o "$dir/alone/s"
expect "a program is no script" 3 "no Python source" "$verify" unwrap "$dir/submission"
expect "unknown option" 2 "--nonsense" "$verify" blob x --data y --nonsense
expect "unknown key" 2 "nearest" "$verify" score "$weights" --data "$dir/data" NUM_LAYER=3
expect "no file" 3 "$dir/none" "$verify" blob "$dir/none" --data "$dir/data"
mkdir "$dir/empty"
expect "empty directory" 3 "$dir/empty" "$verify" blob "$dir/submission" --data "$dir/empty"
check "is found before the weights are decoded" [ "$(wc -l <"$dir/out.txt")" -eq 1 ]
expect "a part of the stream" 0 "part         only the first " \
    "$verify" blob "$dir/submission" --data "$dir/data" --max-tokens 64
expect "nowhere to write" 4 "/nonexistent" \
    "$verify" score "$weights" --data "$dir/data" --nll /nonexistent/x.npy
if [ -w /dev/full ]; then
    # shellcheck disable=SC2016  # the inner shell expands them
    expect "full disk" 4 "cannot write" \
        sh -c '"$0" score "$1" --data "$2" >/dev/full' "$verify" "$weights" "$dir/data"
fi
expect "help" 0 "verify blob" "$verify" --help
exit $failed
