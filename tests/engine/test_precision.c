/* How far bf16 products move each part of the embedded model from fp32: relative L2 of its result.
 * Run from the repository root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../support/mini_parts.h"

#define LIMIT 1e-2

static void compare(const char *what, mini_part *part)
{
    double error = mini_part_error(part, "cpu");
    print_message("# %s: %.2e\n", what, error);
    assert_true(error <= LIMIT);
}

static void bf16_text_encoder_stays_within_a_hundredth(void **state)
{
    (void)state;
    compare("text encoder", mini_text_encoder);
}

static void bf16_transformer_stays_within_a_hundredth(void **state)
{
    (void)state;
    compare("transformer", mini_transformer);
}

static void bf16_autoencoder_stays_within_a_hundredth(void **state)
{
    (void)state;
    compare("encoder", mini_encoder);
    compare("decoder", mini_decoder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_text_encoder_stays_within_a_hundredth),
        cmocka_unit_test(bf16_transformer_stays_within_a_hundredth),
        cmocka_unit_test(bf16_autoencoder_stays_within_a_hundredth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
