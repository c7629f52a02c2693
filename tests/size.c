/*
 * size.c - where the bytes of a runner come from, as `packer pack` stores it (stub/size.sh):
 *
 *     nm -n -S UNSTRIPPED | size RUNNER ADDRESS
 *
 * RUNNER is the program that ships, ADDRESS (hexadecimal) where its first byte is loaded;
 * UNSTRIPPED is the same program with its symbols. Prints the stored size of all, then bytes stored
 * and bytes of each function or table, the most expensive first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "packer/code.h"

struct part {
    double stored;
    size_t size;
    char name[64];
};

enum { PARTS_MAX = 4096 };

static int dearest_first(const void *a, const void *b)
{
    double x = ((const struct part *)a)->stored, y = ((const struct part *)b)->stored;
    return (x < y) - (x > y);
}

/* What of [from, from + size) nobody has claimed yet. */
static struct part claim(float *cost, size_t from, size_t size, const char *name)
{
    struct part p = {0, 0, ""};
    snprintf(p.name, sizeof p.name, "%s", name);
    for (size_t i = from; i < from + size; i++) {
        if (cost[i] < 0)
            continue;
        p.stored += (double)cost[i] / 8;
        p.size++;
        cost[i] = -1;
    }
    return p;
}

int main(int argc, char **argv)
{
    static struct part part[PARTS_MAX];
    struct err e = {0};
    struct coded c = {0};
    const void *raw;
    size_t n = 0, parts = 0;
    unsigned long base = argc > 2 ? strtoul(argv[2], NULL, 16) : 0, at, size;
    char name[256], kind;
    if (argc != 3) {
        fputs("size: expected RUNNER ADDRESS\n", stderr);
        return ERR_USAGE;
    }
    enum err_code rc = file_map(argv[1], &raw, &n, &e);
    float *cost = rc ? NULL : malloc(n * sizeof *cost);
    if (!rc && !cost)
        rc = err_nomem(&e, "costs", n * sizeof *cost);
    if (rc || (rc = code_costs(&c, cost, raw, n, &e))) {
        fprintf(stderr, "size: %s\n", e.msg);
        return (int)rc;
    }
    printf("%8zu %8zu  all\n", c.size, n);
    for (char line[512]; fgets(line, sizeof line, stdin) && parts < PARTS_MAX - 1;)
        if (sscanf(line, "%lx %lx %c %255s", &at, &size, &kind, name) == 4 && at >= base &&
            at - base <= n && size <= n - (at - base))
            part[parts++] = claim(cost, at - base, size, name);
    part[parts++] = claim(cost, 0, n, "(headers, texts, constants)");
    qsort(part, parts, sizeof *part, dearest_first);
    puts("  stored    bytes");
    for (size_t i = 0; i < parts; i++)
        if (part[i].size)
            printf("%8.0f %8zu  %s\n", part[i].stored, part[i].size, part[i].name);
    coded_free(&c);
    free(cost);
    file_unmap(raw, n);
    return 0;
}
