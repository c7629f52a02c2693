/*
 * nomem_read_test - guards against the crash and the leak that only a full memory shows, in the
 * readers of other people's files: pickles, scripts, archives, submissions, records. An allocation
 * that fails is ERR_RESOURCE there, and never "damaged".
 */
#include "packer/pickle.h"
#include "packer/ptz_read.h"
#include "tests/unit/blob_small.h"
#include "tests/unit/nomem.h"
#include "tests/unit/ptz_dumped.h"
#include "tests/unit/tiny_zip.h"
#include "verify/record.h"
#include "verify/script_facts.h"
#include "verify/unwrap.h"

static enum err_code parse_pickle(struct err *e)
{
    static const char text[] = "\x80\2}q\0(X\1\0\0\0a]q\1(K\1K\2K\3eX\1\0\0\0bK\1\x85u.";
    static const struct pickle_global none = {NULL, false};
    struct pickle p;
    enum err_code rc = pickle_parse(&p, text, sizeof text - 1, &none, "pickle", e);
    pickle_free(&p);
    return rc;
}

/* A tensor whose storage is a torch file inside the pickle, and a NumPy array whose axes are
 * exchanged. */
static enum err_code read_tensors(struct err *e)
{
    static const char array[] = "\x93NUMPY\x01\x00\x3e\x00{'descr': '|i1', 'fortran_order': True, "
                                "'shape': (2, 2), }   \nabcd";
    const struct {
        const char *data, *key;
        size_t n;
    } files[] = {{ptz_dumped, "x", sizeof ptz_dumped - 1}, {array, "array", sizeof array - 1}};
    enum err_code rc = ERR_OK;
    for (size_t i = 0; !rc && i < COUNT(files); i++) {
        struct ptz p;
        struct tensor_view t;
        rc = ptz_parse(&p, files[i].data, files[i].n, 1 << 16, "file", e);
        if (!rc)
            rc = ptz_tensor(&p, pickle_get(p.root, files[i].key), "x", &t, e);
        ptz_close(&p);
    }
    return rc;
}

/* A wrapped script, and the facts in it. */
static enum err_code read_script(struct err *e)
{
    static const char text[] =
        "import zlib\ndef f(s, n=[1, 2]): return zlib.decompress(bytes.fromhex(s))\nexec(f('"
        "78da3d8b310a02311000fbbc62bb4bf0482516c21582070aa9546c433857096cb24736a6f0f50604"
        "07a69b8969e552816504faa40041c0a98582089cf60a3a0213c45c358bc5dc62e16c5f58f530df0f"
        "ce5f6f97f3711e46d86d8d510f7c02b640beab9bf9fdc4225ede09361364221b2b266dd4bf7376e1"
        "b41614e98b515fd73a2d17"
        "'))\n";
    static struct unwrap u;
    struct script_facts f = {0};
    enum err_code rc = unwrap(&u, text, sizeof text - 1, "script", e);
    if (!rc)
        rc = script_facts(&f, u.part[u.main].text, u.part[u.main].size, NULL, 0, e);
    script_facts_free(&f);
    unwrap_free(&u);
    return rc;
}

/* A submission with its weights in each codec; made once, in prepare(). */
static struct small small[4];

static const struct {
    const char *path, *text;
} folder[] = {
    {"README.md", "# A run (val_bpb 1.1200)\n"},
    {"submission.json", "{\"author\": \"a\", \"val_bpb\": 1.12, \"seeds\": [1, 2],\n"
                        "\"val_b\xD1\x80"
                        "b\": 1, \"bytes_total\": 15000021}\n"},
    {"train_gpt.py", "import os\ndef eval_val(m):\n    loss_sum += m\n"},
    {"train_seed1.log", "seed:1\nCode size: 20 bytes\nSerialized model int6+zstd: 15000001 bytes\n"
                        "Total submission size int6+zstd: 15000021 bytes\n"
                        "final_int6_sliding_window_exact val_loss:1.89105891 val_bpb:1.12000000\n"},
    {"train_seed2.log", "import os\n\ndef f():\n    pass\n"
                        "==================================================\nseed:3\n"
                        "final_int6_sliding_window_exact val_loss:1.89105891 val_bpb:1.13\n"},
};

/* Compiled code in an archive that Python runs. */
static enum err_code read_archive(struct err *e)
{
    static struct unwrap u;
    uint8_t pyc[TINY_PYC], archive[256];
    size_t n = tiny_zip_size("__main__.pyc", sizeof pyc);
    assert_true(n <= sizeof archive);
    tiny_pyc(pyc);
    tiny_zip(archive, "__main__.pyc", pyc, sizeof pyc);
    enum err_code rc = unwrap(&u, archive, n, "archive", e);
    if (!rc && u.parts == 3)
        assert_true(u.part[2].listing);
    unwrap_free(&u);
    return rc;
}

/* Every section of a submission, with the weights in each codec. */
static enum err_code decode_blob(struct err *e)
{
    enum err_code rc = ERR_OK;
    for (size_t i = 0; i < COUNT(small) && !rc; i++) {
        struct blob b;
        rc = blob_parse(&b, small[i].file, small[i].size, "small", NULL, 0, e);
        for (size_t k = 2; k < b.count && !rc; k++) {
            uint8_t *data;
            rc = blob_decode(&data, &b.section[k], "small", e);
            if (rc) /* nothing is handed out then */
                assert_null(data);
            free(data);
        }
        blob_close(&b);
    }
    return rc;
}

static enum err_code audit_record(struct err *e)
{
    static struct record r;
    enum err_code rc = ERR_OK;
    memset(&r, 0, sizeof r);
    for (size_t i = 0; i < COUNT(folder) && !rc; i++)
        rc =
            record_folder_add(&r.folder, folder[i].path, folder[i].text, strlen(folder[i].text), e);
    if (!rc)
        rc = record_audit_files(&r, NULL, RECORD_TRACK_RECORD, e);
    record_free(&r);
    return rc;
}

static const struct job jobs[] = {
    {"parse a pickle", parse_pickle, false},     {"read tensors of others", read_tensors, false},
    {"take a script apart", read_script, false}, {"take an archive apart", read_archive, true},
    {"decode a submission", decode_blob, true},  {"audit a record", audit_record, false},
};

static void every_allocation_fails_once(void **state)
{
    static const int codecs[COUNT(small)] = {CODEC_CM, CODEC_RANGE, CODEC_LZMA, CODEC_ZSTD};
    (void)state;
    for (size_t i = 0; i < COUNT(small); i++)
        small[i] = small_new(NULL, 0, codecs[i]);
    every_allocation_fails(jobs, COUNT(jobs));
    for (size_t i = 0; i < COUNT(small); i++)
        free(small[i].file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
