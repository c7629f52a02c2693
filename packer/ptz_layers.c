/* ptz_layers.c - see ptz_layers.h. */
#include "packer/ptz_layers.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packer/byteshuffle.h"

/* What a step finds at the front. */
struct step {
    size_t mark; /* bytes of a mark, skipped */
    enum ptz_codec codec;
};

static void say(struct ptz_layers *l, const char *what)
{
    size_t at = strlen(l->text);
    snprintf(l->text + at, sizeof l->text - at, "%s%s", at ? ", " : "", what);
}

/* The new payload takes the place of the one before. */
static void own(struct ptz_layers *l, uint8_t *data, size_t n)
{
    free(l->owned);
    l->owned = data;
    l->data = data;
    l->n = n;
}

static enum err_code unshuffle(struct ptz_layers *l, struct err *e)
{
    char text[24];
    size_t n = l->n - BYTESHUFFLE_HEADER;
    uint8_t *fresh = malloc(n + 1);
    if (!fresh)
        return err_nomem(e, "payload", n);
    l->stride = l->data[4];
    snprintf(text, sizeof text, "byte shuffle %u", l->stride);
    say(l, text);
    byteunshuffle(fresh, l->data, l->n);
    own(l, fresh, n);
    return ERR_OK;
}

static enum err_code expand(struct ptz_layers *l, struct step s, size_t limit, const char *path,
                            struct err *e)
{
    char text[24];
    uint8_t *fresh;
    size_t n;
    enum err_code rc =
        ptz_expand(&fresh, &n, s.codec, l->data + s.mark, l->n - s.mark, limit, path, e);
    if (rc)
        return rc;
    if (s.mark == 1)
        snprintf(text, sizeof text, "mark %u", l->data[0]);
    else if (s.mark)
        snprintf(text, sizeof text, "mark %.4s", (const char *)l->data);
    if (s.mark)
        say(l, text);
    say(l, ptz_codec_name(s.codec));
    if (l->codec == PTZ_RAW)
        l->codec = s.codec;
    own(l, fresh, n);
    return ERR_OK;
}

/* A mark and what it says, where the data agree. */
static bool marked(struct step *s, const uint8_t *p, size_t n)
{
    static const struct {
        char text[5];
        enum ptz_codec codec;
    } words[] = {{"ZSTD", PTZ_ZSTD}, {"ZLIB", PTZ_ZLIB}, {"LZMA", PTZ_LZMA}, {"BROT", PTZ_BROTLI}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (n > 4 && !memcmp(p, words[i].text, 4)) {
            bool alone = ptz_codec_guess(p + 4, n - 4) == PTZ_LZMA_ALONE;
            *s = (struct step){4, words[i].codec};
            if (s->codec == PTZ_LZMA && alone)
                s->codec = PTZ_LZMA_ALONE;
            return true;
        }
    enum ptz_codec behind = n > 1 ? ptz_codec_guess(p + 1, n - 1) : PTZ_RAW;
    *s = (struct step){1, behind};
    return n > 1 && ((p[0] == 0 && behind == PTZ_LZMA) || (p[0] == 2 && behind == PTZ_ZSTD));
}

/* Compressors without a magic number, the likely ones first. The failure reported is brotli's,
 * unless brotli was only one more thing to try inside another layer. */
static enum err_code guess(struct ptz_layers *l, size_t limit, const char *path, struct err *e)
{
    static const struct step steps[] = {{0, PTZ_BROTLI}, {0, PTZ_LZMA_RAW}, {1, PTZ_BROTLI}};
    struct err first = {0};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct ptz_layers trial = {.data = l->data, .n = l->n};
        struct err why = {0};
        if (steps[i].mark && (l->n < 2 || l->data[0] != 1))
            continue;
        /* The first chunk of LZMA2 resets the dictionary: plain (1), or compressed with new
         * properties. */
        if (steps[i].codec == PTZ_LZMA_RAW && l->data[0] != 1 && l->data[0] < 0xe0)
            continue;
        enum err_code rc = expand(&trial, steps[i], limit, path, &why);
        if (rc == ERR_RESOURCE)
            return err_set(e, rc, "%s", why.msg);
        if (!rc && ptz_codec_guess(trial.data, trial.n) != PTZ_BROTLI) {
            say(l, trial.text);
            if (l->codec == PTZ_RAW)
                l->codec = trial.codec;
            own(l, trial.owned, trial.n);
            return ERR_OK;
        }
        free(trial.owned);
        if (!i && rc)
            first = why;
    }
    if (first.code && !*l->text)
        return err_set(e, first.code, "%s", first.msg);
    return err_set(e, ERR_INPUT,
                   "%s: neither a zip archive nor a pickle nor a NumPy array inside %s", path,
                   *l->text ? l->text : "brotli");
}

enum err_code ptz_layers_peel(struct ptz_layers *l, const uint8_t *data, size_t n, size_t limit,
                              const char *path, struct err *e)
{
    *l = (struct ptz_layers){.data = data, .n = n};
    enum err_code rc = ERR_OK;
    for (unsigned layer = 0; !rc; layer++) {
        struct step s = {0, ptz_codec_guess(l->data, l->n)};
        bool shuffled = byteshuffle_is(l->data, l->n);
        if ((s.codec == PTZ_RAW && !shuffled) || !l->n)
            break;
        if (layer == PTZ_LAYERS)
            rc = err_set(e, ERR_INPUT, "%s: more than %d layers around the weights (%s)", path,
                         PTZ_LAYERS, l->text);
        else if (shuffled)
            rc = unshuffle(l, e);
        else if (s.codec != PTZ_BROTLI || marked(&s, l->data, l->n))
            rc = expand(l, s, limit, path, e);
        else
            rc = guess(l, limit, path, e);
    }
    if (rc)
        ptz_layers_free(l);
    return rc;
}

void ptz_layers_free(struct ptz_layers *l)
{
    free(l->owned);
    *l = (struct ptz_layers){0};
}
