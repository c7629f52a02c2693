/* clock.h - the time that intervals are measured with: it neither jumps nor goes back. */
#ifndef MODEL_CLOCK_H
#define MODEL_CLOCK_H

#include <time.h>

/* seconds_now - seconds since some moment before the program began. */
static inline double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
