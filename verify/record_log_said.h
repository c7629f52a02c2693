/*
 * record_log_said.h - BPB in lines of a log that are read as no result.
 *
 * A claim may rest on a line whose label is nobody else's. Such a line confirms nothing, because
 * what it measures is not known; but a claim that stands there is not "in no log" either.
 */
#ifndef VERIFY_RECORD_LOG_SAID_H
#define VERIFY_RECORD_LOG_SAID_H

#include <stdbool.h>
#include <stddef.h>

#include "verify/record_line.h"
#include "verify/record_log.h"

/*
 * log_said_line - keep every number of at least three decimals behind a word that ends in "bpb"
 * (any case, text in brackets between them allowed) and one of : or =. Running values, diagnoses of
 * the model before quantisation and other people's scores (baseline, target) are left out.
 * False: no memory.
 */
bool log_said_line(struct record_log *l, struct line s, size_t line);

#endif
