# lib.sh - what the end-to-end tests share; sourced, not run. The test sets `name` (its own) before.
#
#   $BIN (default bin)   the folder of the programs
#   $dir                 a folder of the test's own, gone at the end
#   $failed              1 after the first case that failed; finish with: exit $failed

export LC_ALL=C
BIN=$(cd "${BIN:-bin}" 2>/dev/null && pwd) || BIN=/nonexistent
for p in trainer packer verify shards; do
    [ -x "$BIN/$p" ] || { echo "skip $name: $BIN/$p is not built"; exit 0; }
done
# No setting of the user's may reach the programs.
for key in $("$BIN/trainer" --help-keys | cut -d' ' -f1) KERN_ISA; do unset "$key"; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

ok() { echo "ok   $name: $1"; }
fail() {
    echo "FAIL $name: $1"
    failed=1
}

# check CASE COMMAND...: the command succeeds.
check() {
    what=$1
    shift
    if "$@" >"$dir/out.txt" 2>"$dir/err.txt"; then
        ok "$what"
    else
        fail "$what: $(head -c 400 "$dir/out.txt" "$dir/err.txt")"
    fi
}

# refused CASE STATUS TEXT COMMAND...: the exit status by the contract (2|3: either), and exactly one line on
# standard error, which begins with the program's name and contains TEXT (a basic regular expression).
refused() {
    what=$1 status=$2 text=$3
    shift 3
    got=0
    timeout 60 "$@" >"$dir/out.txt" 2>"$dir/err.txt" </dev/null || got=$?
    if [[ "|$status|" != *"|$got|"* ]]; then
        fail "$what: exit status $got, expected $status: $(head -c 400 "$dir/err.txt")"
    elif [ "$(wc -l <"$dir/err.txt")" -ne 1 ]; then
        fail "$what: not one line on standard error: $(head -c 400 "$dir/err.txt")"
    elif ! grep -q '^[a-z]*: ' "$dir/err.txt"; then
        fail "$what: the line does not name the program: $(cat "$dir/err.txt")"
    elif ! grep -q -- "$text" "$dir/err.txt"; then
        fail "$what: nothing says \"$text\": $(cat "$dir/err.txt")"
    else
        ok "$what"
    fi
}

# same CASE FILE FILE: the same bytes.
same() {
    if cmp "$2" "$3" >"$dir/out.txt" 2>&1; then ok "$1"; else fail "$1: $(cat "$dir/out.txt")"; fi
}

# make_data DIR [VOCAB]: shards of a made-up language over 29 letters in which each letter mostly decides the
# next, and a SentencePiece model for it (<unk>, <s>, </s> are 0 to 2).
make_data() {
    awk 'BEGIN {
        srand(7)
        for (d = 0; d < 40; d++) {
            t = 3
            for (i = 0; i < 250; i++) {
                t = rand() < 0.9 ? (t * 7 + 5) % 29 + 3 : int(rand() * 29) + 3
                printf "%d%s", t, i < 249 ? " " : "\n"
            }
        }
    }' | "$BIN/shards" --out "$1" --val-docs 8 --vocab 32 >/dev/null
    # A protobuf: field 1 a piece; in it field 1 the text, field 3 the type.
    {
        printf '\012\007\012\003unk\030\002\012\005\012\001s\030\003\012\005\012\001e\030\003'
        for c in a b c d e f g h i j k l m n o p q r s t u v w x y z A B C; do
            printf '\012\005\012\001%s\030\001' $c
        done
    } >"$1/letters.model"
}

# make_recipe FILE: a model of 15,656 parameters, 30 steps, no clock.
make_recipe() {
    cat >"$1" <<'EOF'
VOCAB_SIZE=32
NUM_LAYERS=2
MODEL_DIM=32
NUM_HEADS=4
NUM_KV_HEADS=2
TRAIN_SEQ_LEN=32
TRAIN_BATCH_TOKENS=512
ITERATIONS=30
WARMDOWN_ITERS=10
MAX_WALLCLOCK_SECONDS=0
VAL_LOSS_EVERY=0
EVAL_STRIDE=8
QUANT_KEEP_NUMEL=64
EOF
}

# poke FILE OFFSET OCTAL...: overwrite bytes.
poke() {
    poke_file=$1 poke_at=$2
    shift 2
    for poke_byte in "$@"; do
        # shellcheck disable=SC2059  # the format is the byte
        printf "\\$poke_byte" | dd of="$poke_file" bs=1 seek="$poke_at" conv=notrunc status=none
        poke_at=$((poke_at + 1))
    done
}

# flip FILE OFFSET: change one bit.
flip() {
    flip_byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    poke "$1" "$2" "$(printf %03o $((flip_byte ^ 16)))"
}

size() { wc -c <"$1" | tr -d ' '; }

# Length of a safetensors header, and where a tensor's bytes begin in the file.
st_header() { od -An -tu8 -N 8 "$1" | tr -d ' '; }
st_offset() {
    st_len=$(st_header "$1")
    st_at=$(tail -c +9 "$1" | head -c "$st_len" |
        sed -n "s/.*\"$2\":{[^}]*\"data_offsets\":\[\([0-9]*\),.*/\1/p")
    echo $((8 + st_len + st_at))
}

# The result line without the time, which is all that may differ between two runs.
result() { grep '^final_' "$1" | sed 's/ time_ms:[0-9]*//'; }
