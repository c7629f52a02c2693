/*
 * power_test.c - exists for the last bit: a power that is off by one unit in the last place gives
 * other training batches than were promised. The values were computed with 40 decimal digits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "trainer/power.h"

static const struct {
    double x, a, y;
} cases[] = {
    {0x1.0000000000000p+0, 0x1.ccccccccccccdp-1, 0x1.0000000000000p+0},
    {0x1.0000000000000p+0, 0x0.0p+0, 0x1.0000000000000p+0},
    {0x1.0000000000000p+1, 0x1.0000000000000p+0, 0x1.0000000000000p+1},
    {0x1.0000000000000p+1, 0x1.0000000000000p-1, 0x1.6a09e667f3bcdp+0},
    {0x1.0000000000000p+2, 0x1.0000000000000p-1, 0x1.0000000000000p+1},
    {0x1.7d76000000000p+15, 0x1.ccccccccccccdp-1, 0x1.0330006a239b0p+14},
    {0x1.7d76000000000p+15, 0x0.0p+0, 0x1.0000000000000p+0},
    {0x1.c6bf526340000p+49, 0x1.0000000000000p+0, 0x1.c6bf526340000p+49},
    {0x1.c6bf526340000p+49, 0x1.0000000000000p-1, 0x1.e286789a07f2fp+24},
    {0x1.8000000000000p+1, 0x1.6666666666666p-1, 0x1.142e81c889914p+1},
    {0x1.06c2000000000p+15, 0x1.898ead65b7a33p-1, 0x1.791fabc5ca018p+11},
    {0x1.2b18000000000p+13, 0x1.00aec33e1f671p-1, 0x1.8c23593951544p+6},
    {0x1.1c00000000000p+13, 0x1.032f8f21e7e11p-1, 0x1.93934967a5e10p+6},
    {0x1.5454000000000p+14, 0x1.211bfd44f3078p-1, 0x1.198edbf98c490p+8},
    {0x1.79bc000000000p+14, 0x1.8ee7a6cc584aap-1, 0x1.451ded15f22f6p+11},
    {0x1.710c000000000p+15, 0x1.30eca8641fdbap-1, 0x1.2fed7d6d3525ep+9},
    {0x1.7cba000000000p+15, 0x1.3a06d3a06d3a0p-1, 0x1.771e4611738c8p+9},
    {0x1.4200000000000p+13, 0x1.b19b6ba23f42bp-1, 0x1.38f4251cdd671p+11},
    {0x1.7020000000000p+12, 0x1.723b9e9b31613p-1, 0x1.0a2f275d1b2d7p+9},
    {0x1.4e56000000000p+15, 0x1.8057619f0fb39p-1, 0x1.7693fe4dce399p+11},
    {0x1.a430000000000p+14, 0x1.a44b8c66dae89p-1, 0x1.0e769d5723513p+12},
    {0x1.dde0000000000p+14, 0x1.a2d0e56041894p-1, 0x1.23c0991c9c006p+12},
    {0x1.7b3c000000000p+15, 0x1.53662c2551b14p-1, 0x1.3f62b72a5b3edp+10},
    {0x1.6190000000000p+12, 0x1.b3ff16fbad2b8p-1, 0x1.882bcf0450296p+10},
    {0x1.4ed0000000000p+14, 0x1.1cc928bb817aap-1, 0x1.007103240bf35p+8},
    {0x1.3964000000000p+15, 0x1.8f04c756b2dbdp-1, 0x1.e3846ce9f4849p+11},
    {0x1.5cf8000000000p+14, 0x1.10b9af72015d8p-1, 0x1.9e8d6da9a334ap+7},
    {0x1.e280000000000p+14, 0x1.086b67fe2df76p-1, 0x1.a09498b7cdcefp+7},
    {0x1.6e56000000000p+15, 0x1.1cc928bb817aap-1, 0x1.8c6d70f3dcd1dp+8},
    {0x1.17e0000000000p+14, 0x1.1391dcf4d98b0p-1, 0x1.8531c864bde35p+7},
    {0x1.d680000000000p+9, 0x1.be76c8b439581p-1, 0x1.87b7073d9fe0cp+8},
    {0x1.a5b4000000000p+14, 0x1.0aec33e1f6715p-1, 0x1.98772ac962106p+7},
    {0x1.29b8000000000p+14, 0x1.962fc962fc963p-1, 0x1.36b7ad74ab301p+11},
    {0x1.7538000000000p+14, 0x1.95810624dd2f2p-1, 0x1.6ec65fe13525bp+11},
    {0x1.06c2000000000p+15, 0x1.898ead65b7a33p-1, 0x1.791fabc5ca018p+11},
    {0x1.1c00000000000p+13, 0x1.032f8f21e7e11p-1, 0x1.93934967a5e10p+6},
    {0x1.5454000000000p+14, 0x1.211bfd44f3078p-1, 0x1.198edbf98c490p+8},
    {0x1.710c000000000p+15, 0x1.30eca8641fdbap-1, 0x1.2fed7d6d3525ep+9},
    {0x1.7cba000000000p+15, 0x1.3a06d3a06d3a0p-1, 0x1.771e4611738c8p+9},
    {0x1.4200000000000p+13, 0x1.b19b6ba23f42bp-1, 0x1.38f4251cdd671p+11},
};

static void nearest(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double y = power(cases[i].x, cases[i].a);
        if (y > cases[i].y || y < cases[i].y)
            fail_msg("%a ^ %a: %a, expected %a", cases[i].x, cases[i].a, y, cases[i].y);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nearest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
