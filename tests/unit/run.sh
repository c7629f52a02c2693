#!/bin/bash
# run.sh - runs unit test programs, as many at a time as there are cores, each one's output in one piece. Stops at the
# first that fails.
#
#     run.sh BUILD PROGRAM...
set -u
export STUB_LOADER=$1/stub/loader
shift
# shellcheck disable=SC2016 # the inner shell expands it
printf '%s\n' "$@" | xargs -P "$(nproc)" -n 1 sh -c '
    out=$("$0" 2>&1)
    status=$?
    printf "%s\n" "$out"
    [ $status = 0 ] || { echo "FAILED: $0"; exit 255; }'
