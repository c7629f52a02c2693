/* rd_report.c - see rd_report.h. */
#include "trainer/rd_report.h"

#include <stdlib.h>

void rd_report_free(struct rd_report *r)
{
    free(r->line);
    *r = (struct rd_report){0};
}

double rd_report_gain(const struct rd_report *r)
{
    const double ln4 = 0x1.62e42fefa39efp+0;
    return r->numel ? r->kl * ln4 * 8000 / (double)r->numel : 0;
}

void rd_report_print(const struct rd_report *r, FILE *out)
{
    unsigned long long bytes = r->bytes, target = r->target;
    fprintf(out, "%-32s %10s %6s %8s %10s %10s %10s %6s %7s %10s\n", "tensor", "weights", "bits",
            "relative", "damage", "sensitive", "step", "tuned", "plain", "next KB");
    for (size_t i = 0; i < r->count; i++) {
        const struct rd_line *l = &r->line[i];
        if (l->bits >= 16)
            continue;
        fprintf(out, "%-32s %10zu %6.3f %8.5f %10.3e %10.3e %10.3e %6.2f %6.1f%% %10.3e\n", l->name,
                l->numel, l->bits, l->rel, l->damage, l->sense, l->step, l->tuned, 100 * l->plain,
                l->gain);
    }
    fprintf(out, "%llu weights at %.3f bits, %llu as fp16\n", (unsigned long long)r->numel, r->bits,
            (unsigned long long)r->half);
    fprintf(out, "divergence from the float model: %.6f nats per token measured, %.6f estimated\n",
            r->kl, r->damage);
    fprintf(out, "another 1000 bytes would take %.2e nats per token away\n", rd_report_gain(r));
    fprintf(out, "file: %llu bytes%s, target %llu", bytes, r->measured ? "" : " (estimate)",
            target);
    if (r->finest)
        fprintf(out, "; its steps cannot be finer\n");
    else
        fprintf(out, ", %lld left\n", (long long)(r->target - r->bytes));
}
