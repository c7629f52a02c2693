#!/bin/bash
# ptx_test.sh - guards against a kernel of the runner for cards whose registers were named so that one value takes
# another's place (stub/ptx_registers.c), or whose text is not what it was when it is written out (stub/ptx_words.c).
#
# Environment: B, the directory of the build (build).
set -u
name=ptx_test
B=${B:-build}
here=$(dirname "$0")
# shellcheck source=tests/e2e/lib.sh
. "$here/lib.sh"
for p in ptx_registers ptx_words; do
    [ -x "$B/stub/$p" ] || { echo "skip $name: $B/stub/$p is not built"; exit 0; }
done

# kernel BODY: a kernel with such lines; PTX ends a line where an instruction does not end.
kernel() { printf '.version 7.0\n.visible .entry k(\n.param .u64 p0\n)\n{\n%s\n}\n' "$1"; }
# renamed CASE BODY EXPECTED: both without the kernel's head, lines ended by / as well.
renamed() {
    kernel "$(tr / '\n' <<<"$2")" | "$B/stub/ptx_registers" >"$dir/out.ptx" 2>"$dir/err.txt" || fail "$1: $(cat "$dir/err.txt")"
    kernel "$(tr / '\n' <<<"$3")" >"$dir/want.ptx"
    # The filter leaves out what ends a line behind a semicolon, also behind the last one.
    if cmp -s <(tr -d '\n' <"$dir/out.ptx") <(tr -d '\n' <"$dir/want.ptx"); then ok "$1"; else fail "$1: $(cat "$dir/out.ptx")"; fi
}
f='.reg .f32 %f<9>;'
renamed "a name is free behind the last use" \
    "$f/mov.f32 %f1,0f0;/add.f32 %f2,%f1,%f1;/mov.f32 %f3,0f1;/add.f32 %f4,%f2,%f3;/st.f32 [p0],%f4;/ret;" \
    ".reg .f32 %f<2>;/mov.f32 %f0,0f0;/add.f32 %f0,%f0,%f0;/mov.f32 %f1,0f1;/add.f32 %f0,%f0,%f1;/st.f32 [p0],%f0;/ret;"
renamed "a value goes round a loop: its name is taken there" \
    "$f/.reg .pred %p<3>;/mov.f32 %f1,0f0;/\$1:/mov.f32 %f2,0f1;/st.f32 [p0],%f2;/st.f32 [p0],%f1;/setp.lt.f32 %p1,%f2,0f0;/@%p1 bra \$1;/ret;" \
    ".reg .f32 %f<2>;/.reg .pred %p<1>;/mov.f32 %f0,0f0;/\$1:/mov.f32 %f1,0f1;/st.f32 [p0],%f1;/st.f32 [p0],%f0;/setp.lt.f32 %p0,%f1,0f0;/@%p0 bra \$1;/ret;"
renamed "with a predicate the old value may stay" \
    "$f/.reg .pred %p<2>;/setp.lt.s32 %p1,1,2;/mov.f32 %f1,0f0;/@%p1 mov.f32 %f1,0f1;/mov.f32 %f2,0f2;/add.f32 %f3,%f1,%f2;/st.f32 [p0],%f3;/ret;" \
    ".reg .f32 %f<2>;/.reg .pred %p<1>;/setp.lt.s32 %p0,1,2;/mov.f32 %f0,0f0;/@%p0 mov.f32 %f0,0f1;/mov.f32 %f1,0f2;/add.f32 %f0,%f0,%f1;/st.f32 [p0],%f0;/ret;"
renamed "registers of a block of its own" \
    ".reg .pred %p<3>;/setp.lt.s32 %p1,1,2;/{/.reg .pred %p1;/setp.lt.s32 %p1,2,3;/@%p1 st.s32 [p0],1;/}/@%p1 st.s32 [p0],2;/ret;" \
    ".reg .pred %p<2>;/setp.lt.s32 %p0,1,2;/setp.lt.s32 %p1,2,3;/@%p1 st.s32 [p0],1;/@%p0 st.s32 [p0],2;/ret;"
renamed "results that are not read have names of their own" \
    "$f/mov.f32 %f7,0f0;/ld.v2.f32 {%f1,%f2},[p0];/st.f32 [p0],%f2;/st.f32 [p0],%f7;/ret;" \
    ".reg .f32 %f<3>;/mov.f32 %f0,0f0;/ld.v2.f32 {%f1,%f2},[p0];/st.f32 [p0],%f2;/st.f32 [p0],%f0;/ret;"
renamed "what may be read before it is written" \
    "$f/.reg .pred %p<2>;/setp.lt.s32 %p1,1,2;/\$2:/@%p1 bra \$1;/mov.f32 %f1,0f0;/\$1:/mov.f32 %f2,0f1;/st.f32 [p0],%f2;/st.f32 [p0],%f1;/bra \$2;" \
    ".reg .f32 %f<2>;/.reg .pred %p<1>;/setp.lt.s32 %p0,1,2;/\$2:/@%p0 bra \$1;/mov.f32 %f0,0f0;/\$1:/mov.f32 %f1,0f1;/st.f32 [p0],%f1;/st.f32 [p0],%f0;/bra \$2;"
as_it_is="$f/mov.f32 %f5,0f0;/call (%f6), other, (%f5);/ret;"
renamed "an unknown instruction: as it was" "$as_it_is" "$as_it_is"
if grep -q 'left as it is$' "$dir/err.txt"; then ok "and it is said"; else fail "nothing is said of it"; fi
if [ -s "$B/stub/cuda.ptx.short" ] && command -v python3 >"$dir/where"; then
    check "the kernels of this build" python3 "$here/ptx_same.py" "$B/stub/cuda.ptx.long" "$B/stub/cuda.ptx.short"
else
    echo "skip $name: the kernels of this build (they, or python3, are not there)"
fi

# written FILE: the text behind the words, with the words in it.
written() {
    LC_ALL=C awk 'BEGIN { RS = "\001"; for (i = 0; i < 256; i++) code[sprintf("%c", i)] = i } {
        n = 0
        while ((at = index($0, "\002")) > 1) { word[n++] = substr($0, 1, at - 1); $0 = substr($0, at + 1) }
        for (i = 2; i < length($0); i++) { c = substr($0, i, 1); printf "%s", (code[c] > 127 ? word[code[c] - 128] : c) }
    }' <(tr '\000' '\002' <"$1")
}
text=$(kernel "$(tr / '\n' <<<"$f/mov.f32 %f1,0f0;/@%p1 add.f32 %f1,%f1,%f2;/mma.m16 {%f1,%f2},{%f3,%f4};/add.f32 %f3,%f1,%f2;")")
printf '%s\n' "$text" >"$dir/text"
"$B/stub/ptx_words" <"$dir/text" >"$dir/short" || fail "words"
if [ "$(written "$dir/short")" = "$text" ]; then ok "words written out"; else fail "words written out: $(written "$dir/short")"; fi
if [ -s "$B/stub/cuda.ptx.short" ]; then
    tr -d '\000' <"$B/stub/cuda.ptx.short" >"$dir/text"
    written "$B/stub/cuda.ptx" >"$dir/text.out"
    same "words of this build's kernels" "$dir/text" "$dir/text.out"
fi
if [ "$(LC_ALL=C tr -d '\001-\177' <"$dir/short" | wc -c)" -gt 15 ]; then ok "words are used"; else fail "no words"; fi
printf 'mov.f32 \303\244;\n' >"$dir/text"
if "$B/stub/ptx_words" <"$dir/text" >"$dir/short" 2>"$dir/err.txt"; then fail "bytes above 127"; else ok "bytes above 127 are refused"; fi
exit $failed
