/*
 * tcq.h - trellis-coded quantisation of one column: the cheapest path through a trellis.
 *
 * M. W. Marcellin, T. R. Fischer, "Trellis coded quantization of memoryless and Gauss-Markov
 * sources", IEEE Trans. Commun. 38 (1990), with the trellises of G. Ungerboeck (1982). Levels are
 * multiples of half a step; a state allows every second of them: level = (2k + z)/2, z = state & 1,
 * and k is the symbol that is stored. stub/trellis.h defines states, levels and transitions; the
 * Viterbi search here inverts it.
 *
 * All sums are single precision in one fixed order: symbols do not depend on the machine.
 */
#ifndef TRAINER_TCQ_H
#define TRAINER_TCQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TCQ_MAX_STATES = 256, TCQ_MAX_SYMBOL = 127 };

/* tcq_states_ok - is there a trellis with so many states: 4, 8, ..., TCQ_MAX_STATES? */
bool tcq_states_ok(size_t states);

/* tcq_work - bytes of scratch for columns of up to `rows` elements. */
size_t tcq_work(size_t rows, size_t states);

/*
 * tcq_column - the symbols with the smallest sum of weight * (x - level)^2.
 *
 *   k       [rows] out, -TCQ_MAX_SYMBOL..TCQ_MAX_SYMBOL
 *   x       [rows] what the levels should be, in steps; finite
 *   weight  [rows] not negative; NULL: all 1
 *   work    tcq_work(rows, states) bytes, aligned to 64
 *
 * The path starts in state 0 and may end in any. Of equally good paths always the same one is
 * taken. Returns the sum. Cost: `states` additions, comparisons and bytes of work per element.
 */
float tcq_column(int8_t *k, const float *x, const float *weight, size_t rows, size_t states,
                 void *work);

#endif
