/*
 * html_nomem_test - guards against a page that is written although a piece of it is missing: the
 * n-th allocation fails, for all n, in reading a log, in costing tensors, and in drawing a page.
 */
#include <cjson/cJSON.h>

#include "packer/codec.h"
#include "packer/payload.h"
#include "tests/unit/util.h"
#include "verify/html.h"
#include "verify/html_cost.h"
#include "verify/html_data.h"
#include "verify/html_record.h"

static size_t fail_at; /* the how manieth allocation from now fails; 0: none */

/* Sanitizers bring their own malloc and skip this test. */
#ifndef __SANITIZE_ADDRESS__
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t count, size_t n);
extern void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n)
{
    return fail_at && --fail_at == 0 ? NULL : __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    return fail_at && --fail_at == 0 ? NULL : __libc_calloc(count, n);
}

void *realloc(void *p, size_t n)
{
    return fail_at && --fail_at == 0 ? NULL : __libc_realloc(p, n);
}
#endif

enum { MOST = 400 };

static void logs(void **state)
{
    static const char text[] =
        "step:1/9 train_loss:3\nstep:2/9 train_loss:3\nstep:3/9 train_loss:3\n"
        "step:3/9 val_loss:3\ntensor relative bits\na 0.1 2\nb 0.2 3\nc 1 1\n";
    size_t k = 1;
    (void)state;
    for (; k < MOST; k++) {
        struct page_log l = {0};
        struct err e = {0};
        fail_at = k;
        enum err_code rc = page_log_parse(&l, text, sizeof text - 1, &e);
        bool done = fail_at != 0;
        fail_at = 0;
        page_log_free(&l);
        if (done) {
            assert_int_equal(rc, ERR_OK);
            break;
        }
        assert_int_equal(rc, ERR_RESOURCE);
    }
    assert_true(k > 3 && k < MOST);
}

static void costs(void **state)
{
    static const int8_t q[256] = {1, -2, 3};
    struct tensor_view t = {"a.q", ST_I8, 2, {16, 16}, (const uint8_t *)q, 256};
    const struct st_file f = {.tensor = &t, .count = 1};
    struct coded c = {0};
    struct err e = {0};
    uint8_t *p;
    size_t n, k = 1;
    (void)state;
    assert_int_equal(payload_new(&p, &n, &f, "test", &e), ERR_OK);
    assert_int_equal(coded_range(&c, p, n, &e), ERR_OK);
    struct blob_section s = {.codec = c.codec, .size = c.size, .raw_size = n, .data = c.data};
    memcpy(s.params, c.params, sizeof s.params);
    for (; k < MOST; k++) {
        double *cost = NULL;
        size_t count;
        bool estimate;
        e = (struct err){0};
        fail_at = k;
        enum err_code rc = cost_tensors(&s, p, &cost, &count, &estimate, &e);
        bool done = fail_at != 0;
        fail_at = 0;
        free(cost);
        if (done) {
            assert_int_equal(rc, ERR_OK);
            break;
        }
        assert_int_equal(rc, ERR_RESOURCE);
    }
    assert_true(k > 3 && k < MOST);
    coded_free(&c);
    free(p);
}

static void pages(void **state)
{
    struct page *p = calloc(1, sizeof *p);
    cJSON *root =
        cJSON_Parse("{\"command\":\"blob\",\"bytes_total\":9,\"bytes_limit\":99,\"sections\":[{"
                    "\"kind\":\"weights\",\"size\":9}]}");
    (void)state;
    p->tensor = calloc(1, sizeof *p->tensor);
    *p->tensor = (struct page_tensor){.role = ROLE_MLP, .weights = 100, .bytes = 9, .rel = 0.1};
    strcpy(p->tensor->name, "blocks.0.mlp.fc.weight");
    strcpy(p->float_path, "x");
    p->tensors = 1;
    for (int which = 0; which < 2; which++) {
        size_t k = 1;
        for (; k < MOST; k++) {
            struct html h = {0};
            fail_at = k;
            if (which)
                page_record_render(&h, root);
            else
                page_render(&h, p, root);
            bool done = fail_at != 0;
            fail_at = 0;
            if (h.failed == done)
                fail_msg("page %d, allocation %zu: %s", which, k, done ? "failed" : "did not fail");
            html_free(&h);
            if (done)
                break;
        }
        assert_true(k > 1 && k < MOST);
    }
    cJSON_Delete(root);
    page_free(p);
}

int main(void)
{
#ifdef __SANITIZE_ADDRESS__
    puts("skip html_nomem_test: the sanitizer has its own malloc");
    (void)fail_at;
    (void)logs;
    (void)costs;
    (void)pages;
    return 0;
#else
    const struct CMUnitTest tests[] = {cmocka_unit_test(logs), cmocka_unit_test(costs),
                                       cmocka_unit_test(pages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
#endif
}
