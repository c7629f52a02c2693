/*
 * record_line.h - finding numbers in the lines of a training log.
 *
 * A line is a view that ends where its newline was. Keys are looked for as words: "val_loss" is not
 * found in "pre_quant_val_loss". Values must begin with a digit, so that the f-strings of a script
 * that was printed into the log never match.
 */
#ifndef VERIFY_RECORD_LINE_H
#define VERIFY_RECORD_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct line {
    const char *s; /* not NUL-terminated */
    size_t n;
};

/* line_next - the line at *at of text[0..n), without newline and carriage return; moves *at behind
 * it. False at the end of the text. */
bool line_next(const char *text, size_t n, size_t *at, struct line *l);

/*
 * line_bare - the line without what loggers put in front: seconds since 1970, dates and times,
 * [hh:mm:ss], [rank0], "INFO -", and blanks. Repeats until nothing is left to take.
 */
struct line line_bare(struct line l);

/* line_starts - does the line begin with this text? */
bool line_starts(struct line l, const char *s);

/* line_find - offset behind the first `s` in the line at or behind `from`, SIZE_MAX when there is
 * none. line_word: only where neither neighbour is a letter, digit or underscore. line_has: is it
 * there at all, letter case ignored. */
size_t line_find(struct line l, const char *s, size_t from);
size_t line_word(struct line l, const char *s, size_t from);
bool line_has(struct line l, const char *s);

/* A number as it was written. */
struct line_number {
    double v;
    int decimals; /* digits behind the point */
    size_t end;   /* offset behind it */
};

/* line_number - a number [-+]digits[.digits][e..] at offset `at`, blanks in front allowed. Commas
 * between groups of three digits belong to it. False where no digit comes, and for 1e15 and more.
 */
bool line_number(struct line l, size_t at, struct line_number *out);

/* line_value - the number behind `key` and one of : or =, as in "val_loss:2.07", "bpb=1.1",
 * "train_time: 599623ms". The key must be a word. */
bool line_value(struct line l, const char *key, struct line_number *out);

/* line_step - "step:100/20000" or "100/20000" at the start: a line of training, and its step. */
bool line_step(struct line l, uint64_t *step);

/* line_copy - the text [from, to) without blanks at its ends, cut to cap - 1 bytes; bytes that are
 * no printable ASCII become '?'. Returns out. */
char *line_copy(struct line l, size_t from, size_t to, char *out, size_t cap);

#endif
