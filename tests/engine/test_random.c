/* Noise is torch's: same seed, same bits. The table comes from tests/reference/noise.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "engine/random.h"

struct draw {
    size_t count;
    bool bf16;
};

static const struct {
    uint64_t seed;
    struct draw draws[4];
    const char *sha256; /* over the drawn values as little-endian fp32 */
} torch_cases[] = {
    {0, {{16, false}}, "7648137a31024642604465428f1598d06f595259ac993612918498d7cde9b70c"},
    {42, {{1048576, false}}, "bc00ca174f73a1aa37ed9a252b5ed12b4ae9410209515e6420c8e28a35489562"},
    {1099511627783u,
     {{100003, false}},
     "5eb5e92227a3e308981c80b442de6a6b2849d8938892d5a60bffb88143204f05"},
    {1,
     {{17, false}, {31, false}, {16, false}},
     "a6e3c0877e04888d57e1d06d9478c9818520e513e429987f20ee1032cc1d72d4"},
    {9,
     {{5, false}, {64, false}, {4, false}, {1, false}},
     "ebd08cea41f7cf219bb1dd0a5ce7df7f16cb49e7348a5f09a75f83f19d1b9315"},
    {3, {{4096, true}}, "307c25fa92eea2b757ffd6d5f7d71341e5733b38cdbf282876d86d6681deb247"},
    {4,
     {{4099, true}, {7, true}, {33, false}},
     "5e5345161fddfb970b9b592d1dc82baa3b047a4a0ed6f0e78f240a0c03f46cde"},
};

static void a_seed_draws_the_bits_of_torch(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(torch_cases); i++) {
        struct random r;
        random_seed(&r, torch_cases[i].seed);
        struct sha256 *sum = sha256_new();
        for (const struct draw *d = torch_cases[i].draws; d < torch_cases[i].draws + 4; d++) {
            AUTO_FREE float *values = malloc(d->count * sizeof *values + 1);
            (d->bf16 ? random_normal_bf16 : random_normal)(&r, values, d->count);
            sha256_add(sum, values, d->count * sizeof *values);
        }
        char hex[SHA256_HEX_SIZE];
        sha256_end(sum, hex);
        assert_string_equal(hex, torch_cases[i].sha256);
    }
}

/* Published values of torch.randn, to tell a wrong generator from a wrong rounding. */
static void known_values_of_two_seeds(void **state)
{
    (void)state;
    static const float long_0[] = {-1.1258398f, -1.1523602f, -0.25057858f,
                                   -0.4338788f, 0.59883946f, -1.5550951f};
    static const float short_0[] = {1.5409961f,  -0.2934289f, -2.1787894f, 0.56843126f,
                                    -1.0845224f, -1.3985955f, 0.4033468f,  0.83802634f,
                                    -0.7192576f, -0.40334353f};
    struct random r;
    float values[20];
    random_seed(&r, 0);
    random_normal(&r, values, 20);
    for (size_t i = 0; i < ARRAY_LEN(long_0); i++)
        assert_float_equal(values[i], long_0[i], 1e-7);
    random_seed(&r, 0);
    random_normal(&r, values,
                  5); /* an odd count: the spare of the third pair opens the next call */
    random_normal(&r, values + 5, 5);
    for (size_t i = 0; i < ARRAY_LEN(short_0); i++)
        assert_float_equal(values[i], short_0[i], 2e-7);
}

static void only_the_low_32_bits_of_a_seed_count(void **state)
{
    (void)state;
    struct random a, b;
    float x[16], y[16];
    random_seed(&a, 5);
    random_seed(&b, (UINT64_C(77) << 32) + 5);
    random_normal(&a, x, 16);
    random_normal(&b, y, 16);
    assert_memory_equal(x, y, sizeof x);
}

static void nothing_is_drawn_for_no_values(void **state)
{
    (void)state;
    struct random a, b;
    random_seed(&a, 5);
    b = a;
    random_normal(&a, NULL, 0);
    random_normal_bf16(&a, NULL, 0);
    assert_int_equal(a.next, b.next);
    assert_false(a.has_spare);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_draws_the_bits_of_torch),
        cmocka_unit_test(known_values_of_two_seeds),
        cmocka_unit_test(only_the_low_32_bits_of_a_seed_count),
        cmocka_unit_test(nothing_is_drawn_for_no_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
