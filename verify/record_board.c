/* record_board.c - see record_board.h, and record_check_board of record.h. */
#include "verify/record_board.h"

#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "model/file.h"
#include "verify/record.h"
#include "verify/record_line.h"

enum { COLUMNS = 16 };

/* Cells of "| a | b |"; returns how many. */
static size_t cells(struct line l, struct line *cell)
{
    size_t n = 0, from;
    if (!l.n || l.s[0] != '|')
        return 0;
    for (size_t i = from = 1; i < l.n && n < COLUMNS; i++)
        if (l.s[i] == '|') {
            cell[n++] = (struct line){l.s + from, i - from};
            from = i + 1;
        }
    return n;
}

/* Target of the last [text](target) in a cell. */
static void link_of(struct line cell, char *out, size_t cap)
{
    size_t from = SIZE_MAX;
    *out = 0;
    for (size_t at = 0; (at = line_find(cell, "](", at)) != SIZE_MAX;)
        from = at;
    if (from == SIZE_MAX)
        return;
    size_t to = from;
    while (to < cell.n && cell.s[to] != ')')
        to++;
    line_copy(cell, from, to, out, cap);
}

void board_parse(struct board *b, const char *path, const char *text, size_t n)
{
    struct line l, cell[COLUMNS];
    size_t at = 0, line = 1, table = SIZE_MAX, run = 0, score = 0, author = 0, date = 0, info = 0;
    bool open = false;
    b->rows = 0;
    snprintf(b->path, sizeof b->path, "%s", path);
    for (; line_next(text, n, &at, &l); line++) {
        size_t k = cells(l, cell);
        char name[BOARD_TEXT];
        struct line_number v;
        if (k < 2) {
            open = false;
            continue;
        }
        if (!open) {
            bool has_run = false, has_score = false;
            author = date = info = SIZE_MAX;
            for (size_t i = 0; i < k; i++) {
                line_copy(cell[i], 0, cell[i].n, name, sizeof name);
                if (!strcasecmp(name, "Run"))
                    run = i, has_run = true;
                else if (!strcasecmp(name, "Score"))
                    score = i, has_score = true;
                else if (!strcasecmp(name, "Author"))
                    author = i;
                else if (!strcasecmp(name, "Date"))
                    date = i;
                else if (!strcasecmp(name, "Info"))
                    info = i;
            }
            open = has_run && has_score;
            table += open;
            continue;
        }
        if (run >= k || score >= k || b->rows == BOARD_ROWS || !line_number(cell[score], 0, &v))
            continue; /* the line of dashes */
        struct board_row *r = &b->row[b->rows++];
        int decimals = v.decimals;
        for (size_t end = v.end; decimals && cell[score].s[end - 1] == '0'; end--)
            decimals--;
        *r = (struct board_row){.score = v.v, .decimals = decimals, .line = line, .table = table};
        line_copy(cell[run], 0, cell[run].n, r->run, sizeof r->run);
        if (author < k)
            line_copy(cell[author], 0, cell[author].n, r->author, sizeof r->author);
        if (date < k)
            line_copy(cell[date], 0, cell[date].n, r->date, sizeof r->date);
        if (info < k)
            link_of(cell[info], r->link, sizeof r->link);
    }
}

static enum err_code read_board(struct board *b, const char *path, struct err *e)
{
    const void *data;
    size_t n;
    enum err_code rc = file_map(path, &data, &n, e);
    if (rc)
        return rc;
    if (n <= 4 << 20)
        board_parse(b, path, data, n);
    file_unmap(data, n);
    return ERR_OK;
}

enum err_code board_load(struct board *b, const char *path, struct err *e)
{
    enum err_code rc = read_board(b, path, e);
    if (!rc && !b->rows)
        rc = err_set(e, ERR_INPUT, "%s: no table with the columns Run and Score", path);
    return rc;
}

void board_near(struct board *b, const char *dir)
{
    char real[PATH_MAX], path[PATH_MAX + 16];
    b->rows = 0;
    if (!realpath(dir, real))
        return;
    for (int level = 0; level < 4 && !b->rows; level++) {
        char *slash = strrchr(real, '/');
        if (!slash || slash == real)
            return;
        *slash = 0;
        snprintf(path, sizeof path, "%s/README.md", real);
        struct err none = {0};
        if (read_board(b, path, &none))
            b->rows = 0;
    }
}

/* Is the name one of the folders of the link? */
static bool links_to(const char *link, const char *folder)
{
    size_t n = strlen(folder);
    for (const char *p = link; n && (p = strstr(p, folder)); p++)
        if ((p == link || p[-1] == '/') && (p[n] == '/' || !p[n]))
            return true;
    return false;
}

const struct board_row *board_row_of(const struct board *b, const char *folder, const char *author,
                                     const char *github_id, double bpb)
{
    for (size_t i = 0; i < b->rows; i++)
        if (links_to(b->row[i].link, folder))
            return &b->row[i];
    for (size_t i = 0; i < b->rows; i++) {
        const struct board_row *r = &b->row[i];
        bool by = (*author && !strcasecmp(author, r->author)) ||
                  (*github_id && !strcasecmp(github_id, r->author));
        if (by && strstr(r->link, "/pull/") && fabs(r->score - bpb) < RECORD_README_TOL)
            return r;
    }
    return NULL;
}

const struct board_row *board_before(const struct board *b, const struct board_row *row)
{
    const struct board_row *next = row + 1;
    return row && next < b->row + b->rows && next->table == row->table ? next : NULL;
}

void record_check_board(struct record *r)
{
    double bpb = r->meta.bpb.have ? r->meta.bpb.v : r->bpb.mean;
    if (!r->board.rows)
        return;
    r->row = board_row_of(&r->board, r->folder.name, r->meta.author, r->meta.github_id, bpb);
    if (!r->row)
        record_find(r, RC_NOT_ON_BOARD, NULL, 0, "no row for this folder in %s", r->board.path);
    else if (r->meta.bpb.have &&
             fabs(r->row->score - r->meta.bpb.v) > 0.50001 * pow(10, -r->row->decimals))
        record_find(r, RC_BOARD, r->meta.path, r->meta.bpb.line,
                    "the leaderboard says %.10g (line %zu), the metadata %.10g", r->row->score,
                    r->row->line, r->meta.bpb.v);
}
