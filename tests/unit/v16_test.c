/* v16_test.c - v16_body.h on the portable lanes, the definition that the others are held to. */
#include "tests/unit/v16_body.h"

int main(void)
{
    return run_v16_tests();
}
