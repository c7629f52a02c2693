/*
 * corpus.c - makes the first inputs for the fuzz targets of readers: `corpus DIR` fills
 * DIR/safetensors, DIR/shard, DIR/tokenizer, DIR/bytes, DIR/recipe, DIR/pickle and DIR/ptz with
 * small valid files and with the shapes of damage that once mattered. Everything is made here;
 * nothing is copied.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/bytes.h"
#include "model/file.h"
#include "model/reader.h"
#include "model/recipe.h"
#include "model/safetensors.h"
#include "model/shard.h"
#include "packer/pickle_write.h"
#include "packer/ptz_write.h"

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
    };
    static const size_t rows[] = {8, 8}, steps[] = {8, 1}, zero[] = {0, 0};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        put("pickle", odd[i].name, odd[i].text, odd[i].n);
    one_tensor("bytes", "torch\nCharStorage\n", 64, rows, steps, 2);
    one_tensor("floats", "torch\nFloatStorage\n", 16, rows, zero, 2);
    one_tensor("scalar", "torch\nDoubleStorage\n", 8, NULL, NULL, 0);
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
        free(file);
    }
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
    packed();
    return 0;
}
