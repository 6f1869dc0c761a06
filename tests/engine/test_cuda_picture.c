/* A whole picture through the CUDA backend as a program opens it, with the kernels in their
 * emulated form: the library is found at run time, and draws what the CPU draws. From the
 * repository's root.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../support/mini_parts.h"
#include "../support/pictures.h"
#include "base/cleanup.h"
#include "engine/device.h"
#include "engine/omni.h"
#include "kernels/emulated.h"

static void a_picture_is_the_one_that_the_cpu_draws(void **state)
{
    (void)state;
    struct picture cpu = mini_picture("cpu", OMNI_FP32, 128);
    emulated_set_guard(true); /* nothing above the backend reads device memory */
    struct picture cuda = mini_picture("cuda", OMNI_FP32, 128);
    emulated_set_guard(false);
    double error = mini_picture_error(&cuda, &cpu);
    print_message("# fp32: relative error %.2g, %.1f dB\n", error, psnr(&cuda, &cpu, 0));
    assert_true(error <= 3e-4); /* hardly a value in a thousand is rounded the other way … */
    for (size_t i = 0; i < picture_frame_bytes(&cpu); i++)
        assert_in_range(cuda.rgb[i] + 1 - cpu.rgb[i], 0, 2); /* … and none is further off */
    picture_free(&cuda);
    picture_free(&cpu);
    assert_int_equal(emulated_counts().live, 0);
    assert_true(emulated_counts().launches > 100);
}

static void bf16_moves_parts_little(void **state)
{
    static const struct {
        const char *name;
        mini_part *run;
        double most;
    } parts[] = {{"transformer", mini_transformer, 3e-2}, /* whose attention is made sharp */
                 {"text encoder", mini_text_encoder, 1e-2},
                 {"decoder", mini_decoder, 1e-2}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        double error = mini_part_error(parts[i].run, "cuda");
        print_message("# %s in bf16: relative error %.2g\n", parts[i].name, error);
        assert_true(error > 0 && error <= parts[i].most);
    }
}

static void the_library_is_opened_by_its_device_word(void **state)
{
    (void)state;
    struct device d;
    struct err e = {0};
    char line[128];
    assert_int_equal(device_open("cuda:1", 0, &d, &e), 0);
    device_describe(&d, line, sizeof line);
    assert_string_equal(line, "cuda:1: emulated GPU");
    device_close(&d);
    assert_int_equal(device_open("cuda:5", 0, &d, &e), -ENODEV);
    assert_null(d.backend);
}

static void auto_lists_its_devices_with_their_memory(void **state)
{
    (void)state;
    struct omni_device d[OMNI_MAX_DEVICES];
    struct err e = {0};
    int count = 0;
    assert_int_equal(omni_device_list("auto", d, OMNI_MAX_DEVICES, &count, &e), 0);
    assert_int_equal(count, 2);
    assert_string_equal(d[1].name, "cuda:1");
    assert_true(d[0].memory_total == UINT64_C(1) << 40);
    assert_true(d[0].memory_free > 0 && d[0].memory_free <= d[0].memory_total);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_library_is_opened_by_its_device_word),
        cmocka_unit_test(auto_lists_its_devices_with_their_memory),
        cmocka_unit_test(bf16_moves_parts_little),
        cmocka_unit_test(a_picture_is_the_one_that_the_cpu_draws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
