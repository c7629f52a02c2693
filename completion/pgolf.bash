# pgolf.bash - completion of trainer, packer, verify and shards in bash.
#
# Commands, options and settings come from the programs' own --help and --help-keys at the moment of completion, so
# they are those of the program that is going to run.

_pgolf_options() { # _pgolf_options HELP: what begins with a dash in it
    sed -n '/^[Ee]xample/,/^[Ee]xit/!p' <<<"$1" | grep -oE -- '(^|[[ (,|])--?[a-z][a-z-]*' | tr -d '[ (,|' | sort -u
}

_pgolf() {
    local program=$1 word=$2 before=$3 help command=
    local name=${program##*/}
    COMPREPLY=()
    help=$("$program" --help 2>/dev/null) || return 0
    local commands
    commands=$(sed -n "s/^  $name \([a-z][a-z]*\) .*/\1/p" <<<"$help" | sort -u)
    if [[ -n $commands ]]; then
        if [[ $COMP_CWORD -eq 1 ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$commands --help" -- "$word")
            return 0
        fi
        command=${COMP_WORDS[1]}
        help=$("$program" "$command" --help 2>/dev/null) || return 0
    fi
    case $before in
    --eval) mapfile -t COMPREPLY < <(compgen -W "plain sliding slot slot-context ttt" -- "$word") ;;
    --runner) mapfile -t COMPREPLY < <(compgen -W "cpu cuda" -- "$word") ;;
    --codec) mapfile -t COMPREPLY < <(compgen -W "auto cm range lzma zstd none" -- "$word") ;;
    --compressor) mapfile -t COMPREPLY < <(compgen -W "brotli lzma zstd zlib" -- "$word") ;;
    --device) mapfile -t COMPREPLY < <(compgen -W "cpu cuda" -- "$word") ;;
    --track)
        local tracks="10min_16mb non_record_16mb"
        [[ $command == record ]] && tracks="record non-record"
        mapfile -t COMPREPLY < <(compgen -W "$tracks" -- "$word")
        ;;
    --out | --data) mapfile -t COMPREPLY < <(compgen -d -- "$word") ;;
    *)
        if [[ $word == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$(_pgolf_options "$help")" -- "$word")
        elif [[ $word == [A-Z]* && $help == *KEY=VALUE* ]]; then
            local keys
            keys=$("${program%"$name"}trainer" --help-keys 2>/dev/null | cut -d' ' -f1 | sed 's/$/=/')
            mapfile -t COMPREPLY < <(compgen -W "$keys" -- "$word")
            [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            compopt -o filenames 2>/dev/null
        fi
        ;;
    esac
    return 0
}

complete -F _pgolf trainer packer verify shards
