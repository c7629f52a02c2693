#!/bin/bash
# fetch_test.sh - trainer/data/fetch.sh against a local server.
#
# Guards against: a file under its final name that is not what was published; a transfer that starts
# from zero although half is here; a server's refusal that looks like success; a hang.
set -u
export LC_ALL=C no_proxy=127.0.0.1

project=$(cd "$(dirname "$0")/../.." && pwd)
fetch=$project/trainer/data/fetch.sh
dir=$(mktemp -d)
servers=()
trap 'for s in ${servers[@]+"${servers[@]}"}; do kill "$s" 2>/dev/null; done; rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failed=0

report() { # report NAME FAULT
    if [[ -n $2 ]]; then
        echo "FAIL fetch: $1: $2"
        sed 's/^/     /' out.txt
        failed=1
    else
        echo "ok   fetch: $1"
    fi
}

expect() { # expect STATUS TEXT ARGUMENT...: run, and say what is not as expected
    local status=$1 text=$2 got=0
    shift 2
    timeout 60 "$fetch" "$@" >out.txt 2>&1 || got=$?
    if ((got != status)); then
        echo "exit status $got, expected $status"
    elif ! grep -q -- "$text" out.txt; then
        echo "no '$text' in the output"
    fi
}

put_shard() { # put_shard FILE TOKENS: a valid shard of deterministic bytes
    local n=$2
    {
        printf '\210\330\064\001\001\000\000\000'
        printf "$(printf '\\x%02x\\x%02x\\x%02x\\x00' $((n & 255)) $((n >> 8 & 255)) $((n >> 16)))"
        head -c 1012 /dev/zero
        yes "$1 $n" | head -c $((2 * n))
    } >"$1"
}

command -v python3 >/dev/null || {
    echo "FAIL fetch: the test server needs python3"
    exit 1
}

serve() { # serve NAME [--no-range]: start a server on root/, set $url
    python3 "$project/tests/data/http_server.py" "$dir/root" "$dir/$1.port" "$dir/$1.log" "${@:2}" 2>/dev/null &
    servers+=($!)
    for ((i = 0; i < 100; i++)); do [[ -s $1.port ]] && break || sleep 0.1; done
    url=http://127.0.0.1:$(cat "$1.port")
}

same() { # same OUT: every file there is is the published one, and nothing else is there
    local file
    while IFS= read -r file; do
        cmp -s "$1/$file" "$hub/$file" || echo "$file differs from the published file"
    done < <(cd "$1" && find . -type f)
}

hub=root/datasets/owner/name/resolve/main/datasets
set_dir=datasets/fineweb10B_sp1024
mkdir -p "$hub/$set_dir" "$hub/tokenizers"
for i in 0 1 2 3; do
    put_shard "$hub/$set_dir/fineweb_train_00000$i.bin" $((50000 + i))
done
put_shard "$hub/$set_dir/fineweb_val_000000.bin" 70000
head -c 5000 /dev/urandom >"$hub/tokenizers/fineweb_1024_bpe.model"
echo "<unk> 0" >"$hub/tokenizers/fineweb_1024_bpe.vocab"
cat >"$hub/manifest.json" <<'END'
{"version": "10B", "datasets": [
  {"name": "fineweb10B_byte260", "tokenizer_name": "pure_byte_260", "stats": {"files_train": 9, "files_val": 2}},
  {"name": "fineweb10B_sp1024", "tokenizer_name": "sp_bpe_1024", "stats": {"files_train": 4, "files_val": 1}}],
 "tokenizers": [{"name": "sp_bpe_1024", "model_path": "tokenizers/fineweb_1024_bpe.model",
   "vocab_path": "tokenizers/fineweb_1024_bpe.vocab", "source_spec": {"name": "sp_bpe_1024"}}]}
END

serve good
good=$url/datasets/owner/name/resolve/main/datasets

fault=$(expect 0 "7 files, 7 to fetch" --base-url "$good" --train-shards 4 --out full)
report "complete fetch, checksums from the Hub's list" \
    "${fault:-$(same full)$( (($(find full -type f | wc -l) == 8)) || echo "not 8 files")}"

: >good.log
fault=$(expect 0 "0 to fetch" --base-url "$good" --train-shards 4 --out full)
report "complete files are not fetched again" "${fault:-$(grep '\.bin' good.log)}"

echo "fineweb_train_000001.bin cut 30000" >root/.trouble
: >good.log
fault=$(expect 0 "broken off" --base-url "$good" --train-shards 2 --out cut)
report "broken off, gone on with in the same run" \
    "${fault:-$(same cut)$(grep -q 'train_000001.bin 30000 206' good.log || echo "no request from byte 30000")}"

echo "fineweb_val_000000.bin cut 12345" >root/.trouble
: >good.log
fault=$(expect 4 "run it again to go on" --base-url "$good" --train-shards 0 --retries 0 --out later)
[[ -n $fault || -e later/$set_dir/fineweb_val_000000.bin.part ]] || fault="no .part was kept"
[[ ! -e later/$set_dir/fineweb_val_000000.bin ]] || fault="half a file has the final name"
fault=${fault:-$(expect 0 "complete" --base-url "$good" --train-shards 0 --out later)}
report "broken off, gone on with in the next run" \
    "${fault:-$(same later)$(grep -q 'val_000000.bin 12345 206' good.log || echo "no request from byte 12345")}"

mkdir -p "stale/$set_dir"
head -c 40000 /dev/zero >"stale/$set_dir/fineweb_val_000000.bin.part"
fault=$(expect 0 "fetching all of it again" --base-url "$good" --train-shards 0 --out stale)
report "a part of another version is thrown away" "${fault:-$(same stale)}"

mkdir -p "whole/$set_dir"
cp "$hub/$set_dir/fineweb_val_000000.bin" "whole/$set_dir/fineweb_val_000000.bin.part"
: >good.log
fault=$(expect 0 "complete" --base-url "$good" --train-shards 0 --out whole)
report "a part that is complete is checked, not fetched" \
    "${fault:-$(same whole)$(grep val_ good.log)}"

printf 'X' | dd of="full/$set_dir/fineweb_train_000002.bin" bs=1 seek=2000 conv=notrunc 2>/dev/null
fault=$(expect 0 "0 to fetch" --base-url "$good" --train-shards 4 --out full)
fault=${fault:-$(expect 0 "fetching it again" --base-url "$good" --train-shards 4 --out full --check)}
report "--check finds and replaces a damaged file" "${fault:-$(same full)}"

truncate -s 60000 "full/$set_dir/fineweb_train_000003.bin"
fault=$(expect 0 "fetching it again" --base-url "$good" --train-shards 4 --out full)
report "a file of the wrong length is replaced" "${fault:-$(same full)}"

echo "fineweb_train_000000.bin status 404" >root/.trouble
fault=$(expect 3 "fineweb_train_000000.bin: the server answers 404" --base-url "$good" --train-shards 1 --out gone)
[[ ! -e gone/$set_dir/fineweb_train_000000.bin ]] || fault="a file was made from the error"
report "a missing file (404)" "$fault"

echo "fineweb_train_000000.bin status 503" >root/.trouble
fault=$(expect 4 "503" --base-url "$good" --train-shards 1 --retries 1 --out busy)
report "a busy server (503) is asked again, then given up" \
    "${fault:-$( (($(grep -c 'train_000000.bin 0 503' good.log) == 2)) || echo "not asked twice")}"
rm -f root/.trouble

fault=$(expect 2 "has only 4" --base-url "$good" --train-shards 5 --out more)
report "more shards than there are" "$fault"
fault=$(expect 3 "no data set fineweb10B_sp4096; it lists fineweb10B_byte260, fineweb10B_sp1024" \
    --base-url "$good" --variant sp4096 --out more)
report "a variant that is not there" "$fault"

fault=$(expect 0 "fineweb_train_000001.bin" --base-url "$good" --train-shards 2 --out dry --dry-run)
report "--dry-run fetches no shard" "${fault:-$(find dry -name '*.bin*')}"

# A plain file server: the same files below another path, with SHA256SUMS.
mirror=root/mirror
mkdir -p root && cp -r "$hub" $mirror
fault=$(expect 3 "publishes no SHA256SUMS" --base-url "$url/mirror" --train-shards 0 --out m1)
report "a place without checksums is refused" "$fault"
fault=$(expect 0 "without checksums" --base-url "$url/mirror" --train-shards 0 --out m1 --no-checksum)
report "--no-checksum goes without" "${fault:-$(same m1)}"

(cd $mirror && find . -type f ! -name SHA256SUMS -exec sha256sum {} + >"$dir/sums" && cp "$dir/sums" SHA256SUMS)
printf 'X' | dd of="$mirror/$set_dir/fineweb_train_000000.bin" bs=1 seek=3000 conv=notrunc 2>/dev/null
fault=$(expect 3 "damaged on the server or on the way: sha256" --base-url "$url/mirror" --train-shards 1 --out m2)
[[ -z $(find m2 -name 'fineweb_train_000000.bin*') ]] || fault="the damaged file was kept"
report "a damaged file is detected (SHA256SUMS)" "$fault"
fault=$(expect 0 "complete" --base-url "$url/mirror" --train-shards 0 --out m3 --sums sums)
report "checksums from a file" "${fault:-$(same m3)}"

(cd $mirror && printf '\007' | dd of=$set_dir/fineweb_train_000001.bin bs=1 seek=8 conv=notrunc 2>/dev/null
    sha256sum $set_dir/* tokenizers/* manifest.json >SHA256SUMS)
fault=$(expect 3 "header says" --base-url "$url/mirror" --train-shards 2 --out m4)
report "a shard whose header is wrong is refused in spite of its checksum" "$fault"

echo '{"datasets": [' >$mirror/manifest.json
fault=$(expect 3 "not JSON" --base-url "$url/mirror" --train-shards 0 --out m5 --no-checksum)
report "a manifest that is not JSON" "$fault"
sed 's,"tokenizers/fineweb_1024_bpe.model","../../evil",' $hub/manifest.json >$mirror/manifest.json
fault=$(expect 3 "not below the base" --base-url "$url/mirror" --train-shards 0 --out m5 --no-checksum)
report "a manifest whose path leads out of the directory" "$fault"

serve plain --no-range
echo "fineweb_val_000000.bin cut 20000" >root/.trouble
fault=$(expect 0 "cannot go on in the middle" \
    --base-url "$url/datasets/owner/name/resolve/main/datasets" --train-shards 0 --out norange)
report "a server without Range: started again" "${fault:-$(same norange)}"

mkdir bin && printf '#!/bin/sh\necho "Filesystem 1024-blocks Used Available"\necho "x 9 9 10 9 /"\n' >bin/df
chmod +x bin/df
fault=$(PATH=$dir/bin:$PATH expect 4 "10 KiB free" --base-url "$good" --train-shards 1 --out small)
report "no space: said before the first byte" "${fault:-$(find small -name '*.bin*')}"

fault=$(trap "" XFSZ; ulimit -f 64; expect 4 "cannot write" --base-url "$good" --train-shards 0 --out limited)
report "a write that fails" "$fault"
fault=$(expect 4 "cannot write to this directory" --base-url "$good" --out /proc/nothing)
report "an output directory that cannot be made" "$fault"
fault=$(expect 4 "127.0.0.1" --base-url http://127.0.0.1:1/mirror --retries 0 --out nowhere)
report "no server" "$fault"
fault=$(expect 2 "unknown argument --frobnicate" --frobnicate)
report "an unknown option" "$fault"
fault=$(expect 2 "expected a whole number" --train-shards many)
report "a number that is none" "$fault"

exit $failed
