/*
 * html_page_test - guards against a page that a hostile submission writes on: markup in names,
 * paths and reasons; broken UTF-8; characters that reverse or hide text; lists without end; numbers
 * that are none. And against a page that loads anything, or is not well-formed.
 */
#include <math.h>

#include "model/score.h"
#include "tests/unit/html_sound.h"
#include "tests/unit/util.h"
#include "verify/html.h"
#include "verify/html_data.h"
#include "verify/html_json.h"

/* ---- the writer ---- */

static void text(void **state)
{
    static const struct {
        const char *name, *in, *out;
    } cases[] = {
        {"nothing", "", ""},
        {"letters", "a b\tc\nd", "a b\tc\nd"},
        {"markup", "<b a='1' c=\"2\">&amp;", "&#60;b a=&#39;1&#39; c=&#34;2&#34;&#62;&#38;amp;"},
        {"UTF-8", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"},
        {"a lone continuation",
         "a\x80"
         "b",
         "a\xEF\xBF\xBD"
         "b"},
        {"cut short", "\xE2\x82", "\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"too long a form of /", "\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"a surrogate", "\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"beyond Unicode", "\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"no character", "\xEF\xBF\xBF", "\xEF\xBF\xBD"},
        {"control characters", "\x01\x1B[31m\x7F", "\xEF\xBF\xBD\xEF\xBF\xBD[31m\xEF\xBF\xBD"},
        {"right to left", "a\xE2\x80\xAEtxt.exe", "a\xEF\xBF\xBDtxt.exe"},
        {"no width", "ver\xE2\x80\x8Bified\xEF\xBB\xBF", "ver\xEF\xBF\xBDified\xEF\xBF\xBD"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct html h = {0};
        html_raw(&h, "");
        html_text(&h, cases[i].in);
        if (strcmp(h.buf ? h.buf : "", cases[i].out))
            fail_msg("%s: \"%s\"", cases[i].name, h.buf);
        html_free(&h);
    }
}

static void limits(void **state)
{
    struct html h = {0};
    char *big = malloc(1 << 20);
    (void)state;
    memset(big, 'a', (1 << 20) - 1);
    big[(1 << 20) - 1] = 0;
    html_text(&h, big);
    assert_int_equal(h.n, HTML_TEXT + 3);
    for (int i = 0; i < 20; i++)
        html_raw(&h, big);
    assert_true(h.failed && h.n <= HTML_MAX);
    html_free(&h);
    html_rawf(&h, "%s", big); /* markup is never cut */
    assert_true(h.failed);
    html_free(&h);
    free(big);
}

static void numbers(void **state)
{
    static const struct {
        double v;
        const char *count, *bytes, *three;
    } cases[] = {
        {0, "0", "0 B", "0.00"},
        {999, "999", "999 B", "999"},
        {999.7, "1,000", "1.00 kB", "1000"},
        {1234567, "1,234,567", "1.23 MB", "1234567"},
        {16e6, "16,000,000", "16.0 MB", "1.60e+07"},
        {-1e6, "-1,000,000", "-1.00 MB", "-1000000"},
        {0.05, "0", "0 B", "0.0500"},
        {2e-7, "0", "0 B", "2.00e-07"},
        {NAN, "-", NULL, "-"},
        {INFINITY, "-", NULL, "-"},
        {1e300, "-", NULL, "1.00e+300"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char buf[HTML_NUMBER];
        assert_string_equal(html_count(buf, cases[i].v), cases[i].count);
        if (cases[i].bytes)
            assert_string_equal(html_bytes(buf, cases[i].v), cases[i].bytes);
        assert_string_equal(html_number(buf, cases[i].v, 3), cases[i].three);
    }
}

/* ---- scores by position ---- */

static void contexts(void **state)
{
    static const struct window_list cases[] = {
        {.mode = EVAL_PLAIN, .total = 640, .len = 64, .stride = 64},
        {.mode = EVAL_SLIDING, .total = 640, .len = 64, .stride = 8},
        {.mode = EVAL_SLIDING, .old = true, .total = 640, .len = 64, .stride = 8},
        {.mode = EVAL_SLIDING, .total = 4096, .len = 2048, .stride = 64},
        {.mode = EVAL_SLIDING, .total = 4, .len = 4, .stride = 4},
        {.mode = EVAL_SLIDING, .total = 130, .len = 65, .stride = 65},
        {.mode = EVAL_TTT, .total = 600, .len = 64, .stride = 32},
        {.mode = EVAL_PLAIN, .total = 65536, .len = 65536, .stride = 65536},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct page *p = calloc(1, sizeof *p);
        size_t count = window_scored(&cases[i]), at = 0;
        double *nll = malloc(count * sizeof *nll), tokens = 0, all = 0, sum = 0;
        for (size_t w = 0; w < window_count(&cases[i]); w++) {
            struct window win = window_at(&cases[i], w);
            for (size_t k = win.from; k < win.len; k++)
                sum += nll[at++] = (double)(k + 1);
        }
        page_contexts(p, &cases[i], nll, count);
        assert_true(p->bins > 0 && p->bins <= PAGE_BINS);
        for (size_t b = 0; b < p->bins; b++) {
            const struct page_bin *x = &p->bin[b];
            tokens += x->n;
            all += x->n * x->mean;
            if (!(x->lo <= x->mean && x->mean <= x->hi) ||
                (b && x->lo != x[-1].hi + 1 && x->lo <= x[-1].hi))
                fail_msg("case %zu, bin %zu: %g..%g has mean %g", i, b, x->lo, x->hi, x->mean);
        }
        if (tokens != (double)count || fabs(all - sum) > 1e-6 * sum)
            fail_msg("case %zu: %g of %zu tokens, sum %g of %g", i, tokens, count, all, sum);
        page_parts(p, nll, count);
        tokens = all = 0;
        for (size_t b = 0; b < p->parts; b++) {
            tokens += p->part[b].n;
            all += p->part[b].n * p->part[b].mean;
        }
        if (p->parts && (tokens != (double)count || fabs(all - sum) > 1e-6 * sum))
            fail_msg("case %zu: parts have %g of %zu tokens", i, tokens, count);
        page_contexts(p, &cases[i], nll, count - 1); /* of something else: no picture */
        assert_int_equal(p->bins, 0);
        free(nll);
        free(p);
    }
}

/* ---- pages ---- */

static char *render(const char *name, const struct page *p, const cJSON *root, size_t *n)
{
    struct html h = {0};
    page_render(&h, p, root);
    if (h.failed)
        fail_msg("%s: failed", name);
    assert_int_equal(strlen(h.buf), h.n);
    sound(name, h.buf);
    *n = h.n;
    return h.buf;
}

static cJSON *object(void)
{
    return cJSON_Parse(
        "{\"command\":\"blob\",\"file\":\"x\",\"sections\":[{\"kind\":\"loader\",\"codec\":"
        "\"none\",\"offset\":0,\"size\":2040,\"unpacked_size\":2040,\"xxh64\":\"0\"},"
        "{\"kind\":\"weights\",\"codec\":\"cm\",\"offset\":2040,\"size\":90000,"
        "\"unpacked_size\":200000,\"xxh64\":\"1\"},{\"kind\":\"runner\",\"codec\":\"code\","
        "\"offset\":92040,\"size\":30000,\"unpacked_size\":90000,\"xxh64\":\"2\"}],"
        "\"bytes_total\":122040,\"bytes_limit\":16000000,\"loader\":\"known\",\"runner\":"
        "\"known\",\"byte_table\":\"equal\",\"tokenizer\":\"t.model\",\"mode\":\"sliding\","
        "\"val_loss\":2.5,\"val_bpb\":1.25,\"tokens\":1000,\"bytes\":2500,"
        "\"parameters\":150000,\"claim\":[{\"key\":\"val_bpb\",\"claimed\":\"1.25\","
        "\"measured\":\"1.25000000\",\"confirmed\":true}],\"verdict\":\"verified\","
        "\"reasons\":[]}");
}

/* A page's data: `blocks` blocks of six matrices, a table, gains. */
static struct page *data(size_t blocks, const struct options *o)
{
    static const char *const kind[] = {"attn.c_q",  "attn.c_k", "attn.c_v",
                                       "attn.proj", "mlp.fc",   "mlp.proj"};
    struct page *p = calloc(1, sizeof *p);
    p->o = o;
    p->tensor = calloc(6 * blocks + 2, sizeof *p->tensor);
    for (size_t i = 0; i < 6 * blocks + 2; i++) {
        struct page_tensor *t = &p->tensor[p->tensors++];
        *t = (struct page_tensor){.order = i,
                                  .role = i < 6 * blocks ? (i % 6 < 4 ? ROLE_ATTENTION : ROLE_MLP)
                                          : i < 6 * blocks + 1 ? ROLE_TABLE
                                                               : ROLE_SMALL,
                                  .ndim = 2,
                                  .shape = {64, 64, 1},
                                  .weights = 4096,
                                  .bytes = 2000 - (double)i,
                                  .whole = true,
                                  .lo = -31,
                                  .hi = 31,
                                  .rel = 0.01 * (double)(i + 1),
                                  .rmse = 0.001};
        if (i < 6 * blocks)
            snprintf(t->name, sizeof t->name, "blocks.%zu.%s.weight", i / 6, kind[i % 6]);
        else
            strcpy(t->name, i == 6 * blocks ? "tok_emb.weight" : "skip_weights");
    }
    strcpy(p->codec, "cm");
    strcpy(p->float_path, "model.safetensors");
    p->frame = 500;
    struct window_list l = {.mode = EVAL_SLIDING, .total = 4096, .len = 256, .stride = 64};
    size_t n = window_scored(&l);
    double *nll = malloc(n * sizeof *nll);
    uint64_t seed = 1;
    for (size_t i = 0; i < n; i++)
        nll[i] = 3 + 2 * util_uniform(&seed);
    page_contexts(p, &l, nll, n);
    page_parts(p, nll, n);
    free(nll);
    return p;
}

static void whole(void **state)
{
    const struct options o = {.report = util_path("page.html")};
    struct page *p = data(3, &o);
    cJSON *root = object();
    struct err e = {0};
    size_t n;
    (void)state;
    static const char log[] =
        "step:1/20 train_loss:6\nstep:5/20 train_loss:4\nstep:20/20 val_loss:3.5\n";
    assert_int_equal(page_log_parse(&p->log, log, sizeof log - 1, &e), ERR_OK);
    char *page = render("whole", p, root, &n);
    static const char *const must[] = {"verified",       "1.25",       "122,040",
                                       "tok_emb.weight", "Loss curve", "prefers-color-scheme:dark",
                                       "confirmed",      "viewport",   "Content-Security-Policy"};
    for (size_t i = 0; i < COUNT(must); i++)
        if (!strstr(page, must[i]))
            fail_msg("nothing says %s", must[i]);
    free(page);
    assert_int_equal(page_write(p, root, &e), ERR_OK);
    const struct options nowhere = {.report = "/nonexistent/x.html"};
    p->o = &nowhere;
    assert_int_equal(page_write(p, root, &e), ERR_RESOURCE);
    page_free(p);
    cJSON_Delete(root);
}

static void hostile(void **state)
{
    const struct options o = {.report = "x", .code_map = evil};
    struct page *p = data(2, &o);
    cJSON *root = object(), *reasons = cJSON_GetObjectItem(root, "reasons");
    struct err e = {0};
    size_t n;
    (void)state;
    for (int i = 0; i < 500; i++)
        cJSON_AddItemToArray(reasons, cJSON_CreateString(evil));
    poison(root);
    cJSON_AddItemToObject(root, evil, cJSON_CreateString(evil));
    for (size_t i = 0; i < p->tensors; i++)
        snprintf(p->tensor[i].name, sizeof p->tensor[i].name, i % 2 ? "blocks.%zu.%s" : "x%zu%s", i,
                 evil);
    snprintf(p->float_path, sizeof p->float_path, "%s", evil);
    static const char code[] = "400 <b>&\"'>\n300 \xE2\x80\xAE\x80\n";
    assert_int_equal(code_parse(&p->code, code, sizeof code - 1, &e), ERR_OK);
    assert_int_equal(p->code.n, 2);
    snprintf(p->log_path, sizeof p->log_path, "%s", evil);
    char log[400];
    int len = snprintf(log, sizeof log, "step:1/2 train_loss:3\n<b>%s val_loss:3\n", "</svg>");
    assert_int_equal(page_log_parse(&p->log, log, (size_t)len, &e), ERR_OK);
    free(render("hostile", p, root, &n));
    page_free(p);
    cJSON_Delete(root);
}

static void extremes(void **state)
{
    const struct options o = {.report = "x"};
    static const struct {
        const char *name, *json;
    } cases[] = {
        {"nothing", "{}"},
        {"an array", "[1,2,3]"},
        {"another command",
         "{\"command\":\"record\",\"verdict\":\"claims contradicted\",\"logs\":[{\"a\":1,"
         "\"b\":[1,2]},{\"c\":null}],\"deep\":{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":1"
         "}}}}}},\"mixed\":[1,{\"a\":2},[3]]}"},
        {"no score", "{\"command\":\"blob\",\"verdict\":\"not verified\",\"reasons\":[\"x\"]}"},
        {"wrong kinds",
         "{\"command\":\"blob\",\"sections\":{\"kind\":1},\"bytes_total\":\"many\",\"claim\":"
         "[1,null,\"a\"],\"execution\":[],\"conditions\":3,\"tokens\":[],\"reasons\":7}"},
        {"sections of nonsense",
         "{\"command\":\"blob\",\"bytes_total\":-1,\"bytes_limit\":0,\"sections\":["
         "{\"kind\":\"weights\",\"size\":-5},{\"kind\":\"a\",\"size\":1e300},{}]}"},
        {"far claim",
         "{\"command\":\"blob\",\"bytes_total\":5,\"bytes_limit\":16,\"claim\":[{\"key\":"
         "\"val_bpb\",\"claimed\":\"9999\",\"measured\":\"1\"}]}"},
        {"claim of no number",
         "{\"command\":\"blob\",\"claim\":[{\"key\":\"val_bpb\",\"claimed\":\"a\","
         "\"measured\":\"1e999\"}]}"},
    };
    size_t n;
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        cJSON *root = cJSON_Parse(cases[i].json);
        struct page *p = i % 2 ? data(1, &o) : calloc(1, sizeof *p);
        assert_non_null(root);
        p->o = &o;
        free(render(cases[i].name, p, root, &n));
        page_free(p);
        cJSON_Delete(root);
    }

    /* Values at the ends of what a double can say. */
    struct page *p = data(2, &o);
    cJSON *root = object();
    for (size_t i = 0; i < p->tensors; i++) {
        p->tensor[i].bytes = i % 3 ? 0 : 1e-300;
        p->tensor[i].rel = i % 2 ? INFINITY : NAN;
        p->tensor[i].weights = i % 4 ? 1e9 : 0;
    }
    p->bins = p->parts = 1;
    free(render("extremes", p, root, &n));
    page_free(p);

    /* As many blocks and tensors as are drawn. */
    p = data((PAGE_TENSORS - 2) / 6, &o);
    p->left_out = 1000;
    char *log = malloc(1 << 22);
    size_t len = 0;
    struct err e = {0};
    while (len < (1 << 22) - 64)
        len += (size_t)sprintf(log + len, "step:%zu/999999 train_loss:3.5\n", len + 1);
    assert_int_equal(page_log_parse(&p->log, log, len, &e), ERR_OK);
    free(render("many", p, root, &n));
    if (n > 3 << 20)
        fail_msg("a page of %zu bytes", n);
    free(log);
    page_free(p);
    cJSON_Delete(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text),     cmocka_unit_test(limits), cmocka_unit_test(numbers),
        cmocka_unit_test(contexts), cmocka_unit_test(whole),  cmocka_unit_test(hostile),
        cmocka_unit_test(extremes),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
