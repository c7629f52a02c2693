#!/bin/sh
# man.sh - manual pages out of the programs' own --help, so that the two cannot say different things.
#
#   man.sh BIN OUT     BIN: the folder of the programs; writes OUT/trainer.1, packer.1, verify.1, shards.1
#
# Help texts are set as they are (they are tables of options), with options in bold and each command under a
# heading of its own; trainer's settings, from --help-keys, become a list.
set -eu
export LC_ALL=C
bin=$1 out=$2
mkdir -p "$out"

# Text as roff: backslashes and leading dots are its own; a hyphen must stay one that can be copied.
roff() {
    sed -e 's/\\/\\e/g' -e 's/-/\\-/g' -e "s/^\\([.']\\)/\\\\\&\\1/" \
        -e 's/\(^\|[ (]\)\(\\-\\-[a-z]\(\\-\|[a-z]\)*\)/\1\\fB\2\\fR/g' \
        -e 's/^  *\(\\-o\) /  \\fB\1\\fR /'
}

# section TITLE < text: a heading and the text as it stands.
section() {
    printf '.SH "%s"\n.nf\n' "$1"
    roff
    printf '.fi\n'
}

# page NAME WHAT: the beginning of a page.
page() {
    printf '.TH %s 1 "" "pgolf" "User Commands"\n' "$(echo "$1" | tr a-z A-Z)"
    printf '.SH NAME\n%s \\- %s\n' "$1" "$2"
}

# commands PROGRAM: the commands that its help names, each once.
commands() {
    "$bin/$1" --help | sed -n "s/^  $1 \\([a-z][a-z]*\\) .*/\\1/p" | awk '!seen[$0]++'
}

# see PAGES: the end of a page.
see() {
    printf '.SH "SEE ALSO"\n%s\n.PP\n' "$1"
    printf 'The manual in share/doc/pgolf, beginning with README.md.\n'
}

{
    page trainer "train the language model of a recipe"
    "$bin/trainer" --help | section DESCRIPTION
    printf '.SH SETTINGS\nA recipe, the environment and the command line set these, KEY=VALUE; later ones win.\n'
    "$bin/trainer" --help-keys | roff |
        awk '{ key = $1; def = $2; $1 = $2 = ""; sub(/^ */, "")
               printf ".TP\n\\fB%s\\fR (%s)\n%s\n", key, def, $0 }'
    see '.BR packer (1), .BR verify (1), .BR shards (1)'
} >"$out/trainer.1"

for p in packer verify; do
    {
        case $p in
        packer) page packer "make one executable file of weights and code, and leaderboard folders" ;;
        verify) page verify "score weights, audit submissions and records" ;;
        esac
        "$bin/$p" --help | section DESCRIPTION
        whole=$("$bin/$p" --help)
        for c in $(commands $p); do
            own=$("$bin/$p" "$c" --help)
            [ "$own" = "$whole" ] || echo "$own" | section "$p $c"
        done
        see '.BR trainer (1), .BR packer (1), .BR verify (1), .BR shards (1)'
    } >"$out/$p.1"
done

{
    page shards "write and check shards of tokens"
    "$bin/shards" --help | section DESCRIPTION
    see '.BR trainer (1)'
} >"$out/shards.1"
