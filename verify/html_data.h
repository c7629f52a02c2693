/* html_data.h - what a page is drawn from. Private to verify/html_*.c and their tests. */
#ifndef VERIFY_HTML_DATA_H
#define VERIFY_HTML_DATA_H

#include <stdbool.h>

#include "verify/html_code.h"
#include "verify/html_log.h"
#include "verify/html_page.h"

/* What a tensor is for; decides its colour. */
enum page_role { ROLE_ATTENTION, ROLE_MLP, ROLE_TABLE, ROLE_SMALL, ROLES };

/* A parameter: one tensor of the file, or a quantised one with its scales or exponents. */
struct page_tensor {
    char name[128];
    enum page_role role;
    size_t order; /* its place in the file */
    size_t shape[3], ndim;
    double weights, bytes; /* its number of weights; what it costs in the file */
    bool whole;            /* stored as integers lo..hi */
    int lo, hi;
    double rel;  /* ||w - stored|| / ||w|| against the float model; NAN: not measured */
    double rmse; /* root of the mean squared difference; NAN likewise */
};

/* Scores of tokens with lo to hi tokens of context. */
struct page_bin {
    double lo, hi;
    double n, mean, error; /* nats per token; standard error of the mean, NAN below 2 tokens */
};

enum { PAGE_TENSORS = 1500, PAGE_BINS = 96, PAGE_PARTS = 60, PAGE_PATH = 1024 };

struct page {
    const struct options *o;
    struct page_tensor *tensor;       /* [tensors] in file order; owned */
    size_t tensors, left_out;         /* beyond PAGE_TENSORS */
    double frame;                     /* bytes of the weight section that belong to no tensor */
    bool estimate;                    /* bytes of tensors are estimates */
    char codec[16];                   /* of the weights */
    struct page_bin bin[PAGE_BINS];   /* by context */
    size_t bins, window;              /* window: its length */
    struct page_bin part[PAGE_PARTS]; /* by place in the stream, equally many tokens each */
    size_t parts;
    struct page_log log;
    struct page_code code; /* functions of the runner; n 0: not known */
    double runner;         /* bytes of the runner before compression */
    char log_path[PAGE_PATH], quant_path[PAGE_PATH], float_path[PAGE_PATH]; /* "": none used */
};

/* page_contexts, page_parts - bins of nll[count], which is in the order of the windows of l. For
 * page_blob; open for the tests. */
void page_contexts(struct page *p, const struct window_list *l, const double *nll, size_t count);
void page_parts(struct page *p, const double *nll, size_t count);

#endif
