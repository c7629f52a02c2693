#!/bin/bash
# submit_test.sh - packer submit on real runs: trained, packed, verified, gathered; then runs that do not belong
# together.
#
# Guards against: a folder that the parts' own tests would allow and the programs together do not make;
# reports that verify writes and packer cannot read; a verify that is not started, or whose verdict is lost.
set -u
name=submit
. "$(dirname "$0")/lib.sh"
cd "$dir" || exit 1
trainer=$BIN/trainer packer=$BIN/packer verify=$BIN/verify
make_data data
make_recipe r.conf
for s in 1 2 3; do
    "$trainer" r.conf DATA_PATH=data SEED=$s --out s$s --quiet || fail "trainer"
    "$packer" pack s$s/model.quant.safetensors -o s$s/submission >/dev/null || fail "packer"
done

# gone CASE FOLDER: not there, nor anything temporary beside it.
gone() {
    for p in "$2" "$2".*; do [ -e "$p" ] && fail "$1: left $p"; done
}

refused "unverified" 1 "R-REPRODUCIBLE" "$packer" submit s1 s2 s3 -o f
grep -q "s2: unverified: verify.json is not there" out.txt || fail "unverified: the run is not named"
gone "unverified" f
check "verified on the way" "$packer" submit s3 s1 s2 -o f --data data --execute --author A --github-id a \
    --sota 9.5,9.6 --date 2026-04-30
grep -q '^R-REPRODUCIBLE *kept *seed 2: verified' out.txt || fail "no verdict of seed 2"
grep -q '^F-ENGINE *kept *seed 3: executed' out.txt || fail "seed 3 was not executed"
[ "$(find f -type f | wc -l)" -eq 12 ] || fail "files in the folder: $(ls f)"
same "the submission" s2/submission f/submission_seed2
head -c "$(size s2/train.log)" f/train_seed2.log >log
same "the log" s2/train.log log
grep -q "$(sha256sum <s2/submission | cut -d" " -f1)" f/README.md || fail "README.md has no SHA-256 of seed 2"
grep -q "$(sha256sum <s2/submission | cut -d" " -f1)" f/verify_seed2.json || fail "the report has no SHA-256"
grep -q "^Total submission size int6+[a-z]*: $(size s2/submission) bytes$" f/train_seed2.log ||
    fail "the log does not say the size"
grep '^final_sliding ' f/train_seed2.log >line
f/submission_seed2 --data data | grep '^final_sliding ' >own
[ "$(result line)" = "$(result own)" ] || fail "the log's score: $(cat line), the file's: $(cat own)"
"$verify" record f --json --track non-record >audit.json # other data than the challenge's: a denominator of its own
grep -q 'val_bpb' audit.json || fail "verify record has nothing to say"
grep -q 'bpb-mismatch\|total-bytes\|seed-bytes\|seed-bpb\|seed-label' audit.json &&
    fail "our own folder is accused: $(grep -A3 mismatch audit.json | head -20)"
check "the folder's file, its audit as the claim" \
    "$verify" blob f/submission_seed3 --data data --claim f/verify_seed3.json
check "the folder's recipe trains" "$trainer" f/recipe.conf DATA_PATH=data SEED=2 --out again --quiet
"$packer" pack again/model.quant.safetensors -o again/submission >/dev/null
same "to the same file" again/submission f/submission_seed2
mean=$(sed -n 's/.*"val_bpb":\t\([0-9.]*\),$/\1/p' f/submission.json | head -1)
sum=$(sed -n 's/.*"val_bpb":\t\([0-9.]*\),$/\1/p' s?/verify.json | awk '{ s += $1 } END { printf "%.6f", s / NR }')
[ "$(printf %.6f "$mean")" = "$sum" ] || fail "mean: $mean, of the runs: $sum"
big=$(for s in 1 2 3; do size s$s/submission; done | sort -n | tail -1)
grep -q "\"bytes_total\":	$big," f/submission.json || fail "bytes_total is not the largest, $big"

check "from the reports that lie there" "$packer" submit s1 s2 s3 -o g
refused "the folder exists" 2 "is there already" "$packer" submit s1 s2 s3 -o g
check "forced" "$packer" submit s1 s2 -o g --force
[ -e g/submission_seed3 ] && fail "forced: the older run is still there"
echo mine >g/notes
refused "forced, over somebody's file" 2 "holds notes" "$packer" submit s1 s2 -o g --force
[ "$(cat g/notes)" = mine ] || fail "somebody's file is gone"

# ---- runs that do not belong together ----

bad() { # bad CASE RULE TEXT RUN...: refused, the rule is named, and some line says TEXT
    bad_what=$1 bad_rule=$2 bad_text=$3
    shift 3
    refused "$bad_what" 1 "$bad_rule" "$packer" submit "$@" -o h
    grep -q "^$bad_rule *BROKEN .*$bad_text" out.txt ||
        fail "$bad_what: no \"$bad_text\": $(grep BROKEN out.txt)"
    gone "$bad_what" h
}
cp -r s1 s1b
bad "the same run twice" R-SEEDS "seed 1 twice" s1 s1b
"$trainer" r.conf DATA_PATH=data SEED=4 MATRIX_LR=0.07 --out s4 --quiet
"$packer" pack s4/model.quant.safetensors -o s4/submission >/dev/null
"$verify" blob s4/submission --data data --json >s4/verify.json
bad "another recipe" R-SIGNIFICANCE "MATRIX_LR=0.07" s1 s2 s4
cp -r s2 x && cp s3/submission x/submission
bad "another run's submission" R-REPRODUCIBLE "weights of model.quant" x
bad "another file's report" R-REPRODUCIBLE "report of another file" x
cp s2/submission x/submission
"$verify" blob x/submission --data data --max-tokens 100 --json >x/verify.json
bad "part of the stream" R-VAL-SET "only the first" x
echo '{"val_bpb":0.1,"bytes_total":1}' >claim.json
"$verify" blob x/submission --data data --claim claim.json --json >x/verify.json
bad "not verified" R-REPRODUCIBLE "not verified: bytes_total" x
bad "three runs in the record track" R-SIGNIFICANCE "2 runs" s1 s2 --track 10min_16mb
bad "names in the record track" R-METADATA "author" s1 s2 s3 --track 10min_16mb

# ---- wrong use, bad input ----

refused "no run" 2 "expected" "$packer" submit -o h
refused "no folder" 2 "expected" "$packer" submit s1
refused "a track that is none" 2 "track" "$packer" submit s1 -o h --track fast
refused "a date that is none" 2 "date" "$packer" submit s1 -o h --date today
refused "a score that is none" 2 "sota" "$packer" submit s1 -o h --sota best
refused "no such run" 3 "nowhere/train.log" "$packer" submit nowhere -o h
head -c 9000 s1/submission >x/submission
refused "a damaged submission" 3 "x/submission" "$packer" submit x -o h
refused "nowhere to write" 4 "no/h" "$packer" submit s1 -o no/h
gone "wrong use" h
mkdir alone && cp "$packer" alone
refused "no verify beside packer" 4 "verify: not there" alone/packer submit s1 -o h --data data
exit $failed
