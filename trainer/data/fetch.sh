#!/bin/bash
# fetch.sh - the challenge's public FineWeb shards and tokenisers, resumable and checksummed.
# The manual is docs/data.md; --help is below. File names and layout are those of the challenge's
# own downloader (openai/parameter-golf, data/cached_challenge_fineweb.py).
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'END'
usage: fetch.sh [--variant sp1024] [--train-shards N] [--out DIR] [option]...

Fetches the challenge's validation shards, the first N training shards and the tokeniser into
DIR/datasets/fineweb10B_VARIANT, DIR/tokenizers and DIR/manifest.json. Run it again to go on after
an interruption; files that are complete are not fetched again.

  --variant V        sp1024, sp4096, byte260, ... (default sp1024)
  --train-shards N   training shards of 10^8 tokens, 200 MB each (default 80; 0: validation only)
  --out DIR          output directory (default data)
  --base-url URL     another place with the same layout; checksums come from URL/SHA256SUMS unless
                     the URL has the Hub's form (.../datasets/OWNER/NAME/resolve/REVISION/ROOT)
  --sums FILE        checksums from this file, as sha256sum prints them, paths below the base URL
  --no-checksum      when the place publishes none: check sizes and shard headers only
  --check            also check the contents of files that are here already
  --retries N        attempts to go on after a broken transfer (default 5)
  --dry-run          print what would be fetched

example: fetch.sh --train-shards 1 --out data
exit status: 0 done, 2 wrong use, 3 missing or damaged files, 4 no network, space or permission
END
}

die() { # die STATUS MESSAGE
    echo "fetch: $2" >&2
    exit "$1"
}

# ---- settings ----

variant=sp1024 train_shards=80 out=data base= sums= checksum=1 check=0 retries=5 dry_run=0
repo=${MATCHED_FINEWEB_REPO_ID:-willdepueoai/parameter-golf}
root=${MATCHED_FINEWEB_REMOTE_ROOT_PREFIX:-datasets}

while (($#)); do
    case $1 in
    --no-checksum) checksum=0 ;;
    --check) check=1 ;;
    --dry-run) dry_run=1 ;;
    --help | -h)
        usage
        exit 0
        ;;
    --variant | --train-shards | --out | --base-url | --sums | --retries)
        (($# > 1)) && [[ -n $2 ]] || die 2 "$1 needs a value"
        case $1 in
        --variant) variant=$2 ;;
        --out) out=$2 ;;
        --base-url) base=${2%/} ;;
        --sums) sums=$2 ;;
        *)
            [[ $2 =~ ^[0-9]{1,6}$ ]] || die 2 "$1 $2: expected a whole number up to 999999"
            [[ $1 == --retries ]] && retries=$((10#$2)) || train_shards=$((10#$2))
            ;;
        esac
        shift
        ;;
    *) die 2 "unknown argument $1; see fetch.sh --help" ;;
    esac
    shift
done
[[ $variant =~ ^(byte260|sp[0-9]+)$ ]] ||
    die 2 "--variant $variant: expected byte260 or sp and a number"
[[ -z $sums || -r $sums ]] || die 2 "$sums: cannot read the checksums"
for program in curl sha256sum; do
    command -v $program >/dev/null ||
        die 4 "$program is missing; install it: apt-get install $program"
done
base=${base:-${HF_ENDPOINT:-https://huggingface.co}/datasets/$repo/resolve/main${root:+/$root}}

mkdir -p -- "$out" 2>/dev/null && [[ -w $out ]] || die 4 "$out: cannot write to this directory"
exec 9<"$out"
! command -v flock >/dev/null || flock -n 9 || die 4 "$out: another fetch is at work here"
work=$(mktemp -d "$out/.fetch.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
trap 'echo "fetch: stopped; run it again to go on" >&2; exit 4' INT TERM HUP

# ---- transfer ----

[[ -t 2 ]] && silent= || silent=--silent # on a terminal curl shows rate and time left

size_of() {
    stat -c %s -- "$1" 2>/dev/null || echo 0
}

# The whole of URL into FILE. What an earlier attempt or run left of FILE is gone on with.
transfer() { # transfer URL FILE SIZE; SIZE "-": not known
    local url=$1 file=$2 size=$3 attempt=0 status answer code
    while :; do
        if [[ $size != - ]]; then
            (($(size_of "$file") != size)) || return 0
            (($(size_of "$file") < size)) || rm -f -- "$file"
        fi
        status=0
        answer=$(curl $silent --fail --location --connect-timeout 20 --speed-limit 1 \
            --speed-time 60 --continue-at - --output "$file" \
            --write-out '%{http_code} %{errormsg}' -- "$url") || status=$?
        code=${answer%% *}
        if ((status == 0)); then
            [[ $size != - ]] && (($(size_of "$file") != size)) || return 0
            answer="$code $(size_of "$file") bytes came, expected $size"
        fi
        case $status:$code in
        1:* | 3:*) die 2 "$url: ${answer#* }" ;;
        23:*) die 4 "cannot write to $out: ${answer#* }; is it full?" ;;
        1[2-9]?:*) die 4 "$url: the transfer was ended by signal $((status - 128))" ;;
        35:* | 60:* | 77:*) die 4 "$url: ${answer#* }" ;;
        22:416 | 33:* | 36:*)
            echo "  this server cannot go on in the middle of a file; starting it again" >&2
            rm -f -- "$file"
            ;;
        22:408 | 22:429 | 22:5??) ;;
        22:*) die 3 "$url: the server answers $code" ;;
        esac
        ((attempt++ < retries)) ||
            die 4 "$url: ${answer#* }; gave up after $attempt attempts, run it again to go on"
        echo "  broken off (${answer#* }), again from byte $(size_of "$file")" >&2
        sleep $((attempt < 5 ? attempt : 5))
    done
}

# ---- what the files should be ----

# $work/sums: one line "ALGORITHM SUM SIZE PATH" per file that is published, PATH below $base.
# ALGORITHM is sha256 or git (the hash of a git blob, which the Hub gives for small files).
: >"$work/sums"

from_sums() { # from_sums FILE, as sha256sum prints it
    awk 'match($0, /^[0-9a-fA-F]+ [ *]/) && RLENGTH == 66 {
             path = substr($0, 67)
             sub(/^\.\//, "", path)
             print "sha256", tolower(substr($0, 1, 64)), "-", path
         }' "$1" >>"$work/sums"
    [[ -s $work/sums ]] || die 3 "$1: no checksums, expected lines as sha256sum prints them"
}

# The Hub lists a directory as JSON, in pages; a header names the next page.
from_hub() { # from_hub DIRECTORY (below $base, may be empty)
    local tree=$hub/api/datasets/$hub_repo/tree/$hub_revision page=0
    local url=$tree${hub_root:+/$hub_root}${1:+/$1}
    while [[ -n $url ]]; do
        rm -f "$work/page" "$work/head"
        answer=$(curl --silent --fail --location --connect-timeout 20 --max-time 120 \
            --retry "$retries" --dump-header "$work/head" --output "$work/page" \
            --write-out '%{http_code} %{errormsg}' -- "$url") ||
            case $answer in
            4*) die 3 "$url: the server answers ${answer%% *}" ;;
            *) die 4 "$url: ${answer#* }" ;;
            esac
        awk -f "$here/json.awk" "$work/page" >"$work/flat" 2>"$work/error" ||
            die 3 "$url: $(cat "$work/error")"
        awk -F '\t' -v root="${hub_root:+$hub_root/}" '
            function entry() {
                if (type == "file" && index(path, root) == 1)
                    print lfs != "" ? "sha256 " lfs : "git " oid, size,
                        substr(path, length(root) + 1)
                type = oid = lfs = size = path = ""
            }
            {
                item = key = $1
                sub(/\].*/, "", item)
                sub(/^[^]]*\]/, "", key)
                if (item != last)
                    entry()
                last = item
            }
            key == ".type" { type = $2 }
            key == ".oid" { oid = $2 }
            key == ".size" { size = $2 }
            key == ".path" { path = $2 }
            key == ".lfs.oid" { lfs = $2 }
            END { entry() }' "$work/flat" >>"$work/sums"
        url=$(tr -d '\r' <"$work/head" |
            sed -n 's/^[Ll][Ii][Nn][Kk]: .*<\([^<>]*\)>; *rel="next".*/\1/p' | tail -n 1)
        ((++page < 1000)) || die 3 "$hub: a list of files without an end"
    done
}

listed=none
if [[ -n $sums ]]; then
    from_sums "$sums"
elif ((!checksum)); then
    echo "fetch: without checksums, only sizes and shard headers are checked" >&2
elif [[ $base =~ ^(https?://.*)/datasets/([^/]+/[^/]+)/resolve/([^/]+)/?(.*)$ ]]; then
    hub=${BASH_REMATCH[1]} hub_repo=${BASH_REMATCH[2]}
    hub_revision=${BASH_REMATCH[3]} hub_root=${BASH_REMATCH[4]}
    listed=hub
    from_hub ""
else
    answer=$(curl --silent --fail --location --connect-timeout 20 --retry "$retries" \
        --output "$work/SHA256SUMS" --write-out '%{http_code} %{errormsg}' -- "$base/SHA256SUMS") ||
        case $answer in
        404*) die 3 "$base publishes no SHA256SUMS; give --sums FILE or --no-checksum" ;;
        4*) die 3 "$base/SHA256SUMS: the server answers ${answer%% *}" ;;
        *) die 4 "$base/SHA256SUMS: ${answer#* }" ;;
        esac
    from_sums "$work/SHA256SUMS"
fi

published() { # published PATH: sets algorithm, sum and size, "-" where nothing is known
    local line
    line=$(awk -v path="$1" '{ p = $0; sub(/^[^ ]+ [^ ]+ [^ ]+ /, "", p) } p == path' "$work/sums" |
        tail -n 1)
    read -r algorithm sum size _ <<<"${line:-- - - -}"
    [[ $algorithm != - ]] || ((!checksum)) ||
        die 3 "$1: no checksum is published for it; is it there at all?"
}

# ---- checks of one file ----

hash_of() { # hash_of ALGORITHM FILE
    case $1 in
    sha256) sha256sum <"$2" ;;
    git) { printf 'blob %d\0' "$(size_of "$2")" && cat -- "$2"; } | sha1sum ;;
    esac | cut -d ' ' -f 1
}

# A shard's header: 20240520, 1, tokens, and a size of 1024 + 2 * tokens. Prints what is wrong.
shard_fault() { # shard_fault FILE
    local bytes head
    bytes=$(size_of "$1")
    ((bytes >= 1024)) || {
        echo "$bytes bytes, expected a header of 1024"
        return
    }
    head=$(od -An -v -tu1 -N12 -- "$1" | awk '{
        for (i = 1; i <= 9; i += 4)
            printf "%d ", $i + 256 * ($(i + 1) + 256 * ($(i + 2) + 256 * $(i + 3)))
    }')
    read -r magic version tokens <<<"$head"
    if ((magic != 20240520 || version != 1)); then
        echo "magic $magic version $version, expected 20240520 version 1"
    elif ((bytes != 1024 + 2 * tokens)); then
        echo "header says $tokens tokens, file holds $(((bytes - 1024) / 2))"
    fi
}

fault_of() { # fault_of FILE PATH ALGORITHM SUM: prints what is wrong, nothing when all is well
    local found
    if [[ $3 != - ]]; then
        found=$(hash_of "$3" "$1")
        [[ $found == "$4" ]] || {
            echo "$3 $found, expected $4"
            return
        }
    fi
    [[ $2 != *.bin ]] || shard_fault "$1"
}

obtain() { # obtain PATH: fetch and check one file; its name exists only when it is right
    local path=$1 file part fault attempt algorithm sum size
    file=$out/$path part=$out/$path.part
    published "$path"
    mkdir -p -- "$(dirname "$file")"
    for attempt in 1 2; do
        transfer "$base/$path" "$part" "$size"
        fault=$(fault_of "$part" "$path" "$algorithm" "$sum")
        if [[ -z $fault ]]; then
            mv -f -- "$part" "$file"
            return
        fi
        rm -f -- "$part"
        # A part left by an earlier run may be of another version of the file: once more, all of it.
        ((attempt == 2)) || echo "  $path: $fault; fetching all of it again" >&2
    done
    die 3 "$path: damaged on the server or on the way: $fault"
}

present() { # present PATH: is the file here and, as far as looked at, right?
    local file algorithm sum size fault
    file=$out/$1
    [[ -f $file ]] || return 1
    published "$1"
    if [[ $size != - ]] && (($(size_of "$file") != size)); then
        fault="$(size_of "$file") bytes, expected $size"
    elif ((check)); then
        fault=$(fault_of "$file" "$1" "$algorithm" "$sum")
    else
        fault=$([[ $1 != *.bin ]] || shard_fault "$file")
    fi
    [[ -n $fault ]] || return 0
    echo "  $1: $fault; fetching it again" >&2
    return 1
}

# ---- the list of files ----

# The manifest is small and says how many shards there are: always the server's present one.
rm -f -- "$out/manifest.json.part"
obtain manifest.json
awk -f "$here/json.awk" "$out/manifest.json" >"$work/manifest" 2>"$work/error" ||
    die 3 "$base/manifest.json: $(cat "$work/error")"
dataset=fineweb10B_$variant

field() { # field LIST NAME KEY: .LIST[i].KEY where .LIST[i].name is NAME
    awk -F '\t' -v list="$1" -v name="$2" -v key="$3" '
        index($1, "." list "[") == 1 {
            item = rest = $1
            sub(/\].*/, "", item)
            sub(/^[^]]*\]/, "", rest)
            if (rest == ".name" && $2 == name)
                wanted = item
            if (rest == "." key)
                value[item] = $2
        }
        END { print wanted in value ? value[wanted] : "" }' "$work/manifest"
}

val_files=$(field datasets "$dataset" stats.files_val)
train_files=$(field datasets "$dataset" stats.files_train)
tokenizer=$(field datasets "$dataset" tokenizer_name)
[[ $val_files =~ ^[0-9]{1,6}$ && $train_files =~ ^[0-9]{1,6}$ && -n $tokenizer ]] ||
    die 3 "$base/manifest.json: no data set $dataset; it lists $(awk -F '\t' '
        $1 ~ /^\.datasets\[[0-9]+\]\.name$/ { printf "%s%s", n++ ? ", " : "", $2 }
        END { if (!n) printf "none" }' "$work/manifest")"
((train_shards <= train_files)) ||
    die 2 "--train-shards $train_shards: $dataset has only $train_files"

list=()
for ((i = 0; i < val_files; i++)); do
    list+=("$(printf 'datasets/%s/fineweb_val_%06d.bin' "$dataset" $i)")
done
for key in model_path vocab_path path; do
    file=$(field tokenizers "$tokenizer" $key)
    [[ -n $file ]] || continue
    [[ $file =~ ^[A-Za-z0-9_][A-Za-z0-9_./-]*$ && /$file/ != */../* ]] ||
        die 3 "$base/manifest.json: the tokeniser's path $file is not below the base"
    list+=("$file")
done
((${#list[@]} > val_files)) || die 3 "$base/manifest.json: no files for tokeniser $tokenizer"
for ((i = 0; i < train_shards; i++)); do
    list+=("$(printf 'datasets/%s/fineweb_train_%06d.bin' "$dataset" $i)")
done
if [[ $listed == hub ]]; then
    from_hub "datasets/$dataset"
    from_hub tokenizers
fi

# ---- go ----

missing=() bytes=0 unknown=0
for path in "${list[@]}"; do
    if ! present "$path"; then
        missing+=("$path")
        published "$path"
        [[ $size == - ]] && unknown=1 || bytes=$((bytes + size - $(size_of "$out/$path.part")))
    fi
done
echo "$dataset: $val_files validation and $train_shards of $train_files training shards," \
    "tokeniser $tokenizer: ${#list[@]} files," \
    "${#missing[@]} to fetch$( ((unknown)) || echo ", $bytes bytes")"
if ((dry_run)); then
    printf '  %s\n' ${missing[@]+"${missing[@]}"}
    exit 0
fi
kb=$(df -Pk "$out" | awk 'NR == 2 { print $4 }')
((kb >= bytes / 1024)) || die 4 "$out: $kb KiB free, $((bytes / 1024)) KiB needed"

number=0
for path in ${missing[@]+"${missing[@]}"}; do
    obtain "$path"
    echo "  [$((++number))/${#missing[@]}] $path $(size_of "$out/$path") bytes"
done
echo "$out/datasets/$dataset: complete"
