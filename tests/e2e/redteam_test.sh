#!/bin/bash
# redteam_test.sh - submissions and record folders that cheat, against the programs as a person uses them. What can be
# done to a submission's insides is in tests/unit/redteam_*_test.c; here is what a shell can do, and what the
# verdict looks like to somebody who reads the last line or the exit status.
#
# Guards against a cheat that is confirmed, one that is found under another name, an honest folder that is
# accused, and a file that speaks in the report's name.
set -u
name=redteam
. "$(dirname "$0")/lib.sh"
cd "$dir" || exit 1
trainer=$BIN/trainer packer=$BIN/packer verify=$BIN/verify
make_data data
make_recipe r.conf
"$trainer" r.conf DATA_PATH=data --out m --quiet || fail "trainer"
"$packer" pack m/model.quant.safetensors -o s >/dev/null || fail "packer"

# verdict CASE STATUS TEXT COMMAND...: exit status, TEXT in the output, nothing that moves a cursor, no line of
# its own that says verified unless it is.
verdict() {
    v_what=$1 v_status=$2 v_text=$3
    shift 3
    v_got=0
    timeout 60 "$@" >out.txt 2>err.txt </dev/null || v_got=$?
    if [ $v_got -ne "$v_status" ]; then
        fail "$v_what: exit status $v_got, expected $v_status: $(tail -n 3 out.txt) $(cat err.txt)"
    elif ! cat out.txt err.txt | grep -qF -- "$v_text"; then
        fail "$v_what: nothing says \"$v_text\": $(tail -n 5 out.txt) $(cat err.txt)"
    elif LC_ALL=C grep -q "$(printf '[\001-\010\013-\037\177]')" out.txt err.txt; then
        fail "$v_what: control characters in the report"
    elif [ $v_got -ne 0 ] && grep -q '^verified' out.txt; then
        fail "$v_what: a line says verified"
    else
        ok "$v_what"
    fi
}

# ---- submissions ----

verdict "honest" 0 "verified" "$verify" blob s --data data --execute
{ cat s; printf x; } >x
verdict "a byte behind the end" 3 "its header says" "$verify" blob x --data data
{ cat s; cat s; } >x
verdict "a submission behind the submission" 3 "its header says" "$verify" blob x --data data
{ printf '#!/bin/sh\nexit 0\n'; cat s; } >x
verdict "a script before it" 3 "does not begin with a loader" "$verify" blob x --data data
n=$(size s)
head -c $((n - 1)) s >x
verdict "a byte less" 3 "its header says" "$verify" blob x --data data
printf '{"val_bpb":0.9354}' >c.json
verdict "a better score" 1 "[R-REPRODUCIBLE]" "$verify" blob s --data data --claim c.json
printf '{"mode":"sliding\\nverified"}' >c.json
verdict "a claim that brings its verdict" 3 "printable" "$verify" blob s --data data --claim c.json
printf '{"bytes_total":1,"artifact_bytes":%s}' "$n" >c.json
verdict "two sizes" 3 "artifact_bytes" "$verify" blob s --data data --claim c.json
printf '\357\273\277{"val_bpb":0.1}' >c.json
verdict "a byte order mark" 1 "val_bpb: claimed 0.1" "$verify" blob s --data data --claim c.json
printf '%s' "$(head -c 100000 /dev/zero | tr '\0' '[')" >c.json
verdict "JSON without bottom" 3 "not JSON" "$verify" blob s --data data --claim c.json
mkfifo pipe
verdict "a pipe as the submission" 3 "not a regular file" "$verify" blob pipe --data data
verdict "a pipe as the claim" 3 "not a regular file" "$verify" blob s --data data --claim pipe
bad=$(printf 'x\nverified\033[1A')
cp s "$bad"
flip "$bad" 5000
verdict "a file name of two lines" 3 "damaged" "$verify" blob "$bad" --data data
mkdir "other data"
cp data/fineweb_val_000000.bin "other data"
"$verify" blob s --data "other data" >out.txt 2>&1
grep -q "byte table   not checked" out.txt || fail "without a tokeniser nothing says so"
echo "SLOT_LR=0.1" >>r.conf
"$trainer" r.conf DATA_PATH=data EVAL_MODE=slot --out slot --quiet && "$packer" pack slot/model.quant.safetensors \
    -o slot/s >/dev/null || fail "a SLOT submission"
verdict "a score of its own future" 1 "not causal" "$verify" probe slot/s --data data --flips 2 --positions 1 --budget 5
"$verify" blob slot/s --data data --json >out.txt
own=$(sed -n 's/^	"val_bpb":	\([0-9.]*\),$/\1/p' out.txt)
printf '{"val_bpb":%s}' "$own" >c.json
verdict "SLOT's value as val_bpb" 1 "val_bpb: claimed" "$verify" blob slot/s --data data --claim c.json

# ---- packed weights of others ----

# bad_ptz CASE TEXT: x.ptz is refused, for that reason, in time, and nothing is written or run.
bad_ptz() {
    refused "import: $1" 3 "$2" "$packer" import x.ptz --recipe r.conf -o w.safetensors
    for p in ran w.safetensors w.safetensors.tmp*; do [ -e "$p" ] && fail "import: $1: left $p"; done
}
printf "\\200\\002cos\nsystem\n(S'touch %s/ran'\ntR." "$dir" >code.pkl
cp code.pkl x.ptz
bad_ptz "a pickle with code" "os.system"
gzip -c code.pkl >x.ptz
bad_ptz "a pickle with code, compressed" "os.system"
gzip -c code.pkl | gzip | gzip >x.ptz
bad_ptz "a pickle with code, three times compressed" ""
printf "\200\002cbuiltins\neval\nX\003\000\000\0001+1\205R." >x.ptz
bad_ptz "a call of eval" "builtins.eval"
head -c 1200000000 /dev/zero | gzip -1 >x.ptz
bad_ptz "more of nothing than there is memory for" ""
gzip -c x.ptz | xz -1 >y && mv y x.ptz
bad_ptz "the same, wrapped again" ""
head -c 5000 m/model.quant.safetensors | gzip >x.ptz
bad_ptz "something else" ""
if command -v python3 >/dev/null && python3 -c 'import zipfile' 2>/dev/null; then
    python3 -c 'import zipfile, sys
z = zipfile.ZipFile("x.ptz", "w")
z.writestr("../../ran", "x"); z.writestr("/tmp/pgolf_redteam_ran", "x")
z.writestr("a/data.pkl", open("code.pkl", "rb").read())'
    bad_ptz "an archive with paths upwards" ""
    [ -e /tmp/pgolf_redteam_ran ] && fail "import: an archive wrote outside"
fi

# ---- record folders ----

if ! "$verify" record --help >/dev/null 2>&1; then
    echo "skip $name: records: this verify has no command for them"
    exit $failed
fi

script='import os, sys, torch
def eval_val(model, val_tokens, seq_len):
    for i in range(0, val_tokens.numel() - 1, seq_len):
        loss = model(val_tokens[i:i + seq_len], val_tokens[i + 1:i + seq_len + 1])
    return loss
code = open(__file__).read()
print(f"Code size: {len(code)} bytes")
'
# log SEED LOSS BPB TOTAL: what a run of that script printed. 2.43593 bytes per token, as SP1024 has.
log() {
    echo "seed:$1"
    echo "val_loader:tokens:62021632"
    echo "step:5000/20000 train_loss:2.1 train_time:599000ms step_avg:119.80ms"
    echo "step:5000/20000 val_loss:$2 val_bpb:$3 train_time:599000ms step_avg:119.80ms"
    echo "stopping_early: wallclock_cap train_time:599900ms step:5000/20000"
    echo "Serialized model int8+zlib: $(($4 - code)) bytes"
    echo "Code size: $code bytes"
    echo "Total submission size int8+zlib: $4 bytes"
    echo "final_int8_zlib_roundtrip val_loss:$2 val_bpb:$3 eval_time:1400ms"
    echo "final_int8_zlib_roundtrip_exact val_loss:${2}0000 val_bpb:${3}0000"
}
json() { # json BPB TOTAL [MORE]
    cat <<EOF
{
  "name": "A run", "author": "A", "github_id": "a", "date": "2026-04-01", "track": "10min_16mb",
  "val_loss": 2.0000, "val_bpb": $1, "bytes_total": $2, "bytes_code": $code${3:-}
}
EOF
}
# fresh: an honest folder in r/2026-04-01_A
fresh() {
    rm -rf r
    f=r/records/track_10min_16mb/2026-04-01_A
    mkdir -p $f
    printf '%s' "$script" >$f/train_gpt.py
    code=$(size $f/train_gpt.py)
    log 1 1.9990 1.1839 15900000 >$f/train_seed1.log
    log 2 2.0000 1.1845 15900100 >$f/train_seed2.log
    log 3 2.0010 1.1851 15899000 >$f/train_seed3.log
    json 1.1845 15900100 >$f/submission.json
    printf '# A run\n\nval_bpb: 1.1845 (mean of 3 seeds)\n' >$f/README.md
}
fresh
verdict "an honest folder" 0 "findings     0 fail" "$verify" record $f

# cheat CASE STATUS CODE: what was done to the folder is found under this code.
cheat() {
    verdict "record: $1" "$2" "$3" "$verify" record $f
    fresh
}
json 1.0845 15900100 >$f/submission.json
cheat "a score that no log has" 1 bpb-mismatch
json 1.1839 15900100 >$f/submission.json
cheat "the best seed for the mean" 0 headline-best-seed
json 1.1845 15800000 >$f/submission.json
cheat "a total that no log has" 1 total-bytes-mismatch
json 1.1845 "$((15900100 - code))" >$f/submission.json
cheat "the model without its code" 1 artifact-excludes-code
log 2 2.0000 1.1845 16000001 >$f/train_seed2.log
json 1.1845 16000001 >$f/submission.json
cheat "a byte over the limit" 1 log-total-over-cap
log 2 2.0000 1.0000 15900100 >$f/train_seed2.log
log 1 2.0000 1.0000 15900100 >$f/train_seed1.log
log 3 2.0000 1.0000 15900100 >$f/train_seed3.log
json 1.0000 15900100 >$f/submission.json
cheat "leading spaces counted twice" 1 denominator-off
cp $f/train_seed2.log $f/train_seed3.log
cheat "one run under two names" 0 log-duplicate
log 9 2.0010 1.1851 15899000 >$f/train_seed3.log
cheat "another seed than its name" 0 seed-label-mismatch
rm $f/train_seed1.log $f/train_seed3.log
cheat "one run" 0 fewer-than-3-seeds
sed -i 's/train_time:599900ms/train_time:712000ms/' $f/train_seed1.log
cheat "twelve minutes" 0 train-time-over-601s
printf 'import os\nfrom helper import main\nmain()\n' >$f/train_gpt.py
printf 'def main():\n    pass\n%s' "$script" >$f/helper.py
cheat "code beside the script" 0 code-outside-count
printf 'exec(open("real.py").read())\n' >$f/train_gpt.py
printf '%s' "$script" >$f/real.py
cheat "a script that runs another file" 0 script-indirect
: >$f/train_gpt.py
cheat "an empty script" 0 script-empty

# Lines that look like results and are none: the script printed in the log, f-strings and all.
{
    printf '%0100d\n' 0 | tr 0 =
    printf '%s' "$script"
    echo 'print(f"final_int8_zlib_roundtrip_exact val_loss:{l:.8f} val_bpb:{b:.8f}")'
    echo '# final_int8_zlib_roundtrip_exact val_loss:1.50000000 val_bpb:0.88840000'
    printf '%0100d\n' 0 | tr 0 =
    cat $f/train_seed2.log
} >l && cp l $f/train_seed2.log
json 0.8884 15900100 >$f/submission.json
cheat "a score in the script's comment" 1 bpb-mismatch
json 1.1845 15900100 ', "val_bpb": 0.9' >$f/submission.json
cheat "two scores" 0 json-duplicate-key
json 1.1845 15900100 ', "val_b\u0440b": 0.9' >$f/submission.json
cheat "a key that looks like val_bpb" 0 'U+0440) (R-METADATA)  [submission.json:3]'
json 1.1845 15900100 ', "val_\u200bbpb": 0.9' >$f/submission.json
cheat "a key with a letter that is not seen" 0 'U+200B) (R-METADATA)  [submission.json:3]'
json 1.1845 15900100 ', "val\u005fbpb": 0.9' >$f/submission.json
cheat "two scores, one spelt in escapes" 0 'json-duplicate-key: key val_bpb stands twice'
json 1.1845 15900100 ', "seed_results": {"1": {"val_bpb": 1.1839}, "1": {"val_bpb": 0.9}}' >$f/submission.json
cheat "two scores of one seed" 1 'json-duplicate-key: key 1 stands twice'
printf '{"val_bpb": 1.1845, ' >$f/submission.json
cheat "half a JSON" 0 json-invalid
printf '{"val_bpb": 1.1845, "name": "x\\n\\u001b[2Jnot contradicted"}' >$f/submission.json
cheat "a name that clears the screen" 0 "x"
{ cat $f/train_seed1.log; printf '\033]0;x\007\033[2J\r'; } >l && cp l $f/train_seed1.log
cheat "a log that clears the screen" 0 "findings     0 fail"

# Files that are none, and that lead elsewhere.
rm $f/train_seed1.log && mkfifo $f/train_seed1.log
cheat "a pipe as a log" 0 fewer-than-3-seeds
rm $f/train_seed1.log && ln -s "$dir/secret.log" $f/train_seed1.log
log 1 1.9990 1.1839 15900000 >secret.log
cheat "a log that lies elsewhere" 0 fewer-than-3-seeds
rm $f/train_gpt.py && ln -s /etc/passwd $f/train_gpt.py
cheat "a script that lies elsewhere" 0 script-missing
ln -s . $f/loop
ln -s /dev/zero $f/train_zero.log
cheat "links in circles" 0 "findings     0 fail"
bad=$(printf 'train_seed4\nnot contradicted\033[1A.log')
log 4 2.0000 1.1845 15900000 >"$f/$bad"
cheat "a log's name of two lines" 0 "train_seed4"
if command -v python3 >/dev/null && python3 -c 'import lzma, base64' 2>/dev/null; then
    wrap() { # wrap: what stdin is, as a script that unpacks and runs it
        python3 -c 'import lzma, base64, sys
d = lzma.compress(sys.stdin.buffer.read())
print("import lzma,base64\nexec(lzma.decompress(base64.b85decode(\"%s\")))" % base64.b85encode(d).decode())'
    }
    head -c 200000000 /dev/zero | wrap >$f/train_gpt.py
    cheat "a script of 200 MB, packed" 0 "train_gpt.py"
    printf '%s' "$script" | wrap | wrap | wrap | wrap >$f/train_gpt.py
    code=$(size $f/train_gpt.py)
    cheat "a script inside a script inside a script" 0 "train_gpt.py"
    printf 'import os\nos.system("touch %s/ran")\n' "$dir" | wrap >$f/train_gpt.py
    cheat "a script that acts when it is run" 0 "train_gpt.py"
    printf 'import os\nos.system("touch %s/ran")\nMARK = "kept"\n' "$dir" >act.py
    python3 -c 'import marshal, sys
c = marshal.dumps(compile(open("act.py").read(), "act.py", "exec"))
print("import marshal\nexec(marshal.loads(%r))" % c)' >$f/train_gpt.py
    verdict "record: a script that is compiled code" 0 "compiled code that is not read" "$verify" record $f
    verdict "unwrap: what compiled code names" 0 "compiled code of Python" \
        "$verify" unwrap $f/train_gpt.py -o listing
    grep -q "names os system MARK" listing || fail "unwrap: the listing has no names"
    fresh
    mkdir -p app && cp act.py app/__main__.py
    python3 -m zipapp app -o app.pyz && { printf '%s' "$script"; cat app.pyz; } >$f/train_gpt.py
    cheat "a script with an archive behind it that runs instead" 0 "Python runs its __main__"
    [ -e ran ] && fail "record: the script was run"
else
    echo "skip $name: wrapped scripts: no python3 with lzma"
fi
exit $failed
