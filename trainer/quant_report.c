/* quant_report.c - see quant.h: the table that says what quantisation cost. */
#include <stdlib.h>

#include "trainer/quant.h"

void quant_report_free(struct quant_report *r)
{
    free(r->line);
    rd_report_free(&r->rd);
    *r = (struct quant_report){0};
}

static const char columns_line[] =
    "tensor\tweights\tbits\tbytes\trelative\tdamage\tsensitive\tstep\t"
    "tuned\tplain\tnext_kb\n";

/* Which columns have something in them. */
struct columns {
    bool by, pct, trace, pruned;
};

static struct columns columns_of(const struct quant_report *r)
{
    struct columns c = {.pruned = r->total.pruned > 0};
    for (size_t i = 0; i < r->count; i++) {
        const struct quant_line *l = &r->line[i];
        c.by |= l->by == QUANT_BY_GPTQ || l->by == QUANT_BY_FALLBACK;
        c.pct |= l->pct >= 0;
        c.trace |= l->sensitivity > 0;
    }
    return c;
}

static void print_head(const struct columns *c, FILE *out)
{
    fprintf(out, "%-32s %4s %10s %10s %8s %8s %8s", "tensor", "bits", "weights", "mse", "relative",
            "entropy", "at edge");
    if (c->by)
        fprintf(out, " %-8s", "by");
    if (c->pct)
        fprintf(out, " %7s", "clip");
    if (c->trace)
        fprintf(out, " %10s", "trace");
    if (c->pruned)
        fprintf(out, " %8s", "pruned");
    fputc('\n', out);
}

static void print_line(const struct columns *c, const struct quant_line *l, FILE *out)
{
    static const char *const by[] = {
        [QUANT_BY_NOTHING] = "-",
        [QUANT_BY_SEARCH] = "search",
        [QUANT_BY_GPTQ] = "gptq",
        [QUANT_BY_FALLBACK] = "fallback",
    };
    fprintf(out, "%-32s %4u %10zu %10.3e %8.5f", l->name, l->bits, l->numel, l->mse, l->rel);
    if (l->bits == 16)
        fprintf(out, " %8s %8s", "-", "-");
    else
        fprintf(out, " %8.3f %7.2f%%", l->entropy, 100 * l->at_edge);
    if (c->by)
        fprintf(out, " %-8s", by[l->by]);
    if (c->pct && l->pct >= 0)
        fprintf(out, " %7g", 100 * quant_pct[l->pct]);
    else if (c->pct)
        fprintf(out, " %7s", "-");
    if (c->trace && l->sensitivity > 0)
        fprintf(out, " %10.4e", l->sensitivity);
    else if (c->trace)
        fprintf(out, " %10s", "-");
    if (c->pruned)
        fprintf(out, " %8zu", l->pruned);
    fputc('\n', out);
}

static void print_pruning(const struct quant_report *r, FILE *out)
{
    const struct prune_result *p = &r->prune;
    unsigned long long target = r->prune_target, before = p->before, after = p->after;
    if (r->prune_left_out) {
        fprintf(out, "pruning to %llu bytes: left out, `packer quantize` does it\n", target);
        return;
    }
    fprintf(out,
            "pruning: file and code %llu bytes, target %llu, %zu of %zu integers of +-1 zeroed",
            before, target, p->pruned, p->candidates);
    if (p->pruned && after)
        fprintf(out, ", then %llu bytes%s", after, after > target ? ", still too many" : "");
    fputc('\n', out);
}

/* x with enough digits, or "-" for nothing. */
static void print_field(FILE *out, double x, bool known)
{
    if (known)
        fprintf(out, "\t%.9g", x);
    else
        fputs("\t-", out);
}

static void write_rd(const struct rd_report *r, FILE *out)
{
    fprintf(out, "# quantizer\trd\n# target\t%llu\n# bytes\t%llu\n# measured\t%d\n",
            (unsigned long long)r->target, (unsigned long long)r->bytes, r->measured);
    fprintf(out, "# kl\t%.9g\n# damage\t%.9g\n# next_kb\t%.9g\n%s", r->kl, r->damage,
            rd_report_gain(r), columns_line);
    for (size_t i = 0; i < r->count; i++) {
        const struct rd_line *l = &r->line[i];
        bool coded = l->bits < 16;
        fprintf(out, "%s\t%zu\t%.6g\t%.0f", l->name, l->numel, l->bits, l->bytes);
        const double field[] = {l->rel, l->damage, l->sense, l->step, l->tuned, l->plain, l->gain};
        for (size_t j = 0; j < sizeof field / sizeof *field; j++)
            print_field(out, field[j], coded);
        fputc('\n', out);
    }
}

static void write_record(const struct quant_report *r, FILE *out)
{
    fprintf(out, "# quantizer\trecord\n%s", columns_line);
    for (size_t i = 0; i < r->count; i++) {
        const struct quant_line *l = &r->line[i];
        bool coded = l->bits < 16;
        double scales = coded ? 2 * (double)l->rows : 0;
        fprintf(out, "%s\t%zu\t%.6g\t%.0f", l->name, l->numel, l->entropy,
                l->entropy * (double)l->numel / 8 + scales);
        print_field(out, l->rel, coded);
        print_field(out, 0, false);
        print_field(out, l->sensitivity, l->sensitivity > 0);
        fputs("\t-\t-\t-\t-\n", out);
    }
}

void quant_report_write(const struct quant_report *r, FILE *out)
{
    fputs("# pgolf quantisation 1\n", out);
    if (r->rd.line)
        write_rd(&r->rd, out);
    else
        write_record(r, out);
}

void quant_report_print(const struct quant_report *r, FILE *out)
{
    struct columns c = columns_of(r);
    if (r->rd.line) {
        rd_report_print(&r->rd, out);
        return;
    }
    print_head(&c, out);
    for (size_t i = 0; i < r->count; i++)
        print_line(&c, &r->line[i], out);
    if (r->total.numel)
        fprintf(out, "%-32s %4s %10zu %10.3e %8.5f %8.3f %7.2f%%\n", "all quantised", "",
                r->total.numel, r->total.mse, r->total.rel, r->total.entropy,
                100 * r->total.at_edge);
    if (r->prune_target)
        print_pruning(r, out);
    fprintf(out, "%llu parameters, %llu bytes before coding, %.0f at the order-0 entropy\n",
            (unsigned long long)r->numel, (unsigned long long)r->raw_bytes, r->coded_bytes);
}
