/* How far bf16 products move each part of the embedded model from fp32: relative L2 of its result.
 * Run from the repository root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../support/mini_parts.h"

#define LIMIT 1e-2
#define SHARP 3e-2 /* of the transformer, whose attention is made sharp: auto means fp32 for it */

static void compare(const char *what, mini_part *part, double limit)
{
    double error = mini_part_error(part, "cpu");
    print_message("# %s: %.2e\n", what, error);
    assert_true(error <= limit);
}

static void bf16_text_encoder_stays_within_a_hundredth(void **state)
{
    (void)state;
    compare("text encoder", mini_text_encoder, LIMIT);
}

static void bf16_transformer_stays_near(void **state)
{
    (void)state;
    compare("transformer", mini_transformer, SHARP);
}

static void bf16_autoencoder_stays_within_a_hundredth(void **state)
{
    (void)state;
    compare("encoder", mini_encoder, LIMIT);
    compare("decoder", mini_decoder, LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_text_encoder_stays_within_a_hundredth),
        cmocka_unit_test(bf16_transformer_stays_near),
        cmocka_unit_test(bf16_autoencoder_stays_within_a_hundredth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
