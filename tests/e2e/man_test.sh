#!/bin/bash
# man_test.sh - the manual pages and the completion, both made of the programs' own help.
#
# Guards against: an option or a setting that the program has and the page or the completion does not; a page
# that the formatter complains about; completion that prints errors into somebody's command line.
set -u
name=man
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
root=$(cd "$here/../.." && pwd)
sh "$root/man/man.sh" "$BIN" "$dir/man" || fail "man.sh"

# What a page shows, without bold and underline.
text() {
    if command -v groff >/dev/null; then
        groff -man -Tascii -rLL=200n -P-c "$1" 2>"$dir/err.txt" | sed 's/.\x08//g; s/\x1b\[[0-9;]*m//g'
    else
        sed -e 's/\\-/-/g' -e 's/\\f[BR]//g' -e 's/\\&//g' "$1"
    fi
}
words() { grep -oE -- '--[a-z][a-z-]*' | sort -u; }

for p in trainer packer verify shards; do
    "$BIN/$p" --help >"$dir/help.txt"
    for c in $(sed -n "s/^  $p \([a-z][a-z]*\) .*/\1/p" "$dir/help.txt" | sort -u); do
        "$BIN/$p" "$c" --help >>"$dir/help.txt" || fail "$p $c --help"
    done
    [ $p = trainer ] && "$BIN/trainer" --help-keys >>"$dir/help.txt" # whose meanings name options
    text "$dir/man/$p.1" >"$dir/page.txt"
    words <"$dir/help.txt" >"$dir/a"
    words <"$dir/page.txt" >"$dir/b"
    same "$p.1 has every option of the help" "$dir/a" "$dir/b"
    [ -s "$dir/err.txt" ] && fail "$p.1: $(head -3 "$dir/err.txt")"
    command -v groff >/dev/null &&
        check "$p.1: groff has nothing to say" sh -c '! groff -man -Tascii -ww -z "$0" 2>&1 | grep .' "$dir/man/$p.1"
done
text "$dir/man/trainer.1" >"$dir/page.txt"
missing=0
for key in $("$BIN/trainer" --help-keys | cut -d' ' -f1); do
    grep -q "^ *$key (" "$dir/page.txt" || { fail "trainer.1: no $key"; missing=1; }
done
[ $missing -eq 0 ] && ok "trainer.1 has every setting"
# Every option that the parser knows stands in the help, or nobody finds it.
for o in $(grep -oE '\{"--[a-z-]+"' "$root/verify/options.c" | tr -d '{"'); do
    text "$dir/man/verify.1" | grep -q -- "$o" || fail "verify.1: no $o"
done

# ---- bash ----

# complete PROGRAM WORD...: what bash offers for the last word.
complete_in_bash() {
    bash --norc -c '
        . "$1/completion/pgolf.bash"; PATH=$2:$PATH; shift 2
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _pgolf "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf "%s\n" "${COMPREPLY[@]}"' bash "$root" "$BIN" "$@" 2>"$dir/err.txt"
}
offers() { # offers CASE WANTED WORD...
    offers_what=$1 offers_want=$2
    shift 2
    complete_in_bash "$@" >"$dir/out.txt"
    if [ -s "$dir/err.txt" ]; then
        fail "completion, $offers_what: $(head -2 "$dir/err.txt")"
    elif grep -qxF -- "$offers_want" "$dir/out.txt"; then
        ok "completion, $offers_what"
    else
        fail "completion, $offers_what: no $offers_want in: $(tr '\n' ' ' <"$dir/out.txt")"
    fi
}
cd "$dir" || exit 1
touch model.safetensors
offers "a command" submit packer su
offers "all commands" blob verify ""
offers "an option of a command" --target-bytes packer pack --t
offers "a short option" -o packer pack -
offers "an option of the other command" --flips verify probe --f
offers "a mode" slot-context verify blob f --eval slot
offers "a setting" NUM_LAYERS= trainer r.conf NUM_L
offers "a file" model.safetensors packer pack mod
offers "an option without commands" --val-docs shards --val
offers "the tracks of a folder" 10min_16mb packer submit --track ""
offers "the tracks of an audit" non-record verify record --track ""
offers "a runner" cuda packer pack --runner c
complete_in_bash shards --mo >"$dir/out.txt"
grep -q -- --model "$dir/out.txt" && fail "completion, shards: an option of the program in its example"
for p in packer verify; do # every command
    for c in $("$BIN/$p" --help | sed -n "s/^  $p \([a-z][a-z]*\) .*/\1/p" | sort -u); do
        complete_in_bash $p "$c" -- | words >"$dir/b"
        "$BIN/$p" "$c" --help | words >"$dir/a"
        same "completion, options of $p $c" "$dir/a" "$dir/b"
    done
done

# ---- zsh ----

if command -v zsh >/dev/null; then
    # What zsh's own functions would be asked to offer.
    offers_in_zsh() {
        zo_what=$1 zo_want=$2
        shift 2
        zsh -f -c '
            compadd() { print -l -- $@ }
            _files() { print files $@ }
            file=$1 path=($2 $path); shift 2
            words=("$@") CURRENT=$# PREFIX=${@[-1]}
            . $file' zsh "$root/completion/_pgolf" "$BIN" "$@" >"$dir/out.txt" 2>&1
        if grep -qxF -- "$zo_want" "$dir/out.txt"; then
            ok "zsh, $zo_what"
        else
            fail "zsh, $zo_what: no $zo_want in: $(head -c 300 "$dir/out.txt")"
        fi
    }
    offers_in_zsh "a command" submit packer su
    offers_in_zsh "an option of a command" --target-bytes packer pack --t
    offers_in_zsh "a mode" slot-context verify blob f --eval slot
    offers_in_zsh "a setting" NUM_LAYERS trainer r.conf NUM_L
    offers_in_zsh "a file" files packer pack mod
    offers_in_zsh "an option without commands" --val-docs shards --val
    offers_in_zsh "the tracks of an audit" non-record verify record --track ""
else
    echo "skip $name: no zsh"
fi
exit $failed
