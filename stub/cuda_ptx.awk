# cuda_ptx.awk - from nvcc's PTX of stub/cuda_kernels.cu to what ships: the kernels that the runner launches
# (stub/cuda_kern.c names them), under short names, without comments and blanks. The same sources give the same text:
# nvcc's names for things inside a file hold a hash of its path, so they are numbered instead.
#
# PTX says which version of its language it is written in, and a driver refuses one that is newer than itself. nvcc
# writes its own version; what is used here exists since 7.0 (CUDA 11.0, the first to know sm_80), so that is said.
# The build asks ptxas whether it is true.

BEGIN {
    # What stands in nvcc's name of the kernel, and ours.
    n = split("embed_fwd_kernel embed embed_bwd_kernelIf embed_bwd take_kernel take shift_fwd_kernel shift " \
              "shift_bwd_kernel shift_bwd coef_fwd_kernel coef coef_bwd_kernel coef_bwd combine_fwd_kernel combine " \
              "combine_bwd_kernel combine_bwd colsum_kernel colsum act_kernel act mul_kernel mul " \
              "elem10add_kernel add axpby_kernel axpby round_bf16_kernel round qk_fwd_kernel qk " \
              "qk_bwd_kernel qk_bwd xsa_fwd_kernel xsa xsa_bwd_kernel xsa_bwd attn10fwd_kernelILi64 attn64 " \
              "attn10fwd_kernelILi128 attn128 attn10dot_kernel dot dkv_kernelILi64 dkv64 dkv_kernelILi128 dkv128 " \
              "dq_kernelILi64 dq64 dq_kernelILi128 dq128 loss_kernel loss dz_kernelIf dz slot10row_kernel slot_row " \
              "slot10sum_kernel slot_sum slot10add_kernel slot_add adamw_kernel adamw optim10sum_kernel sum " \
              "sum_up_kernel sum_up product_bf16_kernelIffLb0ELb1 product product_bf16_kernelIffLb0ELb0 product_x " \
              "product_bf16_kernelIffLb1ELb0 product_w", word, " ") / 2
    for (i = 1; i <= n; i++) {
        pattern[i] = word[2 * i - 1]
        short[i] = word[2 * i]
    }
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
    gsub(/\$L__BB[0-9]+_/, "$")
}
# Inline assembly of one instruction.
/^\{ [^;]*;\}$/ { $0 = substr($0, 3, length($0) - 3) }
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
