/*
 * corpus.c - makes the first inputs for the fuzz targets of readers: `corpus DIR` fills
 * DIR/safetensors, DIR/shard, DIR/tokenizer, DIR/bytes, DIR/recipe, DIR/pickle, DIR/ptz, DIR/npy,
 * DIR/layers, DIR/unpack, DIR/unwrap, DIR/marshal and DIR/script_facts with small valid files and
 * with the shapes of damage that once mattered. Everything is made here; nothing is copied.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "model/bytes.h"
#include "model/file.h"
#include "model/reader.h"
#include "model/recipe.h"
#include "model/safetensors.h"
#include "model/shard.h"
#include "packer/pickle_write.h"
#include "packer/ptz_write.h"
#include "tests/unit/tiny_zip.h"

static const char *root;

/* DIR/kind/name; the folder is made when it is not there. */
static const char *path_of(const char *kind, const char *name)
{
    static char path[4096];
    struct err e = {0};
    snprintf(path, sizeof path, "%s/%s", root, kind);
    if (dir_make(path, &e)) {
        fprintf(stderr, "corpus: %s\n", e.msg);
        exit((int)e.code);
    }
    snprintf(path, sizeof path, "%s/%s/%s", root, kind, name);
    return path;
}

static void put(const char *kind, const char *name, const void *data, size_t n)
{
    struct err e = {0};
    if (file_write(path_of(kind, name), data, n, &e)) {
        fprintf(stderr, "corpus: %s\n", e.msg);
        exit((int)e.code);
    }
}

static void safetensors(void)
{
    static const uint8_t data[64] = {0, 0x3c, 1, 2, 3};
    static const struct tensor_view t[] = {
        {.name = "blocks.0.attn.c_q.weight.q",
         .dtype = ST_I8,
         .ndim = 2,
         .shape = {3, 4},
         .data = data,
         .nbytes = 12},
        {.name = "blocks.0.attn.c_q.weight.scale",
         .dtype = ST_F16,
         .ndim = 1,
         .shape = {3},
         .data = data,
         .nbytes = 6},
        {.name = "scalar", .dtype = ST_F32, .data = data, .nbytes = 4},
        {.name = "empty", .dtype = ST_BF16, .ndim = 3, .shape = {2, 0, 5}, .data = data},
    };
    static const char *const meta[] = {"RECIPE", "NUM_LAYERS=1\n", "k", ""};
    static const struct {
        const char *name, *json;
        size_t data;
    } odd[] = {
        {"blanks",
         "{ \"a\" : { \"dtype\" : \"U8\", \"shape\" : [ ], \"data_offsets\" : [0 , 1] } }  ", 1},
        {"gap", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2},
        {"huge",
         "{\"a\":{\"dtype\":\"I64\",\"shape\":[9007199254740992,4096],\"data_offsets\":[0,0]}}", 0},
        {"escape",
         "{\"\\u00e9\\ud834\\udd1e\\n\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
         0},
        {"numbers", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1e0,10E-1],\"data_offsets\":[0.0,1]}}", 1},
    };
    struct err e = {0};
    if (st_write(path_of("safetensors", "small"), t, 4, meta, 2, &e) ||
        st_write(path_of("safetensors", "nothing"), t, 0, NULL, 0, &e))
        exit((int)e.code);
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        uint8_t buf[512] = {0};
        size_t n = strlen(odd[i].json);
        put_le64(buf, n);
        memcpy(buf + 8, odd[i].json, n);
        put("safetensors", odd[i].name, buf, 8 + n + odd[i].data);
    }
}

static void shards(void)
{
    uint8_t buf[SHARD_HEADER + 8] = {0};
    put_le32(buf, SHARD_MAGIC);
    put_le32(buf + 4, SHARD_VERSION);
    put_le32(buf + 8, 4);
    memcpy(buf + SHARD_HEADER, "\1\0\377\3\0\0\5\0", 8);
    put("shard", "four", buf, sizeof buf);
    put("shard", "cut", buf, sizeof buf - 1);
    buf[SHARD_HEADER + 1] = 4;
    put("shard", "token_1025", buf, sizeof buf);
    put_le32(buf + 8, 0);
    put("shard", "zero", buf, SHARD_HEADER);
}

/* Pieces of every type as SentencePiece writes them: text, score, type. */
static void tokenizers(void)
{
    static const struct {
        const char *text;
        uint8_t type;
    } piece[] = {{"<unk>", 2}, {"<s>", 3},    {"</s>", 3},         {"<0x00>", 6},         {"a", 1},
                 {"b", 4},     {"unused", 5}, {"\xe2\x96\x81", 1}, {"\xe2\x96\x81the", 1}};
    uint8_t buf[512];
    size_t n = 0;
    for (size_t i = 0; i < sizeof piece / sizeof *piece; i++) {
        size_t len = strlen(piece[i].text);
        buf[n++] = 0x0a;
        buf[n++] = (uint8_t)(len + 9);
        buf[n++] = 0x0a;
        buf[n++] = (uint8_t)len;
        memcpy(buf + n, piece[i].text, len);
        n += len;
        memcpy(buf + n, "\x15\0\0\x80\xbf\x18", 6); /* score -1, then the type's key */
        n += 6;
        buf[n++] = piece[i].type;
    }
    put("tokenizer", "pieces", buf, n);
    memcpy(buf + n,
           "\x12\x03spm\x1a\x02nf\x28\x96\x01\x31"
           "12345678",
           20);
    put("tokenizer", "specs", buf, n + 20);
    put("tokenizer", "long_length", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11);
    put("tokenizer", "group", "\x0a\x00\x0b\x0c", 4);
}

static void tables(void)
{
    uint8_t base[5] = {1, 0, 3, 255, 0}, flags[5] = {0, 1, 2, 3, 0}, out[14];
    bytes_serialise(&(struct byte_table){5, base, flags}, out);
    put("bytes", "five", out, sizeof out);
    put("bytes", "cut", out, 9);
    out[5] = 4;
    put("bytes", "flags", out, sizeof out);
}

static void recipes(void)
{
    static char text[65536];
    struct recipe r;
    recipe_init(&r);
    size_t n = recipe_print(&r, 15, false, text, sizeof text);
    put("recipe", "defaults", text, n);
    static const struct {
        const char *name, *text;
    } odd[] = {
        {"comments", "# c\n NUM_LAYERS = 3 # d\n\nRUN_ID='a # b' # e\r\nDATA_PATH=\"x y\"\n"},
        {"numbers", "MLP_SLOPE=.5\nROPE_BASE=1e4\nADAM_EPS=1.0e-8\nSEED=-1\nMLP_MULT=3.\n"},
        {"unknown", "NUM_LAYER=3\n"},
        {"impossible", "MODEL_DIM=7\nNUM_HEADS=3\n"},
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        put("recipe", odd[i].name, odd[i].text, strlen(odd[i].text));
}

/* A dictionary with one tensor, whose storage ptz_fuzz puts beside it: the start for changes that
 * get past the archive. */
static void one_tensor(const char *name, const char *type, size_t elems, const size_t *size,
                       const size_t *stride, size_t ndim)
{
    struct pickle_out p;
    pickle_out_begin(&p);
    pickle_out_dict(&p, 1);
    pickle_out_shared(&p, "tok_emb.weight");
    pickle_out_global(&p, "torch._utils\n_rebuild_tensor_v2\n");
    pickle_out_op(&p, '(');
    pickle_out_op(&p, '(');
    pickle_out_shared(&p, "storage");
    pickle_out_global(&p, type);
    pickle_out_str(&p, "0");
    pickle_out_shared(&p, "cpu");
    pickle_out_int(&p, elems);
    pickle_out_op(&p, 't');
    pickle_out_op(&p, 'Q');
    pickle_out_int(&p, 0);
    pickle_out_counts(&p, size, ndim);
    pickle_out_counts(&p, stride, ndim);
    pickle_out_op(&p, 't');
    pickle_out_op(&p, 'R');
    pickle_out_dict_end(&p, 1);
    pickle_out_end(&p);
    put("pickle", name, p.out.data, p.out.n);
    put("ptz", name, p.out.data, p.out.n);
    free(p.out.data);
}

static void pickles(void)
{
    static const struct {
        const char *name, *text;
        size_t n;
    } odd[] = {
        {"protocol_0", "(lp0\nI1\naI01\naL-5L\naF1.5\naS'a'\naVb\na(I1\ntad.", 42},
        {"protocol_4",
         "\x80\x04\x95\x06\0\0\0\0\0\0\0]\x94\x8c\1a\x94"
         "a.",
         18},
        {"system", "cos\nsystem\n(S'id'\ntR.", 22},
        {"itself", "\x80\2]q\0h\0a.", 9},
        {"ordered", "\x80\2ccollections\nOrderedDict\n)RK\1K\2s}b.", 38},
        {"encoded", "\x80\2c_codecs\nencode\nX\3\0\0\0a\xc3\xbfX\6\0\0\0latin1\x86R.", 40},
        {"size", "\x80\2ctorch\nSize\nK\2K\3\x86\x85R.", 22},
    };
    static const size_t rows[] = {8, 8}, steps[] = {8, 1}, zero[] = {0, 0};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        put("pickle", odd[i].name, odd[i].text, odd[i].n);
    one_tensor("bytes", "torch\nCharStorage\n", 64, rows, steps, 2);
    one_tensor("floats", "torch\nFloatStorage\n", 16, rows, zero, 2);
    one_tensor("scalar", "torch\nDoubleStorage\n", 8, NULL, NULL, 0);
}

/* An array as protocol 5 has it, as the one tensor of a dictionary and packed. */
static void arrays(void)
{
    static const char array[] =
        "\x80\5}X\x0e\0\0\0tok_emb.weightcnumpy.core.numeric\n_frombuffer\n(C\6\0\1\2\3\4\5cnumpy\n"
        "dtype\n(X\2\0\0\0i1tRK\2K\3\x86X\1\0\0\0CtRs.";
    static const char entry[] =
        "\x80\5}X\1\0\0\0a}(X\4\0\0\0typeX\6\0\0\0binaryX\6\0\0\0packedC\1\5X\5\0\0\0scalecnumpy"
        ".core.numeric\n_frombuffer\n(C\4\0\x3c\0\x3c"
        "cnumpy\ndtype\n(X\2\0\0\0f2tRK\2\x85X\1\0\0\0CtR"
        "X\5\0\0\0shape]K\2aK\4aX\x0a\0\0\0group_sizeK\4us.";
    static const char header[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }   \n";
    char npy[10 + sizeof header - 1 + 8] = "\x93NUMPY\1";
    put("ptz", "array", array, sizeof array - 1);
    put("ptz", "entry", entry, sizeof entry - 1);
    put("pickle", "array", array, sizeof array - 1);
    npy[8] = sizeof header - 1;
    memcpy(npy + 10, header, sizeof header - 1);
    put("npy", "matrix", npy, sizeof npy);
    put("npy", "header", header, sizeof header - 1);
    put("ptz", "npy", npy, sizeof npy);
}

static void packings(void)
{
    static const size_t bytes[] = {8, 6, 8, 10, 16}; /* that each of them needs */
    for (uint8_t how = 0; how < 5; how++) {
        const uint8_t data[] = {16, 0, how, 6, 0x55, 0x66, 0x77, 1, 2, 3, 4, 5, 6, 7, 8, 9};
        char name[2] = {(char)('0' + how), 0};
        put("unpack", name, data, bytes[how]);
    }
}

static void packed(void)
{
    static const uint8_t data[64] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const struct tensor_view t[] = {
        {.name = "tok_emb.weight.q",
         .dtype = ST_I8,
         .ndim = 2,
         .shape = {8, 8},
         .data = data,
         .nbytes = 64},
        {.name = "tok_emb.weight.scale",
         .dtype = ST_F16,
         .ndim = 1,
         .shape = {8},
         .data = data,
         .nbytes = 16},
        {.name = "blocks.0.attn_scale",
         .dtype = ST_F16,
         .ndim = 1,
         .shape = {8},
         .data = data,
         .nbytes = 16},
    };
    for (enum ptz_codec c = PTZ_ZLIB; c < PTZ_CODECS; c++) {
        const struct ptz_how how = {.codec = c,
                                    .shuffle = c == PTZ_BROTLI ? 2 : 0,
                                    .bits = 6,
                                    .embed_bits = 8,
                                    .int8_layout = c == PTZ_ZLIB};
        uint8_t *file;
        size_t n;
        struct err e = {0};
        if (ptz_pack(&file, &n, &how, t, 3, &e)) {
            fprintf(stderr, "corpus: %s\n", e.msg);
            exit((int)e.code);
        }
        put("ptz", ptz_codec_name(c), file, n);
        put("layers", ptz_codec_name(c), file, n);
        free(file);
    }
}

/* Scripts for the readers of other people's: forms of wrappers, and what facts are read from. */
static void scripts(void)
{
    static const char *const text[] = {
        "import zlib as Z,base64 as B\nexec(Z.decompress(B.b85decode('%s')))\n",
        "from zlib import*\nd=lambda s:decompress(bytes.fromhex(s))\nexec(d('%s'))\n",
        "import lzma as "
        "L\nexec(L.decompress(b'\\x01\\0',format=3,filters=[{'id':L.FILTER_LZMA2,'lc':3}]))",
        "exec(open(__file__,'rb').read().split(b'#'+b'#',1)[-1][::-1])\n##)1(tnirp",
        "def f(a,b=2,*c):\n    for i in a:\n        with open(i) as g: return g.read()\n"
        "exec(compile(f'{f([1])!r:>{9}}'.encode('l1').decode(),'x','exec'))\n",
        "import os\nclass H:\n  eval_stride=int(os.environ.get('EVAL_STRIDE',64))\n"
        "def eval_val_ttt(h,val_tokens,stride):\n  if h.ttt_enabled:\n    "
        "loss_sum+=F.cross_entropy(x,y)\n"
        "    loss.backward();opt.step()\n  elif a: "
        "s=max(n-stride,0)\ncode_bytes=len(code.encode())\n"
        "eval_val_ttt(H(),t,64)\n",
        "import subprocess,lzma\ndef quantize_int6(t):\n  return lzma.compress(t)\n"
        "subprocess.run(['curl','http://x'])\nfrom .a import (b as c,\n d)\nopen('a.bin')\n",
    };
    static const uint8_t bz2[] = {1, 'B', 'Z', 'h', '1', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59};
    char name[32], hex[512], line[1024];
    uint8_t packed_text[128];
    uLongf n = sizeof packed_text;
    if (compress2(packed_text, &n, (const Bytef *)"import os\nprint(os.name)\n", 25, 9) != Z_OK)
        exit(ERR_RESOURCE);
    for (size_t i = 0; i < n; i++)
        sprintf(hex + 2 * i, "%02x", packed_text[i]);
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        const char *at = strstr(text[i], "%s");
        snprintf(name, sizeof name, "%zu.py", i);
        snprintf(line, sizeof line, "%.*s%s%s", at ? (int)(at - text[i]) : 1000, text[i],
                 at ? hex : "", at ? at + 2 : "");
        put("unwrap", name, line, strlen(line));
        put("script_facts", name, line, strlen(line));
    }
    put("unwrap", "bz2", bz2, sizeof bz2);
}

/* Scripts that are no text: compiled code, alone, in a .pyc file and in an archive that Python
 * runs.
 */
static void compiled(void)
{
    static const uint8_t value[] =
        ")\7N\xe9\1\0\0\0l\2\0\0\0\1\0\1\0g\0\0\0\0\0\0\xf8?\xda\1xr\1\0\0\0>"
        "\1\0\0\0T";
    static const char main_py[] = "import os\nprint(os.name)\n", name[] = "__main__.py";
    uint8_t pyc[TINY_PYC], zip[256];
    tiny_pyc(pyc);
    tiny_zip(zip, name, main_py, sizeof main_py - 1);
    put("marshal", "value", value, sizeof value - 1);
    put("marshal", "code", tiny_code, sizeof tiny_code - 1);
    put("unwrap", "x.pyc", pyc, sizeof pyc);
    put("unwrap", "x.pyz", zip, tiny_zip_size(name, sizeof main_py - 1));
}

/* Leaderboard folders: logs of several families, metadata in its spellings, and all in one. */
static void records(void)
{
    static const char *const log[] = {
        "seed:1337\nstep:1/2 val_loss:1.9 val_bpb:1.1 train_time:600036ms step_avg:1ms\n"
        "stopping_early: wallclock_cap train_time:600036ms step:2/2\nCode size: 20 bytes\n"
        "Serialized model int6+zstd: 100 bytes\nTotal submission size int6+zstd: 120 bytes\n"
        "val_loader:shards tokens:62021632\n"
        "final_int6_sliding_window_exact val_loss:1.89105891 val_bpb:1.12000000\n",
        "1776142360.710   seed: 2\n1776142361.633 val_tokens: 40540160\n"
        "Code size (uncompressed): 139831 bytes\nCode size (compressed): 28599 bytes\n"
        "GPTQ:collected 67 Hessians in 12.6s\nttt_lora:compile warmup done (148.4s)\n"
        "quantized_ttt_phased val_loss:2.77 val_bpb:1.07 eval_time:504949ms\n"
        "total_eval_time:504.9s\n",
        "import os\n\ndef f():\n    pass\n==================================================\n"
        "artifact:15.60MB binary:9(1B) fp:2(2B) code:20\nbudget:15670651/16000000\n"
        "[19:23:20] final_sliding val_loss:2.9 val_bpb:1.12 (stride=16, T=0.90) time:1ms\n",
    };
    static const char *const meta[] = {
        "{\"author\":\"a\",\"val_bpb\":1.12,\"val_loss\":1.891,\"bytes_total\":120,"
        "\"bytes_code\":20,\n\"seeds\":[1,2],\"seed_results\":{\"1\":{\"val_bpb\":1.12,"
        "\"artifact_bytes\":120,\"steps\":2}},\"val_bpb_std\":0.001}",
        "{\"mean_val_bpb\":1e0,\"seeds\":{\"seed_1\":{\"val_bpb\":1}},\"a\":1,\"a\":2}",
        "{\"seeds\":[4],\"seed_scores\":[1.5],\"name\":\"\\u202e\\n\"}",
    };
    char name[32], all[4096];
    for (size_t i = 0; i < sizeof log / sizeof *log; i++) {
        snprintf(name, sizeof name, "%zu", i);
        put("record_log", name, log[i], strlen(log[i]));
        put("record_meta", name, meta[i], strlen(meta[i]));
        int n = snprintf(all, sizeof all,
                         "%s\xFF%s\xFFimport helper\nprint('x')\n\xFF# n (val_bpb 1.12)\n\xFF%s",
                         meta[i], log[i], log[(i + 1) % 3]);
        put("record", name, all, (size_t)n);
    }
}

/* A claim, a run's log and its audit (an odd number of bytes), a program with a dynamic section. */
static void claims(void)
{
    static const char claim[] = "{\"val_bpb\":1.0898,\"val_loss\":2.5,\"bytes_total\":15999533,"
                                "\"tokens\":1000,\"bytes\":3000,\"mode\":\"sliding\","
                                "\"nll_xxh64\":\"00c0ffee12345678\"}";
    static const char log[] = "run:x-1\nHyperparameters:\n  NUM_LAYERS=2\n  SEED=1\nseed:1\n"
                              "step:1/2 val_loss:2.0 val_bpb:1.5 train_time:200ms\n"
                              "stopping_early: wallclock_cap train_time:200ms step:1/2\n"
                              "final_int6_roundtrip_exact val_loss:2.2 val_bpb:1.52\n";
    static const char audit[] =
        "{\"sections\":[{\"kind\":\"loader\",\"offset\":0,\"size\":1,\"xxh64\":"
        "\"0000000000000000\"},{\"kind\":\"header\",\"offset\":1,\"size\":1,\"xxh64\":\"-\"},"
        "{\"kind\":\"runner\",\"offset\":2,\"size\":1,\"xxh64\":\"0000000000000000\"},"
        "{\"kind\":\"weights\",\"offset\":3,\"size\":1,\"xxh64\":\"0000000000000000\"},"
        "{\"kind\":\"byte_table\",\"offset\":4,\"size\":1,\"xxh64\":\"0000000000000000\"},"
        "{\"kind\":\"recipe\",\"offset\":5,\"size\":1,\"xxh64\":\"0000000000000000\"}],"
        "\"bytes_total\":64,\"mode\":\"sliding\",\"val_loss\":2,\"val_bpb\":1,\"tokens\":10,"
        "\"bytes\":30,\"time_ms\":1,\"verdict\":\"verified\",\"reasons\":[]}";
    uint8_t elf[64 + 56 + 32 + 8] = "\x7f"
                                    "ELF\2\1\1";
    put("claim", "all", claim, strlen(claim));
    put("submit", "log", log, strlen(log) & ~(size_t)1);
    put("submit", "audit", audit, strlen(audit) | 1);
    put_le64(elf + 32, 64);
    elf[54] = 56;
    elf[56] = 1;
    elf[64] = 2; /* PT_DYNAMIC: DT_STRTAB is in no segment, DT_NEEDED 1 */
    put_le64(elf + 72, 120);
    put_le64(elf + 96, 32);
    elf[120] = 5;
    elf[136] = elf[144] = 1;
    put("needs", "dynamic", elf, sizeof elf);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: corpus DIR\n");
        return ERR_USAGE;
    }
    root = argv[1];
    safetensors();
    shards();
    tokenizers();
    tables();
    recipes();
    pickles();
    arrays();
    packings();
    packed();
    scripts();
    compiled();
    records();
    claims();
    return 0;
}
