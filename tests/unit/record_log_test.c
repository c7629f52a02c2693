/*
 * record_log_test - guards against a result line that is missed, a progress line or a printed
 * f-string that is taken for a result, and a size or time that is read from the wrong family.
 * Cases are families of lines; docs/audit.md names them.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "verify/record_line.h"
#include "verify/record_log.h"

static struct record_log parse(const char *path, const char *text)
{
    struct record_log l;
    struct err e = {0};
    assert_int_equal(record_log_parse(&l, path, text, strlen(text), &e), ERR_OK);
    return l;
}

#define NO NAN

static void results(void **state)
{
    static const struct {
        const char *line, *label;
        enum metric_kind kind;
        double loss, bpb, ms;
    } cases[] = {
        {"final_int8_zlib_roundtrip val_loss:2.0386 val_bpb:1.2074 eval_time:1356ms",
         "final_int8_zlib_roundtrip", METRIC_ROUNDTRIP, 2.0386, 1.2074, 1356},
        {"final_int8_zlib_roundtrip_exact val_loss:2.03860961 val_bpb:1.20737944",
         "final_int8_zlib_roundtrip_exact", METRIC_ROUNDTRIP, 2.03860961, 1.20737944, NO},
        {"final_sliding_window_eval_exact stride:64 val_loss:1.95110428 val_bpb:1.15555486",
         "final_sliding_window_eval_exact stride:64", METRIC_SLIDING, 1.95110428, 1.15555486, NO},
        {"final_sliding val_loss:2.9027 val_bpb:1.1239 (stride=16, T=0.90) eval_time:768782ms",
         "final_sliding", METRIC_SLIDING, 2.9027, 1.1239, 768782},
        {"final_int8_zlib_roundtrip_exact sliding val_loss:2.0209 sliding val_bpb:1.1969",
         "final_int8_zlib_roundtrip_exact sliding", METRIC_SLIDING, 2.0209, 1.1969, NO},
        {"ttt_sliding:done val_loss=2.795171 val_bpb=1.082098 elapsed=293.2s", "ttt_sliding:done",
         METRIC_ADAPTED, 2.795171, 1.082098, 293200},
        {"quantized_ttt_phased val_loss:2.32247803 val_bpb:1.06128183 eval_time:519546ms",
         "quantized_ttt_phased", METRIC_ADAPTED, 2.32247803, 1.06128183, 519546},
        {"final_slot val_loss:1.9 val_bpb:1.08", "final_slot", METRIC_ADAPTED, 1.9, 1.08, NO},
        {"diagnostic quantized val_loss:2.35 val_bpb:1.07 eval_time:63234ms",
         "diagnostic quantized", METRIC_ROUNDTRIP, 2.35, 1.07, 63234},
        {"quantized val_loss:2.83957454 val_bpb:1.09928779", "quantized", METRIC_ROUNDTRIP,
         2.83957454, 1.09928779, NO},
        {"final_sliding val_loss:0.8 val_bpb:1.1 tokens:1984 bytes:1977 time_ms:67",
         "final_sliding", METRIC_SLIDING, 0.8, 1.1, 67},
        {"1776142360.710 quantized val_loss:2.8 val_bpb:1.09", "quantized", METRIC_ROUNDTRIP, 2.8,
         1.09, NO},
        {"[19:23:20] quantized val_loss:2.8 val_bpb:1.09", "quantized", METRIC_ROUNDTRIP, 2.8, 1.09,
         NO},
        {"2026-04-01 19:23:20,123 INFO - quantized val_loss:2.8 val_bpb:1.09", "quantized",
         METRIC_ROUNDTRIP, 2.8, 1.09, NO},
        {"[rank0]: quantized val_loss:2.8 val_bpb:1.09\r", "quantized", METRIC_ROUNDTRIP, 2.8, 1.09,
         NO},
        {"DIAGNOSTIC post_ema val_loss:1.8937 val_bpb:1.1216 eval_time:2390ms",
         "DIAGNOSTIC post_ema", METRIC_NONE, 1.8937, 1.1216, 2390},
        {"pre-quantization post-ema val_loss:2.81 val_bpb:1.08", "pre-quantization post-ema",
         METRIC_NONE, 2.81, 1.08, NO},
        /* no results at all */
        {"ttt_chunk [1/1238] bpb=1.120040 time=3.8s", NULL, METRIC_NONE, 0, 0, 0},
        {"ttp: b775/782 bl:2.2782 bb:1.0591 rl:2.2782 rb:1.0591 dl:6892-7524 gd:0", NULL,
         METRIC_NONE, 0, 0, 0},
        {"    log0(f\"final val_loss:{q_val_loss:.4f} val_bpb:{q_val_bpb:.4f}\")", NULL,
         METRIC_NONE, 0, 0, 0},
        {"# best so far: \"x\" val_loss:2.0 val_bpb:1.1", NULL, METRIC_NONE, 0, 0, 0},
        {"  \"post_ttt_val_bpb\": 1.06400238,", NULL, METRIC_NONE, 0, 0, 0},
        {"final val_loss:nan val_bpb:nan", NULL, METRIC_NONE, 0, 0, 0},
        {"final val_loss:9 val_bpb:1e5", NULL, METRIC_NONE, 0, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct record_log l = parse("x.log", cases[i].line);
        const struct metric *m = l.final;
        bool ok = cases[i].label ? l.finals == 1 && !strcmp(m->label, cases[i].label) &&
                                       m->kind == cases[i].kind && m->val_loss == cases[i].loss &&
                                       m->val_bpb == cases[i].bpb &&
                                       (isnan(cases[i].ms) ? isnan(m->eval_ms)
                                                           : fabs(m->eval_ms - cases[i].ms) < 1e-6)
                                 : l.finals == 0;
        if (!ok)
            fail_msg("%s: %zu results, label %s", cases[i].line, l.finals,
                     l.finals ? m->label : "-");
        record_log_free(&l);
    }
}

static void headlines(void **state)
{
    static const struct {
        const char *name, *text;
        double bpb; /* 0: none */
    } cases[] = {
        {"more adapted wins",
         "final_int6_roundtrip val_loss:2 val_bpb:1.2\n"
         "legal_ttt val_loss:1.9 val_bpb:1.12\n"
         "final_sliding_window val_loss:1.95 val_bpb:1.15\n",
         1.12},
        {"the last of a kind",
         "final_sliding val_loss:2 val_bpb:1.2\n"
         "final_sliding val_loss:1.9 val_bpb:1.1\n",
         1.1},
        {"diverged adaptation",
         "final_sliding val_loss:2 val_bpb:1.09\n"
         "final_int6_ttt val_loss:3 val_bpb:1.336\n",
         1.09},
        {"a little worse counts",
         "quantized val_loss:2 val_bpb:1.09\n"
         "final_sliding val_loss:2 val_bpb:1.105\n",
         1.105},
        {"diagnosis never counts", "DIAGNOSTIC post_ema val_loss:1 val_bpb:1.0\n", 0},
        {"validation never counts", "step:100/200 val_loss:1.8 val_bpb:1.07 train_time:9ms\n", 0},
        {"nothing", "", 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct record_log l = parse("x.log", cases[i].text);
        const struct metric *m = record_log_headline(&l);
        if ((m ? m->val_bpb : 0) != cases[i].bpb)
            fail_msg("%s: %.8f", cases[i].name, m ? m->val_bpb : 0);
        record_log_free(&l);
    }
}

/* Scripts with one label for every way of scoring say the way in another place. */
static void kinds_told(void **state)
{
    static const char result[] = "final_int8_zlib_roundtrip val_loss:2.0135 val_bpb:1.1925%s\n"
                                 "final_int8_zlib_roundtrip_exact val_loss:2.01348383 "
                                 "val_bpb:1.19250007\n";
    static const struct {
        const char *before, *in;
        enum metric_kind kind;
    } cases[] = {
        {"", "", METRIC_ROUNDTRIP},
        {"final_eval_mode:sliding_window stride:64 batch_seqs:1024\n", "", METRIC_SLIDING},
        {"final_eval_mode:standard\n", "", METRIC_ROUNDTRIP},
        {"final_eval_mode:sliding_window stride:64\nfinal_eval_mode:standard\n", "",
         METRIC_ROUNDTRIP},
        {"ttt:completed steps:310 time:76.2s\n", " eval_mode:online_ttt eval_time:0ms",
         METRIC_ADAPTED},
        {"", " eval_mode:sliding_window", METRIC_SLIDING},
        {"final_eval_mode:sliding_window stride:64\n", " eval_mode:plain", METRIC_ROUNDTRIP},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        size_t n = (size_t)snprintf(text, sizeof text, "%s", cases[i].before);
        snprintf(text + n, sizeof text - n, result, cases[i].in);
        struct record_log l = parse("x.log", text);
        if (l.finals != 2 || l.final[0].kind != cases[i].kind || l.final[1].kind != cases[i].kind)
            fail_msg("case %zu: %s, %s", i, metric_kind_name[l.final[0].kind],
                     metric_kind_name[l.final[1].kind]);
        record_log_free(&l);
    }
}

static void sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t model, code, plain, total;
        bool rounded;
    } cases[] = {
        {"Serialized model: 111568154 bytes\nCode size: 80288 bytes\n"
         "Total submission size: 111648442 bytes\n"
         "Serialized model int6+lzma: 15787052 bytes (payload:1 raw_torch:2)\n"
         "Total submission size int6+lzma: 15867340 bytes\n",
         15787052, 80288, 0, 15867340, false},
        /* no format, but it is model and code */
        {"Code size: 10 bytes\nSerialized model: 9000000 bytes\n"
         "Serialized model rdquant+zstd: 990 bytes\nTotal submission size: 1000 bytes\n",
         990, 10, 0, 1000, false},
        {"Code size (uncompressed): 151766 bytes\nCode size (compressed): 31250 bytes\n"
         "Serialized model quantized+brotli: 15920836 bytes\n"
         "Total submission size quantized+brotli: 15952086 bytes\n",
         15920836, 31250, 151766, 15952086, false},
        {"artifact:15.60MB binary:97320960(13685760B) fp:2542200(2585072B) code:70399\n"
         "budget:15670651/16000000 (15.67/16.00MB) FITS\n",
         15600252, 70399, 0, 15670651, false},
        {"Raw model: 85587955 bytes | Code: 70969 bytes | Total: 85658924\n"
         "INT7+zlib model: 15370972 bytes | Total submission: 15441941 bytes\n",
         15370972, 70969, 0, 15441941, false},
        {"  INT4+fp8+brotli: 15.42MB model + 0.077MB code = 15.50/16.00MB FITS\n", 15420000, 0, 0,
         15500000, true},
        {"Total submission size int6+zstd: 15,866,156 bytes\n", 0, 0, 0, 15866156, false},
        {"log0(f\"Code size: {code_bytes} bytes\")\n", 0, 0, 0, 0, false},
        {"Total submission size int6+zstd: 99999999999999999999999 bytes\n", 0, 0, 0, 0, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct record_log l = parse("x.log", cases[i].text);
        if (l.model.v != cases[i].model || l.code.v != cases[i].code ||
            l.code_plain.v != cases[i].plain || l.total.v != cases[i].total ||
            l.total.rounded != cases[i].rounded)
            fail_msg("case %zu: model %zu code %zu plain %zu total %zu", i, (size_t)l.model.v,
                     (size_t)l.code.v, (size_t)l.code_plain.v, (size_t)l.total.v);
        record_log_free(&l);
    }
}

static void times(void **state)
{
    static const struct {
        const char *line;
        enum log_time_kind kind;
        double seconds, limit;
    } cases[] = {
        {"total_eval_time:519.5s", LOG_TIME_EVAL, 519.5, 0},
        {"ttt_lora:compile warmup done (156.2s)", LOG_TIME_WARMUP, 156.2, 0},
        {"GPTQ:collected 67 Hessians in 3.5s", LOG_TIME_HESSIANS, 3.5, 0},
        {"gptq:generated 64 sequences in 246.9s", LOG_TIME_GENERATED, 246.9, 0},
        {"gptq:calibrated 66 layers in 6.7s", LOG_TIME_HESSIANS, 6.7, 0},
        {"wallclock:post_gptq total_elapsed:864.3s train_budget:600.0s", LOG_TIME_POST_GPTQ, 864.3,
         600},
        {"serialize_wallclock: 81.356s", LOG_TIME_SERIALISE, 81.356, 0},
        {"artifact_production_wallclock: 844.584s (must be < 600.0)", LOG_TIME_ARTIFACT, 844.584,
         600},
        {"gptq:reserving 13s, effective=587000ms", LOG_TIME_KINDS, 0, 0},
        {"gptq:generating autoregressive calibration data (64 seqs x 2048 tokens)...",
         LOG_TIME_KINDS, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct record_log l = parse("x.log", cases[i].line);
        bool none = cases[i].kind == LOG_TIME_KINDS;
        if (l.times != !none ||
            (!none && (l.time[0].kind != cases[i].kind || l.time[0].limit != cases[i].limit ||
                       fabs(l.time[0].seconds - cases[i].seconds) > 1e-9)))
            fail_msg("%s: %zu times, %.3f s", cases[i].line, l.times,
                     l.times ? l.time[0].seconds : 0);
        record_log_free(&l);
    }
}

static void seeds_and_steps(void **state)
{
    static const struct {
        const char *path, *text;
        long long named, seed;
        size_t printed;
    } cases[] = {
        {"train_seed42.log", "seed:1337\n", 42, 42, 1},
        {"logs/log_10mins_seed-7.txt", "", 7, 7, 0},
        {"train.log", "  seed: 3\n", -1, 3, 1},
        {"ternary_log_1337.txt", "X | params:73 L:10 d:768 ws:8 ga:1 s:42\n", -1, 42, 1},
        {"train.log", "seed:1\nseed:2\nseed:1\n", -1, 1, 2},
        {"train.log", "data_seed:9\n", -1, -1, 0},
        {"seedling.log", "", -1, -1, 0},
        {"seed99999999999999999999999999.log", "", 1000000000000, 1000000000000, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct record_log l = parse(cases[i].path, cases[i].text);
        bool huge = cases[i].named > 100000;
        if ((huge ? l.seed_named < cases[i].named : l.seed_named != cases[i].named) ||
            (!huge && record_log_seed(&l) != cases[i].seed) || l.seeds != cases[i].printed)
            fail_msg("%s: named %lld, seed %lld, %zu printed", cases[i].path, l.seed_named,
                     record_log_seed(&l), l.seeds);
        record_log_free(&l);
    }
    struct record_log l = parse("x.log", "4900/20000 val_loss: 2.3 val_bpb: 1.07\n"
                                         "stopping_early: wallclock_cap train_time: 599623ms step: "
                                         "4901/20000\ntrain_shards: 39\nval_tokens: 47851520\n");
    assert_int_equal(l.steps.v, 4901);
    assert_int_equal(l.train_ms.v, 599623);
    assert_int_equal(l.train_shards.v, 39);
    assert_int_equal(l.val_tokens.v, 47851520);
    assert_true(l.periodic.val_bpb == 1.07);
    record_log_free(&l);
}

/* A script that a log prints first, whose text looks like results; and two runs in one file. */
static void printed_scripts(void **state)
{
    static const char ruler[] =
        "================================================================================"
        "====================\n";
    static const char script[] = "import os\n\ndef main():\n    pass\n"
                                 "# final_sliding val_loss:1.0 val_bpb:0.5\nseed = 7\n";
    char text[4096];
    (void)state;
    snprintf(text, sizeof text,
             "logs/x.txt\n%s\n%sRunning Python 3.12\n%sseed:1\nfinal_sliding val_loss:2 "
             "val_bpb:1.2\n%s\n%sseed:2\nfinal_sliding val_loss:2 val_bpb:1.1\n",
             script, ruler, ruler, script, ruler);
    struct record_log l = parse("train.log", text);
    assert_int_equal(l.finals, 2);
    assert_int_equal(l.runs, 2);
    assert_true(record_log_headline(&l)->val_bpb == 1.1);
    assert_int_equal(l.source_n, sizeof script); /* and the newline that print adds */
    assert_memory_equal(text + l.source, script, sizeof script - 1);
    assert_int_equal(record_log_seed(&l), 2);
    record_log_free(&l);
}

/* One run that console and log file wrote into the same file. */
static void twice(void **state)
{
    static const char run[] = "stopping_early: wallclock_cap train_time:600715ms step:441/20000\n"
                              "stopping_early: wallclock_cap train_time:600715ms step:441/20000\n";
    (void)state;
    struct record_log l = parse("train.log", run);
    assert_int_equal(l.tangled, 2);
    record_log_free(&l);
}

/* More results than are kept, lines without end, bytes that are no text. */
static void odd_text(void **state)
{
    enum { N = LOG_FINALS + 10, EACH = 40 };
    static char text[N * EACH + 1];
    size_t n = 0;
    (void)state;
    for (int i = 0; i < N; i++)
        n += (size_t)snprintf(text + n, EACH, "quantized val_loss:2 val_bpb:1.%05d\n", i);
    struct record_log l = parse("x.log", text);
    assert_int_equal(l.finals, LOG_FINALS);
    assert_int_equal(l.final[LOG_FINALS - 1].line, N);
    record_log_free(&l);
    memset(text, 0xFF, sizeof text - 1);
    l = parse("x.log", text);
    assert_false(record_log_is(&l));
    record_log_free(&l);
    struct err e = {0};
    assert_int_equal(record_log_parse(&l, "x.log", "\0\0val_bpb:1\0", 12, &e), ERR_OK);
    record_log_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results),         cmocka_unit_test(headlines),
        cmocka_unit_test(kinds_told),      cmocka_unit_test(sizes),
        cmocka_unit_test(times),           cmocka_unit_test(seeds_and_steps),
        cmocka_unit_test(printed_scripts), cmocka_unit_test(twice),
        cmocka_unit_test(odd_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
