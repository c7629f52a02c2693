/*
 * record_log_size.h - the size and time lines of a training log, for record_log.c.
 */
#ifndef VERIFY_RECORD_LOG_SIZE_H
#define VERIFY_RECORD_LOG_SIZE_H

#include "verify/record_line.h"
#include "verify/record_log.h"

/*
 * log_size_line - take bytes from a line, if it has any:
 *
 *   Serialized model: N bytes                  raw weights, not the artifact
 *   Serialized model int6+lzma: N bytes        the packed model
 *   Code size: N bytes, Code size (compressed|uncompressed): N bytes
 *   Total submission size int6+lzma: N bytes   the artifact
 *   Total submission size: N bytes             raw weights and code, unless it fits the packed ones
 *   artifact:15.60MB ... code:70399            with budget:15670651/16000000 for the total
 *   model:15775478 code:62074 total:15837552 (15.84 MB)
 *   INT7+zlib model: N bytes | Total submission: N bytes
 *   INT4+fp8+brotli: 15.42MB model + 0.077MB code = 15.50/16.00MB
 */
void log_size_line(struct record_log *l, struct line s, size_t line);

/* log_size_settle - after the last line: fill in model or total where the other two are known. */
void log_size_settle(struct record_log *l);

/* log_time_line - take a time of enum log_time_kind from a line, if it has one. */
void log_time_line(struct record_log *l, struct line s, size_t line);

#endif
