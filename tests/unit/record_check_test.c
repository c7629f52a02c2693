/*
 * record_check_test - guards against a false claim that passes and an honest one that is accused.
 * An honest record of three seeds is made up; each case changes one thing in it and names the
 * findings that must appear. Nothing else may.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "verify/record_report.h"

/* loss / ln 2 * tokens / bytes with the reference's 151,080,363 bytes over 62,021,632 tokens. */
static const char log_text[] =
    "val_bpb:enabled tokenizer_kind=sentencepiece\n"
    "train_loader:dataset:fineweb10B_sp1024 train_shards:80\n"
    "val_loader:shards pattern=x tokens:62021632\n"
    "model_params:26993756\n"
    "seed:%d\n"
    "step:7000/20000 val_loss:1.9240 val_bpb:1.1395 train_time:590000ms\n"
    "stopping_early: wallclock_cap train_time:590000ms step:7000/20000\n"
    "Serialized model: 106178569 bytes\n"
    "Code size: 20 bytes\n"
    "Serialized model int6+zstd: %d bytes\n"
    "Total submission size int6+zstd: %d bytes\n"
    "final_int6_sliding_window val_loss:%.4f val_bpb:%.4f stride:64 eval_time:73133ms\n"
    "final_int6_sliding_window_exact val_loss:%.8f val_bpb:%.8f\n";
static const char meta_text[] =
    "{\n\"author\": \"A\",\n\"github_id\": \"a\",\n\"name\": \"n\",\n\"val_bpb\": 1.12000000,\n"
    "\"val_loss\": 1.89105891,\n\"bytes_total\": 15000023,\n\"bytes_code\": 20,\n"
    "\"val_bpb_std\": 0.001,\n\"seeds\": [1, 2, 3]\n}\n";
static const char script_text[] = "print('0123456789')\n";
static const double scores[3] = {1.119, 1.120, 1.121};

struct files {
    char readme[256], meta[1024], script[256], log[3][2048];
    const char *extra_path, *extra;
};

static void honest(struct files *f)
{
    memset(f, 0, sizeof *f);
    strcpy(f->readme, "# Record: n (val_bpb 1.1200)\n");
    strcpy(f->meta, meta_text);
    strcpy(f->script, script_text);
    for (int i = 0; i < 3; i++) {
        double loss = scores[i] * log(2) * 151080363 / 62021632;
        snprintf(f->log[i], sizeof f->log[i], log_text, i + 1, 15000001 + i, 15000021 + i, loss,
                 scores[i], loss, scores[i]);
    }
}

static void audit_as(struct record *r, const struct files *f, enum record_track track)
{
    static const char *const log[] = {"train_seed1.log", "train_seed2.log", "train_seed3.log"};
    struct err e = {0};
    memset(r, 0, sizeof *r);
    r->folder.name = strdup("folder");
    if (*f->readme)
        record_folder_add(&r->folder, "README.md", f->readme, strlen(f->readme), &e);
    if (*f->meta)
        record_folder_add(&r->folder, "submission.json", f->meta, strlen(f->meta), &e);
    if (*f->script)
        record_folder_add(&r->folder, "train_gpt.py", f->script, strlen(f->script), &e);
    if (f->extra_path)
        record_folder_add(&r->folder, f->extra_path, f->extra, strlen(f->extra), &e);
    for (int i = 0; i < 3; i++)
        if (*f->log[i])
            record_folder_add(&r->folder, log[i], f->log[i], strlen(f->log[i]), &e);
    assert_int_equal(record_audit_files(r, NULL, track, &e), ERR_OK);
}

static void audit(struct record *r, const struct files *f)
{
    audit_as(r, f, RECORD_TRACK_RECORD);
}

/* Replace the first `from` by `to`; it must be there. */
static void swap(char *text, size_t cap, const char *from, const char *to)
{
    char *at = strstr(text, from), rest[2048];
    assert_non_null(at);
    snprintf(rest, sizeof rest, "%s", at + strlen(from));
    assert_true((size_t)(at - text) + strlen(to) + strlen(rest) < cap);
    strcpy(at, to);
    strcat(at, rest);
}

enum place { NOWHERE, META, SCRIPT, LOG1, LOGS, README };

static const struct change {
    const char *name;
    enum place place;
    const char *from, *to;
    const char *codes; /* space-separated, in any order; "" : none */
    bool contradicted;
} changes[] = {
    {"honest", NOWHERE, NULL, NULL, "", false},
    {"better score claimed", META, "1.12000000", "1.10", "bpb-mismatch readme-vs-json", true},
    {"best seed claimed", META, "1.12000000", "1.119", "headline-best-seed readme-vs-json", false},
    {"rounded score", META, "1.12000000", "1.12", "", false},
    {"validation claimed", META, "1.12000000", "1.1395", "headline-from-periodic readme-vs-json",
     true},
    {"another loss", META, "1.89105891", "1.8", "loss-mismatch", true},
    {"BPB under val_loss", META, "\"val_bpb\": 1.12000000,\n\"val_loss\": 1.89105891",
     "\"val_loss\": 1.12", "json-no-val_bpb json-wrong-unit", true},
    {"population deviation", META, "0.001", "0.00081650", "std-population", false},
    {"another deviation", META, "0.001", "0.0001", "std-mismatch", true},
    {"deviation of rounded scores", META, "0.001", "0.00097", "std-mismatch", false},
    {"an earlier validation", LOG1, "step:7000/20000 val_loss:1.9240 val_bpb:1.1395",
     "step:100/20000 val_loss:2.1 val_bpb:1.2500\nstep:7000/20000 val_loss:1.9240 val_bpb:1.1395",
     "", false},
    {"loss rounded to two decimals", META, "1.89105891", "1.89", "", false},
    {"loss off by as much as BPB may be", META, "1.89105891", "1.89120", "", false},
    {"smaller total", META, "15000023", "14000000", "total-bytes-mismatch json-round-bytes", true},
    {"another seed's total", META, "15000023", "15000021", "total-not-worst-seed", false},
    {"mean total", META, "15000023", "15000022", "total-not-worst-seed", false},
    {"model alone", META, "15000023", "15000003", "artifact-excludes-code", true},
    {"total over the cap", META, "15000023", "16000001", "json-total-over-cap total-bytes-mismatch",
     true},
    {"a fourth seed", META, "[1, 2, 3]", "[1, 2, 3, 4]", "seed-log-missing", false},
    {"score of a seed", META, "\"seeds\": [1, 2, 3]",
     "\"seed_results\": {\"1\": {\"val_bpb\": 1.110}, \"2\": {\"val_bpb\": 1.12}, \"3\": "
     "{\"val_bpb\": 1.121}}",
     "seed-bpb-mismatch", true},
    {"bytes of a seed", META, "\"seeds\": [1, 2, 3]",
     "\"seed_results\": {\"1\": {\"artifact_bytes\": 15000020}}", "seed-bytes-mismatch", true},
    {"steps of a seed", META, "\"seeds\": [1, 2, 3]",
     "\"seed_results\": {\"1\": {\"steps\": 7001}}", "seed-steps-mismatch", false},
    {"code bytes", META, "\"bytes_code\": 20", "\"bytes_code\": 19", "json-code-vs-git", false},
    {"key twice", META, "\"name\": \"n\"", "\"name\": \"n\",\n\"val_bpb\": 1.12",
     "json-duplicate-key", false},
    {"damaged", META, "\"author\"", "author", "json-invalid", false},
    {"log of another seed", LOG1, "seed:1\n", "seed:9\n", "seed-label-mismatch", true},
    {"score of a checkpoint of the seed", LOG1, "seed:1\n",
     "load_checkpoint_path: runs/x_seed1/final_model.pt\n  seed: 9\n", "", false},
    {"score of a checkpoint of another seed", LOG1, "seed:1\n",
     "load_checkpoint_path: runs/x_seed12/final_model.pt\n  seed: 9\n", "seed-label-mismatch",
     true},
    {"log over the cap", LOG1, "15000021", "16000021", "log-total-over-cap total-not-worst-seed",
     true},
    {"late by one step", LOG1, "train_time:590000ms step", "train_time:600900ms step",
     "train-time-over-600s-within-one-step", false},
    {"late", LOG1, "train_time:590000ms step", "train_time:601100ms step", "train-time-over-601s",
     false},
    {"slow evaluation", LOG1, "73133ms", "600001ms", "eval-time-over-600s", false},
    {"calibration", LOG1, "Serialized model:",
     "GPTQ:collected 67 Hessians in 10.1s\nSerialized model:", "calibration-beyond-600s", false},
    {"other shards", LOG1, "train_shards:80", "train_shards:39", "train-shards-differ", false},
    {"more code than counted", SCRIPT, "0123", "0123456", "code-size-vs-git json-code-vs-git",
     false},
    {"helper beside", SCRIPT, "print('0123456789')\n", "import lossless\n###\n",
     "code-outside-count", false},
    {"newer Python", SCRIPT, "print('0123456789')\n", "print(f'{x['ab']}')\n", "script-syntax-3.11",
     false},
    {"other headline in the README", README, "1.1200", "1.1100", "readme-vs-json", false},
    /* 17.5 % more bytes: leading spaces counted twice (#1719) */
    {"wrong denominator", LOGS, "tokens:62021632", "tokens:72875000", "denominator-off", true},
    {"part of the text", LOGS, "tokens:62021632", "tokens:9660000", "val-partial", true},
    {"some batches", LOGS, "tokens:62021632", "tokens:61500000\neval: 500 batches (limited)",
     "denominator-off", true},
};

static bool expected(const struct change *c, const char *code)
{
    size_t n = strlen(code);
    for (const char *p = c->codes; (p = strstr(p, code)); p += n)
        if ((p == c->codes || p[-1] == ' ') && (!p[n] || p[n] == ' '))
            return true;
    return false;
}

static void one_change(void **state)
{
    struct files f;
    struct record *r = malloc(sizeof *r);
    size_t wrong = 0;
    (void)state;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const struct change *c = &changes[i];
        honest(&f);
        if (c->place == META)
            swap(f.meta, sizeof f.meta, c->from, c->to);
        if (c->place == SCRIPT)
            swap(f.script, sizeof f.script, c->from, c->to);
        if (c->place == README)
            swap(f.readme, sizeof f.readme, c->from, c->to);
        for (int k = 0; k < 3; k++)
            if (c->place == LOGS || (c->place == LOG1 && !k))
                swap(f.log[k], sizeof f.log[k], c->from, c->to);
        if (!strcmp(c->name, "helper beside")) {
            f.extra_path = "lossless.py";
            f.extra = "import os\n";
        }
        audit(r, &f);
        for (size_t k = 0; k < r->findings; k++) {
            const char *code = record_code_info[r->finding[k].code].code;
            if (!expected(c, code)) {
                print_message("%s: unexpected %s: %s\n", c->name, code, r->finding[k].text);
                wrong++;
            }
        }
        char codes[256], *save = NULL;
        snprintf(codes, sizeof codes, "%s", c->codes);
        for (char *p = strtok_r(codes, " ", &save); p; p = strtok_r(NULL, " ", &save)) {
            bool found = false;
            for (size_t k = 0; k < r->findings; k++)
                found |= !strcmp(p, record_code_info[r->finding[k].code].code);
            if (!found) {
                print_message("%s: no %s\n", c->name, p);
                wrong++;
            }
        }
        if (record_contradicted(r) != c->contradicted) {
            print_message("%s: contradicted %d\n", c->name, !c->contradicted);
            wrong++;
        }
        record_free(r);
    }
    free(r);
    assert_int_equal(wrong, 0);
}

/*
 * Claims that no result line has. In each the logs say the claimed number somewhere: a validation
 * early in training, a label that nobody else uses, its mean over the logs, nothing at all. Where
 * no line is read as a result, nothing can contradict.
 */
static void unread_labels(void **state)
{
    static const struct {
        const char *name, *claim, *line[3]; /* in front of the result lines */
        const char *code;
        enum claim_state state;
        bool results;
    } cases[] = {
        {"early step",
         "1.25",
         {"step:100/20000 val_loss:2.1104 val_bpb:1.2500\n", "", ""},
         "bpb-mismatch",
         CLAIM_CONTRADICTED,
         true},
        {"near an early step",
         "1.25004",
         {"step:100/20000 val_loss:2.1 val_bpb:1.2500\n", "", ""},
         "bpb-mismatch",
         CLAIM_CONTRADICTED,
         true},
        {"own label",
         "0.901534",
         {"ppm_mix bytes=27048621 mix_bpb=0.901534 nn_only=0.97\n", "", ""},
         "bpb-unread-label",
         CLAIM_UNSUPPORTED,
         true},
        {"words in brackets",
         "1.1854",
         {"  SLOT-0 BPB (full val set): 1.1854\n", "", ""},
         "bpb-unread-label",
         CLAIM_UNSUPPORTED,
         true},
        {"mean of an own label",
         "0.9",
         {"mix_bpb=0.8990\n", "mix_bpb=0.9000\n", "mix_bpb=0.9010\n"},
         "bpb-unread-label",
         CLAIM_UNSUPPORTED,
         true},
        {"somebody else's",
         "0.9",
         {"baseline_bpb:0.9000\n", "", ""},
         "bpb-mismatch",
         CLAIM_CONTRADICTED,
         true},
        {"running value",
         "0.9",
         {"chunk 3/9 running_bpb:0.9000\n", "", ""},
         "bpb-mismatch",
         CLAIM_CONTRADICTED,
         true},
        {"no result line", "0.9", {"", "", ""}, "bpb-mismatch", CLAIM_UNSUPPORTED, false},
        {"validations only",
         "1.1395",
         {"", "", ""},
         "headline-from-periodic",
         CLAIM_UNSUPPORTED,
         false},
    };
    struct record *r = malloc(sizeof *r);
    struct files f;
    size_t wrong = 0;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool found = false;
        honest(&f);
        swap(f.meta, sizeof f.meta, "1.12000000", cases[i].claim);
        for (int k = 0; k < 3; k++) {
            char *results = strstr(f.log[k], i < 2 ? "step:7000" : "final_int6"), rest[1024];
            assert_non_null(results);
            snprintf(rest, sizeof rest, "%s", results);
            snprintf(results, 1024, "%s%s", cases[i].line[k], cases[i].results ? rest : "");
        }
        audit(r, &f);
        for (size_t k = 0; k < r->findings; k++)
            found |= !strcmp(cases[i].code, record_code_info[r->finding[k].code].code);
        if (!found || r->claim[RCLAIM_BPB] != cases[i].state) {
            print_message("%s: %s %s\n", cases[i].name, found ? "found," : "not found,",
                          claim_state_name[r->claim[RCLAIM_BPB]]);
            wrong++;
        }
        record_free(r);
    }
    free(r);
    assert_int_equal(wrong, 0);
}

/* Part of the text: a rule is broken in the record track; elsewhere it is no evidence. A loss per
 * byte says nothing about tokens. */
static void parts_of_the_text(void **state)
{
    static const struct {
        enum record_track track;
        const char *from, *to;
        enum claim_state state;
        bool part;
        const char *claim; /* NULL: the honest one */
    } cases[] = {
        {RECORD_TRACK_RECORD, "tokens:62021632", "tokens:65536", CLAIM_CONTRADICTED, true, NULL},
        {RECORD_TRACK_NON_RECORD, "tokens:62021632", "tokens:65536", CLAIM_UNSUPPORTED, true, NULL},
        {RECORD_TRACK_NON_RECORD, "tokens:62021632", "tokens:72875000", CLAIM_CONTRADICTED, false,
         NULL},
        /* two digits imply 0.3 % more bytes per token than there are */
        {RECORD_TRACK_RECORD, "final_int6_sliding_window_exact",
         "final_ngram val_loss:0.0083 val_bpb:0.0049\nfinal_int6_sliding_window_exact",
         CLAIM_CONFIRMED, false, "0.0049"},
        {RECORD_TRACK_RECORD, "exact val_loss:1.8", "exact val_loss:0.77632484 x:1.8",
         CLAIM_CONFIRMED, false, NULL},
    };
    struct record *r = malloc(sizeof *r);
    struct files f;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool part = false;
        honest(&f);
        for (int k = 0; k < 3; k++)
            if (i < 4 || k == 1)
                swap(f.log[k], sizeof f.log[k], cases[i].from, cases[i].to);
        if (cases[i].claim)
            swap(f.meta, sizeof f.meta, "1.12000000", cases[i].claim);
        audit_as(r, &f, cases[i].track);
        for (size_t k = 0; k < r->findings; k++)
            part |= r->finding[k].code == RC_PARTIAL;
        if (part != cases[i].part || r->claim[RCLAIM_BPB] != cases[i].state)
            fail_msg("case %zu: %d, %s", i, part, claim_state_name[r->claim[RCLAIM_BPB]]);
        record_free(r);
    }
    free(r);
}

/* A total that is the script as it lies in the folder and a logged model was counted by somebody
 * who looked: in no log, so it is said, but nothing contradicts it. */
static void shipped_total(void **state)
{
    struct files f;
    struct record *r = malloc(sizeof *r);
    bool said = false;
    (void)state;
    honest(&f);
    swap(f.script, sizeof f.script, "0123", "0123456");
    swap(f.meta, sizeof f.meta, "15000023", "15000026");
    audit(r, &f);
    for (size_t i = 0; i < r->findings; i++)
        said |= r->finding[i].code == RC_TOTAL && strstr(r->finding[i].text, "as it lies here");
    assert_true(said);
    assert_false(record_contradicted(r));
    record_free(r);
    free(r);
}

/* Without metadata the logs of seeds count, not the ablations beside them. */
static void unclaimed_seeds(void **state)
{
    struct files f;
    struct record *r = malloc(sizeof *r);
    (void)state;
    honest(&f);
    *f.meta = 0;
    f.extra_path = "log_wider.txt";
    f.extra = "final_sliding val_loss:1.0 val_bpb:0.6\nseed:1\n";
    audit(r, &f);
    assert_int_equal(r->runs, 4);
    assert_int_equal(r->heads, 3);
    assert_true(fabs(r->bpb.mean - 1.12) < 1e-9);
    record_free(r);
    free(r);
}

/* One seed was scored with test-time training too: its headline is of another kind than those of
 * the others, and the claim is the mean of the kind that all have. A label that repeats does not
 * count. */
static void means_of_a_kind(void **state)
{
    struct files f;
    struct record *r = malloc(sizeof *r);
    (void)state;
    honest(&f);
    strcat(f.log[1], "final_int8_zlib_roundtrip_exact val_loss:1.90 val_bpb:1.12500000\n"
                     "legal_ttt_exact val_loss:1.85 val_bpb:1.09570000\n");
    audit(r, &f);
    assert_true(fabs(r->bpb.mean - 1.1119) < 1e-9);
    assert_string_equal(r->basis_text, "mean of 3 sliding results, 1.12000000");
    assert_int_equal(r->claim[RCLAIM_BPB], CLAIM_CONFIRMED);
    assert_int_equal(r->claim[RCLAIM_LOSS], CLAIM_CONFIRMED);
    assert_int_equal(r->claim[RCLAIM_STD], CLAIM_CONFIRMED);
    record_free(r);

    honest(&f);
    swap(f.meta, sizeof f.meta, "1.12000000", "1.20");
    for (int i = 0; i < 3; i++) {
        strcat(f.log[i], "final_int6_roundtrip_exact val_loss:2.0 val_bpb:1.20000000\n");
        char again[96];
        snprintf(again, sizeof again, "final_int8_zlib_roundtrip_exact val_loss:1.9 val_bpb:%.8f\n",
                 scores[i]);
        strcat(f.log[i], again);
    }
    audit(r, &f);
    assert_string_equal(r->basis_text, "mean of 3 round trip results, 1.20000000");
    record_free(r);

    /* three runs in one log */
    honest(&f);
    *f.log[1] = *f.log[2] = 0;
    for (int i = 1; i < 3; i++) {
        char again[96];
        snprintf(again, sizeof again, "final_int6_sliding_window_exact val_loss:1.9 val_bpb:%.8f\n",
                 1.121 + 0.002 * i);
        strcat(f.log[0], again);
    }
    swap(f.meta, sizeof f.meta, "1.12000000", "1.12233333");
    audit(r, &f);
    assert_string_equal(r->basis_text, "mean of 3 final_int6_sliding_window_exact results in "
                                       "train_seed1.log, 1.12233333");
    record_free(r);
    free(r);
}

/* An ablation over the cap is a finding; what was submitted keeps it. */
static void ablation_over_cap(void **state)
{
    struct files f;
    struct record *r = malloc(sizeof *r);
    bool said = false;
    (void)state;
    honest(&f);
    f.extra_path = "wider.log";
    f.extra = "seed:1\nTotal submission size int6+zstd: 16500000 bytes\n"
              "final_int6_sliding_window val_loss:1.85 val_bpb:1.0957\n";
    audit(r, &f);
    for (size_t i = 0; i < r->findings; i++)
        said |= r->finding[i].code == RC_LOG_CAP &&
                strstr(r->finding[i].text, "wider.log (not averaged) prints 16,500,000");
    assert_true(said);
    assert_int_equal(r->claim[RCLAIM_CAP], CLAIM_CONFIRMED);
    assert_false(record_contradicted(r));
    record_free(r);
    free(r);
}

/* Fifty ablations are fifty findings of a kind: the report counts them and shows the first. */
static void many_alike(void **state)
{
    static const struct record_sota none = {.bytes_per_token = NAN};
    struct files f;
    struct record *r = malloc(sizeof *r);
    (void)state;
    for (int n = 4; n <= 6; n += 2) {
        char *text = NULL;
        size_t size = 0;
        honest(&f);
        audit(r, &f);
        for (int i = 0; i < n; i++)
            record_find(r, RC_PARTIAL, "a.log", (size_t)i + 1, "finding %d", i);
        FILE *out = open_memstream(&text, &size);
        assert_non_null(out);
        record_text(out, r, &none);
        fclose(out);
        assert_non_null(strstr(text, "finding 3 "));
        assert_int_equal(strstr(text, "finding 4 ") != NULL, 0);
        assert_int_equal(strstr(text, "val-partial: 2 more of these") != NULL, n == 6);
        free(text);
        record_free(r);
    }
    free(r);
}

/* What is missing is said, and contradicts nothing. */
static void missing_files(void **state)
{
    static const struct record_sota sota = {.v = {1.13}, .n = 1, .name = "x"};
    struct files f;
    struct record *r = malloc(sizeof *r);
    (void)state;
    for (int what = 0; what < 5; what++) {
        honest(&f);
        if (what == 0 || what == 4)
            *f.readme = 0;
        if (what == 1 || what == 4)
            *f.meta = 0;
        if (what == 2 || what == 4)
            *f.script = 0;
        for (int i = 0; i < 3; i++)
            if (what == 3 || what == 4)
                *f.log[i] = 0;
        audit(r, &f);
        assert_true(r->count[RECORD_FAIL] >= 1);
        assert_false(record_contradicted(r));
        FILE *out = fopen("/dev/null", "w");
        assert_non_null(out);
        record_text(out, r, &sota);
        record_line(out, r);
        fclose(out);
        cJSON *json = record_json(r, &sota);
        assert_non_null(json);
        cJSON_Delete(json);
        record_free(r);
    }
    free(r);
}

/* A folder of `packer submit`: no script, the program is the submission, its size is the count. */
static void programs(void **state)
{
    static const struct {
        size_t size;
        const char *code; /* NULL: no finding at all */
    } cases[] = {{15000023, NULL}, {15000024, "total-bytes-mismatch"}, {16000001, "file-over-cap"}};
    struct record *r = malloc(sizeof *r);
    struct files f;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *program = malloc(cases[i].size + 1);
        bool found = !cases[i].code;
        assert_non_null(program);
        memset(program, 'x', cases[i].size);
        memcpy(program,
               "\x7f"
               "ELF",
               4);
        program[cases[i].size] = 0;
        honest(&f);
        *f.script = 0;
        f.extra_path = "submission_seed3";
        f.extra = program;
        audit(r, &f);
        for (size_t k = 0; k < r->findings; k++)
            found |=
                cases[i].code && !strcmp(cases[i].code, record_code_info[r->finding[k].code].code);
        if (!found || (!cases[i].code && r->findings) ||
            record_contradicted(r) != (cases[i].code != NULL))
            fail_msg("%zu bytes: %zu findings, first %s", cases[i].size, r->findings,
                     r->findings ? r->finding[0].text : "-");
        record_free(r);
        free(program);
    }
    free(r);
}

/* Three units, and no comparison of nats per token across tokenisers. */
static void units(void **state)
{
    struct record_sota sota = {.v = {1.13}, .n = 1, .bytes_per_token = NAN};
    struct record_test t[RECORD_UNITS];
    struct files f;
    struct record *r = malloc(sizeof *r);
    (void)state;
    honest(&f);
    audit(r, &f);
    record_test(t, r, &sota);
    assert_true(fabs(t[UNIT_BPB].gain - 0.01) < 1e-12);
    assert_true(fabs(t[UNIT_NATS_BYTE].gain - 0.01 * log(2)) < 1e-9);
    assert_true(fabs(t[UNIT_NATS_TOKEN].gain - 0.01 * log(2) * 2.43593) < 1e-6);
    assert_true(t[UNIT_BPB].plain.valid && t[UNIT_BPB].plain.p < 0.01);
    sota.bytes_per_token = 3.72663;
    record_test(t, r, &sota);
    assert_true(t[UNIT_BPB].possible && !t[UNIT_NATS_TOKEN].possible);
    record_free(r);
    free(r);
}

static void leaderboards(void **state)
{
    static const char text[] =
        "# x\n| Run | Score | Author | Date | Info |\n|---|--:|---|---|---|\n"
        "| a | 1.1 | me | 2026-03-01 | [i](records/t/2026_a/README.md) |\n"
        "| b | 1.2000 | you | 2026-03-01 | [i](https://h/pull/12) |\n"
        "\n| Run | Score |\n|---|---|\n| c | 1.3 |\n| d | x |\n";
    struct board *b = calloc(1, sizeof *b);
    (void)state;
    board_parse(b, "README.md", text, sizeof text - 1);
    assert_int_equal(b->rows, 3);
    assert_int_equal(b->row[1].decimals, 1);
    assert_int_equal(b->row[2].table, 1);
    assert_ptr_equal(board_row_of(b, "2026_a", "", "", 9), &b->row[0]);
    assert_ptr_equal(board_row_of(b, "2026", "", "YOU", 1.2002), &b->row[1]);
    assert_null(board_row_of(b, "2026", "", "you", 1.3));
    assert_null(board_row_of(b, "", "", "", 1.1));
    assert_ptr_equal(board_before(b, &b->row[0]), &b->row[1]);
    assert_null(board_before(b, &b->row[1]));
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_change),
                                       cmocka_unit_test(unread_labels),
                                       cmocka_unit_test(parts_of_the_text),
                                       cmocka_unit_test(shipped_total),
                                       cmocka_unit_test(unclaimed_seeds),
                                       cmocka_unit_test(means_of_a_kind),
                                       cmocka_unit_test(ablation_over_cap),
                                       cmocka_unit_test(many_alike),
                                       cmocka_unit_test(missing_files),
                                       cmocka_unit_test(programs),
                                       cmocka_unit_test(units),
                                       cmocka_unit_test(leaderboards)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
