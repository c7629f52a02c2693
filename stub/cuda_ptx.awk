# cuda_ptx.awk - from nvcc's PTX of stub/cuda_kernels.cu to what ships: the kernels that the runner launches
# (stub/cuda_kern.c names them), under short names, without comments and blanks. The same sources give the same text:
# nvcc's names for things inside a file hold a hash of its path, so they are numbered instead.
#
# PTX says which version of its language it is written in, and a driver refuses one that is newer than itself. nvcc
# writes its own version; what is used here exists since 7.0 (CUDA 11.0, the first to know sm_80), so that is said.
# The build asks ptxas whether it is true.

BEGIN {
    n = split("embed_fwd_kernel take_kernel shift_fwd_kernel coef_fwd_kernel combine_fwd_kernel qk_fwd_kernel " \
              "xsa_fwd_kernel attn10fwd_kernelILi64 attn10fwd_kernelILi128 loss_kernel slot10row_kernel " \
              "slot10sum_kernel slot10add_kernel adamw_kernel product_bf16_kernel few_kernel", pattern, " ")
    split("embed take shift coef combine qk xsa attn64 attn128 loss slot_row slot_sum slot_add adamw product few",
          short, " ")
}

# Between kernels; a kernel that is not kept ends with a brace in the first column.
skip { if (/^}/) skip = 0; next }

{
    sub(/\/\/.*/, "")
    gsub(/[ \t]+/, " ")
    sub(/^ /, "")
    sub(/ $/, "")
    gsub(/, /, ",")
    gsub(/; /, ";")
}
/^$/ { next }
/^\.version/ { print ".version 7.0"; next }

/\.entry / {
    found = 0
    for (i = 1; i <= n; i++)
        if (index($0, pattern[i])) {
            found = i
            used[i]++
        }
    if (!found) {
        skip = 1
        next
    }
    entry = $0
    sub(/.*\.entry /, "", entry)
    sub(/\(.*/, "", entry)
    print ".visible .entry " short[found] "("
    next
}

# Names of nvcc's: of a parameter, or of something else in the file.
{
    out = ""
    while (match($0, /_Z[A-Za-z0-9_$]+/)) {
        name = substr($0, RSTART, RLENGTH)
        if (index(name, entry "_param_") == 1)
            to = "p" substr(name, length(entry) + 8)
        else {
            if (!(name in number))
                number[name] = ++names
            to = "v" number[name]
        }
        out = out substr($0, 1, RSTART - 1) to
        $0 = substr($0, RSTART + RLENGTH)
    }
    print out $0
}

END {
    for (i = 1; i <= n; i++)
        if (used[i] != 1) {
            print "cuda_ptx.awk: kernels with " pattern[i] " in their name: " used[i] + 0 ", expected 1" >"/dev/stderr"
            exit 1
        }
}
