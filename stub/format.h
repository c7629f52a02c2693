/*
 * format.h - the layout of a submission file, as constants. Specified in words in docs/format.md.
 *
 *     [loader ELF][header][runner][weights][byte table][recipe][source][cuda]
 *
 * The last two are optional.
 *
 * Everything is little-endian and read field by field (model/reader.h); no struct is laid over the
 * file. Sections follow each other without gaps, in the order of their kinds, the last one ends
 * where the file ends, and the header has one entry for each of them, itself and the loader
 * included. So the entry of a kind that is not optional is always at the same place: HDR_ENTRIES +
 * (kind - 1) * SEC_BYTES.
 *
 * Shared by the loader, the runner, packer and verify. Constants only: nothing here is code.
 */
#ifndef STUB_FORMAT_H
#define STUB_FORMAT_H

/* The header starts where the loader ends. Offsets from its start: */
enum {
    HDR_MAGIC = 0,      /* 8 bytes: FORMAT_MAGIC */
    HDR_VERSION = 8,    /* u32: FORMAT_VERSION */
    HDR_FLAGS = 12,     /* u32: 0 */
    HDR_COUNT = 16,     /* u32: number of sections, SECTIONS_MIN..SECTIONS_MAX */
    HDR_SIZE = 20,      /* u32: HDR_BYTES + count * SEC_BYTES */
    HDR_FILE_SIZE = 24, /* u64: size of the whole file */
    HDR_ENTRIES = 32,   /* the section entries */
    HDR_TAIL = 8,       /* after them, u64: XXH64, seed 0, of everything in the header before it */
    HDR_BYTES = HDR_ENTRIES + HDR_TAIL,
};
_Static_assert(HDR_FILE_SIZE + 8 == HDR_ENTRIES,
               "header has a gap: docs/format.md must change too");

/* One section entry. Offsets from its start: */
enum {
    SEC_KIND = 0,      /* u32: enum kind, rising; in entry number i < SECTIONS_MIN it is i + 1 */
    SEC_CODEC = 4,     /* u32: enum codec */
    SEC_OFFSET = 8,    /* u64: from the start of the file */
    SEC_SIZE = 16,     /* u64: bytes stored */
    SEC_RAW_SIZE = 24, /* u64: bytes after decoding */
    SEC_XXH64 = 32,    /* u64: XXH64, seed 0, of the stored bytes; 0 in the header's own entry */
    SEC_PARAMS = 40,   /* 8 bytes: parameters of the codec, 0 where it has none */
    SEC_BYTES = 48,
};
_Static_assert(SEC_PARAMS + 8 == SEC_BYTES, "entry has a gap: docs/format.md must change too");

/* "pgolfsub" as it is read by a little-endian load of 64 bits. */
#define FORMAT_MAGIC 0x627573666c6f6770ULL
enum { FORMAT_VERSION = 1 };

enum kind {
    KIND_LOADER = 1,
    KIND_HEADER = 2,
    KIND_RUNNER = 3,
    KIND_WEIGHTS = 4,
    KIND_BYTE_TABLE = 5,
    KIND_RECIPE = 6,
    KIND_SOURCE = 7,
    KIND_CUDA = 8, /* kernels for the CUDA runner */
    SECTIONS_MIN = 6,
    SECTIONS_MAX = 8,
};

enum codec {
    CODEC_NONE = 0,  /* stored as it is */
    CODEC_LZMA = 1,  /* one raw LZMA1 stream; weights, and everything in files of before */
    CODEC_ZSTD = 2,  /* one zstd frame; weights only, no decoder in the CPU runner */
    CODEC_RANGE = 3, /* stub/weights_dec.h; weights only */
    CODEC_CM = 4,    /* stub/cm_dec.h; weights only */
    CODEC_CODE = 5,  /* stub/code_dec.h; everything but the weights */
};

/*
 * What a reader accepts as SEC_RAW_SIZE, before it allocates anything. All stay below 2^31, the
 * limit of the x86 filter.
 */
enum {
    RUNNER_RAW_MAX = 16 << 20,
    WEIGHTS_RAW_MAX = 1 << 30,
    BYTE_TABLE_RAW_MAX = 4 + 2 * 65536,
    RECIPE_RAW_MAX = 1 << 20,
    SOURCE_RAW_MAX = 64 << 20,
    CUDA_RAW_MAX = 4 << 20,
};

/* Parameters of CODEC_LZMA. Offsets inside SEC_PARAMS: */
enum {
    PARAM_LC = 0,     /* u8: literal context bits */
    PARAM_LP = 1,     /* u8: literal position bits, lc + lp <= LCLP_MAX */
    PARAM_PB = 2,     /* u8: position bits, <= PB_MAX */
    PARAM_FILTER = 3, /* u8: enum filter */
    PARAM_DICT = 4, /* u32: dictionary the encoder used; for people, the decoder's is the output */
    LCLP_MAX = 4,
    PB_MAX = 4,
};

enum filter {
    FILTER_NONE = 0,
    FILTER_X86 = 1, /* targets of calls made absolute before compression: stub/lzma_dec.h */
};

/*
 * The loader hands the number of the open descriptor of the submission file, never 0, to the runner
 * in the padding of the runner's ELF header, 4 bytes, little-endian.
 */
enum { RUNNER_FD_AT = 12 };

/*
 * The loader's decoder (code_dec_small of stub/code_dec.h) is its first code, right behind the two
 * ELF headers. A runner has none of its own: it maps the file with the right to execute and calls
 * this one for the sections behind it.
 */
enum { LOADER_DECODER_AT = 64 + 56 };

/*
 * The decoded weight section: u32 count of tensors, u32 size of the table, the table, then the data
 * of the tensors in the order of the table, each preceded by zero bytes up to a multiple of its
 * element size (counted from the start of the payload). One table entry is: u8 dtype (enum
 * st_dtype, model/tensor.h), u8 ndim, ndim times u32 dimension (outermost first), the name, one
 * zero byte.
 */
enum {
    WT_COUNT = 0,
    WT_TABLE_SIZE = 4,
    WT_TABLE = 8,      /* the table begins here */
    WT_NAME_MAX = 127, /* bytes, without the zero */
};

#endif
