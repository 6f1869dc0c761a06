/* Devices: which there are, what they say when they are full or gone, and a loop that does not wait
 * for them. The devices are fake ones. Run from the repository root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "base/cleanup.h"
#include "engine/omni.h"
#include "../support/fake_device.h"

#define MODEL "models/omni-mini"
#define STEPS 4

/* ---- which there are ---- */

static void expect_list(const char *list, const char *names)
{
    struct omni_device d[OMNI_MAX_DEVICES];
    struct err e = {0};
    char found[256] = "";
    int count;
    if (omni_device_list(list, d, OMNI_MAX_DEVICES, &count, &e) != 0)
        fail_msg("%s", e.text);
    for (int i = 0; i < count; i++) {
        strcat(found, i ? " " : "");
        strcat(found, d[i].name);
    }
    assert_string_equal(found, names);
}

static void expect_no_list(const char *list, int code, const char *sentence)
{
    struct omni_device d[OMNI_MAX_DEVICES];
    struct err e = {0};
    int count;
    assert_int_equal(omni_device_list(list, d, OMNI_MAX_DEVICES, &count, &e), code);
    if (!strstr(e.text, sentence))
        fail_msg("\"%s\" is not in \"%s\"", sentence, e.text);
}

static void auto_is_every_cuda_device_that_opens_else_the_cpu(void **state)
{
    (void)state;
    fake_devices_use(3);
    expect_list(NULL, "cuda:0 cuda:1 cuda:2");
    fake_devices[1].lost = true;
    expect_list("auto", "cuda:0 cuda:2");
    for (int i = 0; i < FAKE_DEVICES; i++)
        fake_devices[i].lost = true;
    expect_list("", "cpu");
    fake_devices_use(0);
    expect_list("auto", "cpu");
}

static void a_library_that_does_not_count_is_asked_one_by_one(void **state)
{
    (void)state;
    fake_devices_use(3);
    fake_devices_count(false);
    expect_list("auto", "cuda:0 cuda:1 cuda:2");
    fake_devices[2].lost = true;
    expect_list("auto", "cuda:0 cuda:1");
}

static void lists_name_devices_and_mistakes_are_told(void **state)
{
    (void)state;
    fake_devices_use(2);
    expect_list("cuda:1, cpu ,cuda:0", "cuda:1 cpu cuda:0");
    expect_no_list("cuda:0,tpu", -EINVAL,
                   "device 'tpu' is not known; expected auto, cpu or cuda:N");
    expect_no_list("cuda:0,cuda:0", -EINVAL, "device cuda:0 is named twice");
    expect_no_list("cuda:2", -ENODEV, "there is no device cuda:2, only 2");
    fake_devices_use(0);
    expect_no_list("cuda:0", -ENODEV, "CUDA devices need libomni_cuda.so, which does not open: ");
}

static void the_variable_holds_a_list_too(void **state)
{
    (void)state;
    struct device d;
    fake_devices_use(2);
    setenv("OMNIFS_DEVICE", "cuda:1,cuda:0", 1);
    expect_list(NULL, "cuda:1 cuda:0");
    expect_list("cpu", "cpu");
    assert_int_equal(device_open(NULL, 1, &d, NULL), 0);
    assert_string_equal(d.name, "cuda:1");
    device_close(&d);
    setenv("OMNIFS_DEVICE", "auto", 1);
    expect_list(NULL, "cuda:0 cuda:1");
    unsetenv("OMNIFS_DEVICE");
}

static void devices_with_memory_of_their_own_tell_it(void **state)
{
    (void)state;
    struct omni_device d[2];
    int count;
    fake_devices_use(2);
    fake_devices[1].memory_free = 12345;
    assert_int_equal(omni_device_list("cuda:1,cpu", d, 2, &count, NULL), 0);
    assert_true(d[0].memory_free == 12345 && d[0].memory_total == (uint64_t)1 << 30);
    assert_true(d[1].memory_free == 0 && d[1].memory_total == 0);
    assert_int_equal(fake_devices[1].opened, 0); /* only looked at */
}

static void all_devices_are_listed_for_people(void **state)
{
    (void)state;
    AUTO_FREE char *text = NULL;
    struct err e;
    fake_devices_use(3);
    fake_devices[0].lost = true;
    assert_int_equal(omni_devices(&text, &e), 0);
    assert_non_null(strstr(text, "cpu: "));
    assert_null(strstr(text, "cuda:0"));
    assert_non_null(strstr(text, "cuda:1"));
    assert_non_null(strstr(text, "cuda:2"));
}

/* ---- drawing ---- */

struct drawing {
    struct omni_model *m;
    struct picture picture;
    struct err e;
    int cancel_after; /* steps; 0: never */
    int steps_told;
};

static void on_progress(void *ctx, enum omni_stage stage, int done, int total)
{
    struct drawing *d = ctx;
    (void)total;
    if (stage == OMNI_STEPS)
        d->steps_told = done;
}

static bool on_cancelled(void *ctx)
{
    const struct drawing *d = ctx;
    return d->cancel_after && d->steps_told >= d->cancel_after;
}

static void open_model(struct drawing *d, const char *device)
{
    struct omni_load_options options = {.device = device, .precision = OMNI_FP32, .threads = 1};
    *d = (struct drawing){0};
    if (omni_model_load(MODEL, &options, &d->m, &d->e) != 0)
        fail_msg("%s", d->e.text);
}

static int draw(struct drawing *d)
{
    struct omni_callbacks cb = {.ctx = d, .progress = on_progress, .cancelled = on_cancelled};
    struct omni_request r = {.prompt = "a red circle",
                             .width = 32,
                             .height = 32,
                             .frames = 1,
                             .steps = STEPS,
                             .guidance = 4,
                             .seed = 3};
    struct omni_result y;
    picture_free(&d->picture);
    int code = omni_generate(d->m, &r, 1, &cb, &y, NULL, &d->e);
    d->picture = y.picture;
    return code;
}

static void close_model(struct drawing *d)
{
    picture_free(&d->picture);
    omni_model_free(d->m);
}

static void a_device_that_runs_behind_draws_the_same_bytes_without_a_wait_in_the_loop(void **state)
{
    (void)state;
    struct drawing here, there;
    fake_devices_use(1);
    open_model(&here, "cpu");
    open_model(&there, "cuda:0");
    assert_int_equal(draw(&here), 0);
    assert_int_equal(draw(&there), 0);
    assert_memory_equal(here.picture.rgb, there.picture.rgb, picture_frame_bytes(&here.picture));
    struct fake_device *f = &fake_devices[0];
    assert_int_equal(f->steps, STEPS);
    for (int i = 1; i < STEPS; i++)
        assert_int_equal(f->waits_at[i], f->waits_at[0]);
    assert_int_equal(there.steps_told, STEPS);
    close_model(&here);
    close_model(&there);
    assert_int_equal(f->opened, 0);
}

static void nan_on_such_a_device_is_told_with_its_step(void **state)
{
    (void)state;
    struct drawing d;
    fake_devices_use(1);
    open_model(&d, "cuda:0");
    fake_devices[0].poison_step = 3;
    assert_int_equal(draw(&d), -EDOM);
    assert_non_null(strstr(d.e.text, "step 3 of 4: the latent of request 0 holds NaN"));
    fake_devices[0].poison_step = 0;
    assert_int_equal(draw(&d), 0); /* nothing of it stays */
    close_model(&d);
}

static void cancelling_ends_the_loop_between_steps(void **state)
{
    (void)state;
    struct drawing d;
    fake_devices_use(1);
    open_model(&d, "cuda:0");
    d.cancel_after = 2;
    assert_int_equal(draw(&d), -ECANCELED);
    assert_true(fake_devices[0].steps >= 2 && fake_devices[0].steps <= 3);
    close_model(&d);
}

static void a_full_device_says_the_bytes_and_works_again(void **state)
{
    (void)state;
    struct drawing d;
    fake_devices_use(1);
    open_model(&d, "cuda:0");
    fake_devices[0].refuse_arenas = 1;
    assert_int_equal(draw(&d), -ENOMEM);
    assert_non_null(strstr(d.e.text, "cuda:0 has no "));
    assert_int_equal(draw(&d), 0);
    close_model(&d);
    open_model(&d, "cuda:0");
    fake_devices[0].refuse_weights = 1; /* which the first request asks for */
    assert_int_equal(draw(&d), -ENOMEM);
    assert_int_equal(draw(&d), 0);
    close_model(&d);
}

static void a_lost_device_says_so_wherever_it_is_met(void **state)
{
    (void)state;
    struct drawing d;
    fake_devices_use(2);
    open_model(&d, "cuda:0");
    fake_devices[0].lose_at = 60;
    assert_int_equal(draw(&d), -ENODEV); /* in a kernel */
    assert_string_equal(d.e.text, "cuda:0 fell off the bus");
    assert_int_equal(draw(&d), -ENODEV); /* for an arena */
    assert_string_equal(d.e.text, "cuda:0 does not answer");
    close_model(&d);
    struct omni_load_options options = {.device = "cuda:0"};
    struct omni_model *m = NULL;
    assert_int_equal(omni_model_load(MODEL, &options, &m, &d.e), -ENODEV); /* at opening */
    open_model(&d, "cuda:1");
    assert_int_equal(draw(&d), 0);
    close_model(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(auto_is_every_cuda_device_that_opens_else_the_cpu),
        cmocka_unit_test(a_library_that_does_not_count_is_asked_one_by_one),
        cmocka_unit_test(lists_name_devices_and_mistakes_are_told),
        cmocka_unit_test(the_variable_holds_a_list_too),
        cmocka_unit_test(devices_with_memory_of_their_own_tell_it),
        cmocka_unit_test(all_devices_are_listed_for_people),
        cmocka_unit_test(a_device_that_runs_behind_draws_the_same_bytes_without_a_wait_in_the_loop),
        cmocka_unit_test(nan_on_such_a_device_is_told_with_its_step),
        cmocka_unit_test(cancelling_ends_the_loop_between_steps),
        cmocka_unit_test(a_full_device_says_the_bytes_and_works_again),
        cmocka_unit_test(a_lost_device_says_so_wherever_it_is_met),
    };
    unsetenv("OMNIFS_DEVICE");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
