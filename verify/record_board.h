/*
 * record_board.h - the leaderboard: rows of the table in the challenge's README.
 */
#ifndef VERIFY_RECORD_BOARD_H
#define VERIFY_RECORD_BOARD_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/err.h"

enum { BOARD_ROWS = 512, BOARD_TEXT = 128 };

struct board_row {
    char run[BOARD_TEXT], author[BOARD_TEXT], link[256], date[16];
    double score;
    int decimals; /* of the score, without zeros at the end */
    size_t line;
    size_t table; /* 0: the first table (records), 1: the second (non-record), ... */
};

struct board {
    char path[512];
    struct board_row row[BOARD_ROWS];
    size_t rows;
};

/*
 * board_parse - rows of every table whose head has the columns Run and Score. `path` names the
 * text. Text without such a table gives no rows.
 */
void board_parse(struct board *b, const char *path, const char *text, size_t n);

/* board_near - the leaderboard in README.md of a folder above `dir` (up to four levels). rows is 0
 * when there is none. */
void board_near(struct board *b, const char *dir);

/* board_load - from this file; ERR_INPUT when it cannot be read or holds no table. */
enum err_code board_load(struct board *b, const char *path, struct err *e);

/*
 * board_row_of - the row of a record: the one that links to its folder; else, of rows that link
 * elsewhere (to a pull request), the one by this author with this score.
 */
const struct board_row *board_row_of(const struct board *b, const char *folder, const char *author,
                                     const char *github_id, double bpb);

/* board_before - the row below in the same table: the best score at the time, when the table is
 * sorted. NULL: none. */
const struct board_row *board_before(const struct board *b, const struct board_row *row);

#endif
