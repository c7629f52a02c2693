/* fit.c - see fit.h. */
#include "packer/fit.h"

#include <stdlib.h>

#include "model/safetensors.h"
#include "packer/cm.h"
#include "packer/payload.h"
#include "stub/embed.h"

void fit_init(struct fit *f, const char *weights)
{
    *f = (struct fit){.job = {.weights = weights,
                              .codec = CODEC_CM,
                              .loader = stub_loader,
                              .loader_n = (size_t)(stub_loader_end - stub_loader),
                              .runner = stub_runner,
                              .runner_n = (size_t)(stub_runner_end - stub_runner),
                              .runner_full = stub_runner_full,
                              .runner_full_n = (size_t)(stub_runner_full_end - stub_runner_full)}};
}

enum err_code fit_size(void *fit, const struct recipe *r, const struct tensor_view *t, size_t n,
                       uint64_t *bytes, struct err *e)
{
    struct fit *f = fit;
    uint8_t *raw = NULL;
    size_t raw_n, coded;
    (void)r;
    enum err_code rc = f->rest ? ERR_OK : pack_rest(&f->job, &f->rest, e);
    if (rc || !t)
        return rc;
    /* payload_new only reads the tensors */
    const struct st_file file = {.tensor = (struct tensor_view *)t, .count = n};
    if (!(rc = payload_new(&raw, &raw_n, &file, f->job.weights, e)) &&
        !(rc = cm_size(&coded, raw, raw_n, e)))
        *bytes = f->rest + coded;
    free(raw);
    return rc;
}
