/* shard.c - one shard; see shard.h. Lists of them: shard_list.c. */
#include "model/shard.h"

#include <string.h>

#include "model/file.h"
#include "model/reader.h"

static enum err_code check(struct shard *s, const char *path, size_t vocab, struct err *e)
{
    struct reader r = reader_init(s->map, s->map_bytes);
    uint32_t magic = 0, version = 0, count = 0;
    if (!IN_RUNNER || s->map_bytes >= SHARD_HEADER) { /* a runner's reader does not look */
        magic = reader_u32(&r);
        version = reader_u32(&r);
        count = reader_u32(&r);
    }
    bool wrong = s->map_bytes < SHARD_HEADER || magic != SHARD_MAGIC || version != SHARD_VERSION;
    if (IN_RUNNER && wrong) /* short, as in every submission */
        return err_set(e, ERR_INPUT, "%s: not a token shard", path);
    if (wrong && s->map_bytes < SHARD_HEADER)
        return err_set(e, ERR_INPUT, "%s: not a token shard: %zu bytes, its header alone has %d",
                       path, s->map_bytes, SHARD_HEADER);
    if (wrong)
        return err_set(e, ERR_INPUT,
                       "%s: not a token shard: magic %u version %u, expected %u and %u", path,
                       magic, version, SHARD_MAGIC, SHARD_VERSION);
    if (IN_RUNNER && s->map_bytes - SHARD_HEADER != 2 * (size_t)count)
        return err_set(e, ERR_INPUT, "%s: header says %u tokens", path, count);
    if (s->map_bytes - SHARD_HEADER != 2 * (size_t)count)
        return err_set(e, ERR_INPUT, "%s: header says %u tokens, file holds %zu bytes of them",
                       path, count, s->map_bytes - SHARD_HEADER);
    if (!count)
        return err_set(e, ERR_INPUT, "%s: holds no tokens", path);
    s->tok = (const uint16_t *)((const uint8_t *)s->map + SHARD_HEADER);
    s->n = count;
    for (size_t i = 0; vocab && i < s->n; i++)
        if (s->tok[i] >= vocab)
            return err_set(e, ERR_INPUT, "%s: token %zu is %u, the vocabulary has %zu", path, i,
                           (unsigned)s->tok[i], vocab);
    return ERR_OK;
}

enum err_code shard_open(struct shard *s, const char *path, size_t vocab, struct err *e)
{
    enum err_code rc;
    memset(s, 0, sizeof *s);
    if ((rc = file_map(path, &s->map, &s->map_bytes, e)))
        return rc;
    if ((rc = check(s, path, vocab, e)))
        shard_close(s);
    return rc;
}

void shard_close(struct shard *s)
{
    file_unmap(s->map, s->map_bytes);
    memset(s, 0, sizeof *s);
}
