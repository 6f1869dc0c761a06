/* Whole pipelines against pictures that the original pipelines drew: prompt to pixels, in fp32. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../support/golden.h"

#define QWEN_TOKENIZER "tests/engine/golden/tokenizer-qwen"
#define LEAST_DB       60 /* some 1 in 20 values off by one */

static void klein_base_draws_with_guidance_as_diffusers_does(void **state)
{
    (void)state;
    golden_check("tests/engine/golden/klein-base", QWEN_TOKENIZER, LEAST_DB);
}

static void klein_distilled_ignores_guidance_as_diffusers_does(void **state)
{
    (void)state;
    golden_check("tests/engine/golden/klein-distilled", QWEN_TOKENIZER, LEAST_DB);
}

static void klein_by_strength_draws_from_a_picture_as_diffusers_does(void **state)
{
    (void)state;
    golden_check("tests/engine/golden/klein-strength", QWEN_TOKENIZER, LEAST_DB);
}

static void klein_draws_frames_by_themselves_as_diffusers_does(void **state)
{
    (void)state;
    golden_check("tests/engine/golden/klein-clips", QWEN_TOKENIZER, LEAST_DB);
}

static void zimage_draws_as_diffusers_does(void **state)
{
    (void)state;
    golden_check("tests/engine/golden/zimage", QWEN_TOKENIZER, LEAST_DB);
}

static void zimage_shifts_by_the_picture_s_size_as_diffusers_does(void **state)
{
    (void)state;
    golden_check("tests/engine/golden/zimage-dynamic", QWEN_TOKENIZER, LEAST_DB);
}

static void zimage_with_other_options_draws_as_diffusers_does(void **state)
{
    (void)state;
    golden_check("tests/engine/golden/zimage-options", QWEN_TOKENIZER, LEAST_DB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(klein_base_draws_with_guidance_as_diffusers_does),
        cmocka_unit_test(klein_distilled_ignores_guidance_as_diffusers_does),
        cmocka_unit_test(klein_by_strength_draws_from_a_picture_as_diffusers_does),
        cmocka_unit_test(klein_draws_frames_by_themselves_as_diffusers_does),
        cmocka_unit_test(zimage_draws_as_diffusers_does),
        cmocka_unit_test(zimage_shifts_by_the_picture_s_size_as_diffusers_does),
        cmocka_unit_test(zimage_with_other_options_draws_as_diffusers_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
