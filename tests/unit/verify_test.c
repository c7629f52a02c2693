/*
 * verify_test - guards against an audit that calls a bad file verified: a flipped bit, a missing or
 * an extra byte, a section that was exchanged under a fresh hash, a byte table that counts too
 * much, an engine that does not score or does more than that.
 */
#include "tests/unit/toy_run.h"

#include "model/gpt.h"
#include "model/safetensors.h"
#include "packer/code.h"
#include "packer/pack.h"
#include "stub/embed.h"
#include "tests/unit/tiny_elf.h"
#include "verify/commands.h"

static char dir[TOY_PATH], weights[TOY_PATH], sound[TOY_PATH], made[TOY_PATH];
static uint8_t *file; /* the sound submission */
static size_t file_n;
static struct blob parts; /* of it */

/* Status of an audit; the reasons that it gives go to `why`. */
static enum err_code audit(const char *path, bool execute, const char *eval, char *why, size_t cap)
{
    const struct options o = {.command = COMMAND_BLOB,
                              .file = path,
                              .data = dir,
                              .eval = eval,
                              .threads = 1,
                              .timeout = 20,
                              .memory = 2048,
                              .json = true,
                              .quiet = true,
                              .execute = execute};
    struct report r;
    struct err e = {0};
    assert_int_equal(report_init(&r, true, true, &e), ERR_OK);
    enum err_code rc = verify_blob(&o, &r, &e);
    snprintf(why, cap, "%s", e.msg);
    if (!rc && cJSON_GetArraySize(r.reasons)) {
        rc = ERR_CLAIM;
        snprintf(why, cap, "%s", cJSON_GetArrayItem(r.reasons, 0)->valuestring);
    }
    report_free(&r);
    return rc;
}

static void expect(const char *name, const char *path, bool execute, enum err_code want,
                   const char *says)
{
    char why[600];
    enum err_code rc = audit(path, execute, NULL, why, sizeof why);
    if (rc != want || !strstr(why, says))
        fail_msg("%s: status %d \"%s\", expected %d with \"%s\"", name, rc, why, want, says);
}

/* The sound submission with one section exchanged, hashes made right. */
static void remake(const char *path, enum kind kind, const struct coded *with)
{
    struct coded part[SECTIONS_MAX];
    const struct coded *list[SECTIONS_MAX];
    size_t n = 0;
    struct blob b;
    struct err e = {0};
    for (size_t i = KIND_RUNNER - 1; i < SECTIONS_MAX; i++) {
        const struct blob_section *s = &parts.section[i];
        if (i + 1 == kind)
            part[n] = *with;
        else if (i < parts.count)
            part[n] = (struct coded){.codec = s->codec,
                                     .data = (uint8_t *)(uintptr_t)s->data,
                                     .size = s->size,
                                     .raw_size = s->raw_size};
        else
            break;
        if (i + 1 != kind)
            memcpy(part[n].params, s->params, sizeof s->params);
        list[n] = &part[n];
        n++;
    }
    blob_layout(&b, stub_loader, (size_t)(stub_loader_end - stub_loader), list, n);
    if (blob_write(path, &b, &e))
        fail_msg("%s", e.msg);
}

static void remake_stored(const char *path, enum kind kind, const void *raw, size_t n)
{
    struct coded c = {.codec = CODEC_NONE, .size = n, .raw_size = n};
    c.data = (uint8_t *)(uintptr_t)raw;
    remake(path, kind, &c);
}

static void sound_file(void **state)
{
    char why[600];
    (void)state;
    expect("sound", sound, false, ERR_OK, "");
    if (audit(sound, true, "plain", why, sizeof why))
        fail_msg("plain: %s", why);
    expect("sound, executed", sound, true, ERR_OK, "");
}

/* Every byte of the header, some of everything else; packer's tests try every byte of a smaller
 * file. */
static size_t step(size_t at)
{
    const struct blob_section *h = blob_find(&parts, KIND_HEADER);
    return at + 1 >= h->offset && at < h->offset + h->size ? 1
           : at + 19 < h->offset                           ? 19
           : at < h->offset                                ? 1
                                                           : 499;
}

static void flipped_bits(void **state)
{
    (void)state;
    for (size_t at = 0; at < file_n; at += step(at)) {
        char name[64], why[600];
        uint8_t bit = (uint8_t)(1u << at % 8);
        file[at] ^= bit;
        toy_write(made, file, file_n);
        file[at] ^= bit;
        snprintf(name, sizeof name, "bit %zu of byte %zu", at % 8, at);
        if (audit(made, false, NULL, why, sizeof why) != ERR_INPUT ||
            strncmp(why, made, strlen(made)))
            fail_msg("%s: \"%s\"", name, why);
    }
    /* In the middle of a section, that section is named. */
    for (size_t i = 0; i < parts.count; i++) {
        const struct blob_section *s = &parts.section[i];
        size_t at = s->offset + s->size / 2;
        file[at] ^= 4;
        toy_write(made, file, file_n);
        file[at] ^= 4;
        expect(blob_kind_name(s->kind), made, false, ERR_INPUT, blob_kind_name(s->kind));
    }
}

static void wrong_length(void **state)
{
    (void)state;
    for (size_t n = 0; n < file_n; n += step(n)) {
        toy_write(made, file, n);
        expect("truncated", made, false, ERR_INPUT, made);
    }
    uint8_t *longer = malloc(file_n + 1);
    memcpy(longer, file, file_n);
    longer[file_n] = 0;
    toy_write(made, longer, file_n + 1);
    free(longer);
    expect("one byte more", made, false, ERR_INPUT, "its header says");
    expect("no file", "/nonexistent/file", false, ERR_INPUT, "/nonexistent/file");
    expect("a directory", dir, false, ERR_INPUT, dir);
}

static void exchanged_sections(void **state)
{
    struct err e = {0};
    uint8_t *raw;
    (void)state;

    const struct blob_section *s = blob_find(&parts, KIND_BYTE_TABLE);
    assert_int_equal(blob_decode(&raw, s, sound, &e), ERR_OK);
    raw[4 + 2 * 10]++; /* piece 10 has one byte more */
    remake_stored(made, KIND_BYTE_TABLE, raw, s->raw_size);
    expect("byte table that counts more", made, false, ERR_CLAIM, "byte table is not that of");
    raw[0]--;
    remake_stored(made, KIND_BYTE_TABLE, raw, s->raw_size - 2);
    expect("byte table of a smaller vocabulary", made, false, ERR_INPUT, "byte table");
    free(raw);

    s = blob_find(&parts, KIND_WEIGHTS);
    assert_int_equal(blob_decode(&raw, s, sound, &e), ERR_OK);
    memset(raw + s->raw_size - 4, 255, 4);
    remake_stored(made, KIND_WEIGHTS, raw, s->raw_size);
    expect("a weight that is no number", made, false, ERR_INPUT, "weights");
    memset(raw + s->raw_size - 4, 0, 4);
    raw[0]--;
    remake_stored(made, KIND_WEIGHTS, raw, s->raw_size);
    expect("a tensor less than there are", made, false, ERR_INPUT, "weights");
    free(raw);

    static const struct {
        const char *name, *text, *says;
    } recipes[] = {
        {"recipe of another model", "VOCAB_SIZE=32\n", "weights"},
        {"impossible recipe", "VOCAB_SIZE=32\nMODEL_DIM=16\nNUM_HEADS=3\n", "NUM_HEADS"},
        {"recipe that is none", "\1\2\3\n", "recipe"},
    };
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        remake_stored(made, KIND_RECIPE, recipes[i].text, strlen(recipes[i].text));
        expect(recipes[i].name, made, false, ERR_INPUT, recipes[i].says);
    }

    const size_t large = 16000000;
    raw = calloc(1, large);
    remake_stored(made, KIND_SOURCE, raw, large);
    free(raw);
    expect("over the limit", made, false, ERR_CLAIM, "the limit is 16000000");
}

/* Machine code of engines that are none; the loader in front of them is the real one. */
static const uint8_t calls_socket[] = {
    0xB8, 0x29, 0x00, 0x00, 0x00, /* mov eax, 41: socket */
    0xBF, 0x02, 0x00, 0x00, 0x00, /* mov edi, 2: AF_INET */
    0xBE, 0x01, 0x00, 0x00, 0x00, /* mov esi, 1: SOCK_STREAM */
    0x31, 0xD2,                   /* xor edx, edx */
    0x0F, 0x05,                   /* syscall */
    0xB8, 0xE7, 0x00, 0x00, 0x00, /* mov eax, 231: exit_group */
    0x31, 0xFF,                   /* xor edi, edi */
    0x0F, 0x05,                   /* syscall */
};
static const uint8_t does_nothing[] = {
    0xB8, 0xE7, 0x00, 0x00, 0x00, /* mov eax, 231: exit_group */
    0x31, 0xFF,                   /* xor edi, edi */
    0x0F, 0x05,                   /* syscall */
};
static const uint8_t crashes[] = {0x0F, 0x0B}; /* ud2 */

static void foreign_engines(void **state)
{
    static const struct {
        const char *name;
        const uint8_t *code;
        size_t n;
        const char *says;
    } cases[] = {
        {"calls socket", calls_socket, sizeof calls_socket, "forbidden"},
        {"does nothing", does_nothing, sizeof does_nothing, "it sent no scores"},
        {"crashes", crashes, sizeof crashes, "ended by signal 4"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t elf[TINY_HEADERS + 64];
        size_t n = TINY_HEADERS + cases[i].n;
        struct coded c = {0};
        struct err e = {0};
        tiny_headers(elf, n);
        memcpy(elf + TINY_HEADERS, cases[i].code, cases[i].n);
        if (coded_code(&c, elf, n, &e))
            fail_msg("%s: %s", cases[i].name, e.msg);
        remake(made, KIND_RUNNER, &c);
        coded_free(&c);
        expect(cases[i].name, made, true, ERR_CLAIM, cases[i].says);
        expect(cases[i].name, made, false, ERR_OK, ""); /* never executed unasked */
    }
}

/* The score of a submission is that of the weights that it was made from. */
static void score_of_weights(void **state)
{
    static const struct {
        enum command command;
        const char *const *path;
    } way[] = {{COMMAND_BLOB, NULL}, {COMMAND_SCORE, NULL}};
    char hash[2][32];
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct options o = {.command = way[i].command,
                            .file = i ? weights : sound,
                            .data = dir,
                            .json = true,
                            .quiet = true,
                            .threads = 1 + i};
        struct report r;
        struct err e = {0};
        assert_int_equal(report_init(&r, true, true, &e), ERR_OK);
        if (i ? verify_score(&o, &r, &e) : verify_blob(&o, &r, &e))
            fail_msg("%s", e.msg);
        snprintf(hash[i], sizeof hash[i], "%s",
                 cJSON_GetObjectItem(r.root, "nll_xxh64")->valuestring);
        report_free(&r);
    }
    assert_string_equal(hash[0], hash[1]);
}

static void command_lines(void **state)
{
    static const struct {
        const char *line[8];
        enum err_code want;
        const char *says;
    } cases[] = {
        {{"verify"}, ERR_USAGE, "say what to do"},
        {{"verify", "records", "x"}, ERR_USAGE, "the nearest known one is record"},
        {{"verify", "probe", "x"}, ERR_USAGE, "say --data DIR"},
        {{"verify", "blub"}, ERR_USAGE, "the nearest known one is blob"},
        {{"verify", "train"}, ERR_USAGE, "there are blob, score, probe, record and unwrap"},
        {{"verify", "blob"}, ERR_USAGE, "which file"},
        {{"verify", "score"}, ERR_USAGE, "which weights"},
        {{"verify", "blob", "f"}, ERR_USAGE, "--data"},
        {{"verify", "blob", "f", "--data"}, ERR_USAGE, "--data: needs a value"},
        {{"verify", "blob", "f", "g", "--data", "d"}, ERR_USAGE, "one file"},
        {{"verify", "blob", "f", "--data", "d", "--eval", "slots"}, ERR_USAGE, "--eval slots"},
        {{"verify", "blob", "f", "--data", "d", "SEED=1"}, ERR_USAGE, "SEED=1"},
        {{"verify", "score", "f", "--data", "d", "--execute"}, ERR_USAGE, "not an option of"},
        {{"verify", "blob", "f", "--data", "d", "--max-tokens", "1x"}, ERR_USAGE, "1x"},
        {{"verify", "blob", "f", "--data", "d", "--threads", ""}, ERR_USAGE, "a number"},
        {{"verify", "blob", "f", "--data", "d", "--nonsense"}, ERR_USAGE, "--nonsense"},
        {{"verify", "blob", "f", "--data", "d", "--device", "cuda"}, ERR_USAGE, "which the cpu"},
        {{"verify", "blob", "f", "--data", "d", "--execute"}, ERR_OK, ""},
        {{"verify", "score", "f", "--data", "d", "SEED=1", "EVAL_STRIDE=8"}, ERR_OK, ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *argv[9] = {0};
        struct options o;
        struct err e = {0};
        for (size_t a = 0; a < 8; a++)
            argv[a] = (char *)(uintptr_t)cases[i].line[a];
        enum err_code rc = options_parse(&o, argv, &e);
        if (rc != cases[i].want || !strstr(e.msg, cases[i].says))
            fail_msg("case %zu: status %d \"%s\"", i, rc, e.msg);
        options_free(&o);
    }
}

/* ---- the sound submission ---- */

static void write_weights(const struct recipe *r)
{
    struct gpt m;
    struct err e = {0};
    char text[8192];
    const char *const meta[] = {"recipe", text};
    uint32_t x = 1;

    assert_int_equal(gpt_init(&m, r, &e), ERR_OK);
    float *p = malloc(m.floats * sizeof *p);
    struct tensor_view *t = calloc(m.nparams, sizeof *t);
    for (size_t i = 0; i < m.floats; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = ((float)(x >> 8) / 0x1p23f - 1) * 0.2f;
    }
    for (size_t i = 0; i < m.nparams; i++) {
        const struct gpt_param *q = &m.param[i];
        t[i] = (struct tensor_view){.name = q->name,
                                    .dtype = ST_F32,
                                    .ndim = q->ndim,
                                    .data = (const uint8_t *)(p + q->at),
                                    .nbytes = q->size * sizeof *p};
        memcpy(t[i].shape, q->shape, sizeof q->shape);
    }
    recipe_print(r, RECIPE_MODEL | RECIPE_EVAL, false, text, sizeof text);
    if (st_write(weights, t, m.nparams, meta, 1, &e))
        fail_msg("%s", e.msg);
    free(t);
    free(p);
    gpt_free(&m);
}

static int setup(void **state)
{
    struct recipe r;
    struct blob b;
    struct err e = {0};
    (void)state;
    toy_corpus(dir);
    snprintf(weights, sizeof weights, "%s", toy_path(dir, "model.safetensors"));
    snprintf(sound, sizeof sound, "%s", toy_path(dir, "sound"));
    snprintf(made, sizeof made, "%s", toy_path(dir, "made"));
    toy_recipe(&r, dir);
    toy_set(&r, "EVAL_STRIDE=4");
    write_weights(&r);
    const struct pack_job job = {.weights = weights,
                                 .out = sound,
                                 .tokenizer = toy_path(dir, "toy.model"),
                                 .target_bytes = 16000000,
                                 .codec = CODEC_AUTO,
                                 .loader = stub_loader,
                                 .runner = stub_runner,
                                 .loader_n = (size_t)(stub_loader_end - stub_loader),
                                 .runner_n = (size_t)(stub_runner_end - stub_runner)};
    if (pack(&job, &b, &e)) {
        printf("%s\n", e.msg);
        return -1;
    }
    file = toy_read(sound, &file_n);
    if (blob_parse(&parts, file, file_n, sound, NULL, 0, &e)) {
        printf("%s\n", e.msg);
        return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(file);
    toy_remove(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_file),      cmocka_unit_test(flipped_bits),
        cmocka_unit_test(wrong_length),    cmocka_unit_test(exchanged_sections),
        cmocka_unit_test(foreign_engines), cmocka_unit_test(score_of_weights),
        cmocka_unit_test(command_lines),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
