/*
 * digest_test.c - exists for the digest that differs from the one everybody else computes: the
 * examples of FIPS 180-4 and the empty file.
 */
#include "packer/digest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    const char *text, *sha256;
} cases[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
};

static void known(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[DIGEST_TEXT];
        digest_sha256(text, cases[i].text, strlen(cases[i].text));
        assert_string_equal(text, cases[i].sha256);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
