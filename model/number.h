/*
 * number.h - decimal numbers in recipes, read the same way by every program.
 *
 * At most 15 significant digits and a decimal exponent within 10^+-22: then digits and power of ten
 * are exact doubles and one operation rounds correctly (Clinger 1990), so no library is needed and
 * none can disagree.
 */
#ifndef MODEL_NUMBER_H
#define MODEL_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

/* number_parse - [-]digits[.digits][e[+-]digits], the whole string. False: not such a number, or
 * more digits or a larger exponent than above. */
static inline bool number_parse(const char *s, double *out)
{
    uint64_t digits = 0;
    int exp = 0, e = 0, seen = 0;
    bool neg = *s == '-', eneg, point = false;
    double p = 1;
    for (s += neg || *s == '+'; (*s >= '0' && *s <= '9') || (*s == '.' && !point); s++) {
        if (*s == '.') {
            point = true;
            continue;
        }
        seen = 1;
        if (digits > 99999999999999)
            return false;
        digits = digits * 10 + (uint64_t)(*s - '0');
        exp -= point;
    }
    if (*s == 'e' || *s == 'E') {
        eneg = *++s == '-';
        s += eneg || *s == '+';
        if (!(*s >= '0' && *s <= '9'))
            return false;
        for (; *s >= '0' && *s <= '9' && e < 1000; s++)
            e = e * 10 + (*s - '0');
        exp += eneg ? -e : e;
    }
    for (; exp > 22 && digits - 1 < 99999999999999; exp--)
        digits *= 10; /* 1e24 is 100e22: what is printed in its shortest form must read back */
    if (*s || !seen || exp < -22 || exp > 22)
        return false;
    for (int i = 0; i < (exp < 0 ? -exp : exp); i++)
        p *= 10; /* exact up to 10^22 */
    *out = exp < 0 ? (double)digits / p : (double)digits * p;
    if (neg)
        *out = -*out;
    return true;
}

#endif
