/* corpus.c - see corpus.h. */
#include "trainer/corpus.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/file.h"
#include "trainer/hash.h"

/* ---- tokeniser ---- */

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

/* The fitting *.model of a directory into c->bytes and c->tokenizer; `found` counts them. A file
 * that is no tokeniser, or one of another size, does not fit and is no error here. */
static enum err_code look_in(struct corpus *c, const char *dir, size_t vocab, size_t *found,
                             struct err *e)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    *found = 0;
    while (d && (entry = readdir(d))) {
        char path[sizeof c->tokenizer];
        struct byte_table b;
        struct err ignored = {0};
        int n = snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (n < 0 || (size_t)n >= sizeof path || !ends_with(entry->d_name, ".model") ||
            bytes_from_tokenizer(&b, path, &ignored))
            continue;
        if (b.vocab != vocab || *found) {
            *found += b.vocab == vocab;
            bytes_free(&b);
            continue;
        }
        *found = 1;
        c->bytes = b;
        memcpy(c->tokenizer, path, sizeof path);
    }
    if (d)
        closedir(d);
    if (*found > 1)
        return err_set(e, ERR_INPUT,
                       "%s: %zu tokenisers of %zu pieces; choose with TOKENIZER_PATH=", dir, *found,
                       vocab);
    return ERR_OK;
}

static enum err_code find_tokenizer(struct corpus *c, const struct recipe *r, struct err *e)
{
    static const char *const above[] = {"", "/../tokenizers", "/../../tokenizers"};
    size_t vocab = (size_t)r->vocab_size, found = 0;
    enum err_code rc;
    if (r->tokenizer_path[0]) {
        snprintf(c->tokenizer, sizeof c->tokenizer, "%s", r->tokenizer_path);
        if ((rc = bytes_from_tokenizer(&c->bytes, c->tokenizer, e)))
            return rc;
        if (c->bytes.vocab != vocab)
            return err_set(e, ERR_INPUT, "%s: %zu pieces, but VOCAB_SIZE=%zu", c->tokenizer,
                           c->bytes.vocab, vocab);
        return ERR_OK;
    }
    for (size_t i = 0; i < sizeof above / sizeof above[0]; i++) {
        char dir[RECIPE_STR + 32];
        snprintf(dir, sizeof dir, "%s%s", r->data_path, above[i]);
        if ((rc = look_in(c, dir, vocab, &found, e)) || found)
            return rc;
    }
    return err_set(
        e, ERR_INPUT,
        "%s: no tokeniser (*.model of %zu pieces) in it or in tokenizers/ above it; bits "
        "per byte need one, set TOKENIZER_PATH=",
        r->data_path, vocab);
}

static enum err_code hash_tokenizer(struct corpus *c, struct err *e)
{
    const void *data;
    size_t n;
    enum err_code rc = file_map(c->tokenizer, &data, &n, e);
    if (rc)
        return rc;
    hash_hex(hash_bytes(data, n, 0), c->tokenizer_xxh64);
    file_unmap(data, n);
    return ERR_OK;
}

/* ---- tokens ---- */

/* Having no data is the first thing that a new user meets: say what to do about it. */
static enum err_code check_dir(const struct recipe *r, struct err *e)
{
    struct stat st;
    if (stat(r->data_path, &st) != 0 || !S_ISDIR(st.st_mode))
        return err_set(e, ERR_INPUT,
                       "%s: no such directory (DATA_PATH); `make demo` prepares text as shards, "
                       "docs/data.md says how to get others",
                       r->data_path);
    return ERR_OK;
}

enum err_code corpus_open(struct corpus *c, const struct recipe *r, struct err *e)
{
    size_t vocab = (size_t)r->vocab_size;
    enum err_code rc;
    *c = (struct corpus){0};
    if ((rc = check_dir(r, e)) || (rc = loader_open(&c->train, r, r->data_path, e)) ||
        (rc = shard_load(&c->val, &c->nval, r->data_path, "val", vocab, 0, e)) ||
        (rc = find_tokenizer(c, r, e)) || (rc = hash_tokenizer(c, e)))
        corpus_close(c);
    return rc;
}

void corpus_close(struct corpus *c)
{
    loader_close(&c->train);
    free(c->val);
    bytes_free(&c->bytes);
    *c = (struct corpus){0};
}
