/* Whole trajectories of every scheduler are those of diffusers. The cases, with tables and every
 * latent on the way, come from tests/reference/schedulers.py; the model is made up:
 * f(x, t) = 0.3·x + 0.0005·t − 0.2. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "engine/random.h"
#include "engine/schedule/schedule.h"

enum { WIDTH = 4 };

/* fp32 rounding, relative to the largest number on the way: without any signal in the last entry of
 * the table, latents start at 4096 times their size. */
#define TOLERANCE 2e-6

static const float start_latent[WIDTH] = {1, -0.5f, 0.25f, 2};
static const float start_noise[WIDTH] = {0.3f, -1.2f, 0.7f, 0.1f};

static json_t *cases(void)
{
    json_error_t fault;
    json_t *all = json_load_file("tests/engine/schedulers.json", 0, &fault);
    if (!all)
        fail_msg("schedulers.json:%d: %s", fault.line, fault.text);
    assert_true(json_array_size(all) > 100);
    return all;
}

static double number(const json_t *array, size_t i)
{
    return json_number_value(json_array_get(array, i));
}

static int whole(const json_t *c, const char *key)
{
    return (int)json_integer_value(json_object_get(c, key));
}

static const char *word(const json_t *c, const char *key)
{
    return json_string_value(json_object_get(c, key));
}

/* The case's options as a scheduler_config.json. */
static void read_config(const json_t *c, struct schedule_config *out)
{
    struct err e = {0};
    struct config *config;
    json_t *file = json_deep_copy(json_object_get(c, "options"));
    json_object_set(file, "_class_name", json_object_get(c, "_class_name"));
    char *text = json_dumps(file, 0);
    json_decref(file);
    assert_int_equal(config_parse("scheduler_config.json", text, strlen(text), &config, &e), 0);
    free(text);
    if (schedule_config_parse(config, out, &e) != 0)
        fail_msg("%s", e.text);
    config_close(config);
    if (word(c, "swap") && schedule_swap(out, word(c, "swap"), &e) != 0)
        fail_msg("%s", e.text);
}

/* Frees with schedule_free. */
static struct schedule make_case(const json_t *c)
{
    struct schedule_config config;
    struct schedule s;
    struct err e = {0};
    read_config(c, &config);
    if (schedule_make_from(&config, whole(c, "steps"), whole(c, "first"),
                           json_number_value(json_object_get(c, "mu")), &s, &e) != 0)
        fail_msg("%s", e.text);
    return s;
}

static void check(const json_t *c, const char *what, size_t i, double got, double expected,
                  double scale)
{
    if (fabs(got - expected) <= TOLERANCE * fmax(scale, 1))
        return;
    char *options = json_dumps(json_object_get(c, "options"), JSON_COMPACT);
    print_error("%s %s -> %s, %d steps: %s[%zu] is %.9g, expected %.9g\n", word(c, "_class_name"),
                options, word(c, "swap") ? word(c, "swap") : "itself", whole(c, "steps"), what, i,
                got, expected);
    free(options);
    fail();
}

static void for_each_case(void (*test)(const json_t *c, const struct schedule *s))
{
    json_t *all = cases(), *c;
    size_t i;
    json_array_foreach(all, i, c)
    {
        struct schedule s = make_case(c);
        test(c, &s);
        schedule_free(&s);
    }
    json_decref(all);
}

static void compare_tables(const json_t *c, const struct schedule *s)
{
    const json_t *times = json_object_get(c, "timesteps"), *sigmas = json_object_get(c, "sigmas");
    assert_int_equal(s->steps, json_array_size(times));
    double initial = json_number_value(json_object_get(c, "initial"));
    check(c, "initial", 0, s->initial_noise, initial, initial);
    for (size_t i = 0; i < json_array_size(times); i++)
        check(c, "timesteps", i, s->timesteps[i], number(times, i), 1000);
    for (size_t i = 0; i <= (size_t)s->steps && json_array_size(sigmas); i++)
        check(c, "sigmas", i, s->sigmas[i], number(sigmas, i), number(sigmas, i));
}

static void tables_are_those_of_diffusers(void **state)
{
    (void)state;
    for_each_case(compare_tables);
}

static void compare_mixtures(const json_t *c, const struct schedule *s)
{
    const json_t *all = json_object_get(c, "noised");
    float clean, noise;
    for (int i = 0; i < s->steps; i++) {
        const json_t *pair = json_array_get(all, (size_t)i);
        schedule_noised(s, i, &clean, &noise);
        check(c, "clean", (size_t)i, clean, number(pair, 0), number(pair, 0));
        check(c, "noise", (size_t)i, noise, number(pair, 1), number(pair, 1));
    }
    schedule_noised(s, s->steps, &clean, &noise);
    assert_true(clean == 1 && noise == 0);
}

static void noise_added_to_a_picture_is_that_of_diffusers(void **state)
{
    (void)state;
    for_each_case(compare_mixtures);
}

/* What a program works on. Slots that were not written hold NaN. */
struct board {
    float slot[SLOT_COUNT][WIDTH];
};

static void update(struct board *b, const struct schedule_update *u)
{
    float sum[WIDTH] = {0};
    assert_in_range(u->count, 1, SCHEDULE_MAX_TERMS);
    assert_true(u->to != SLOT_MODEL && u->to != SLOT_NOISE && u->to != SLOT_CUT);
    for (int i = 0; i < u->count; i++)
        for (int k = 0; k < WIDTH; k++)
            sum[k] += u->coefficient[i] * b->slot[u->from[i]][k];
    memcpy(b->slot[u->to], sum, sizeof sum);
}

static void model(struct board *b, const struct schedule *s, int i)
{
    for (int k = 0; k < WIDTH; k++) {
        float x = s->at[i].input_scale * b->slot[SLOT_X][k];
        b->slot[SLOT_MODEL][k] = 0.3f * x + 0.0005f * s->timesteps[i] - 0.2f;
    }
}

static void begin(struct board *b, const json_t *c, const struct schedule *s)
{
    for (int i = 0; i < SLOT_COUNT; i++)
        for (int k = 0; k < WIDTH; k++)
            b->slot[i][k] = NAN;
    float clean = s->initial_noise, noise = 0;
    if (whole(c, "first") > 0)
        schedule_noised(s, 0, &clean, &noise);
    for (int k = 0; k < WIDTH; k++)
        b->slot[SLOT_X][k] = clean * start_latent[k] + noise * start_noise[k];
}

static double largest(const struct board *b, double before)
{
    for (int k = 0; k < WIDTH; k++)
        before = fmax(before, fabs((double)b->slot[SLOT_X][k]));
    return before;
}

static void compare_trajectory(const json_t *c, const struct schedule *s)
{
    const json_t *latents = json_object_get(c, "x"), *finished = json_object_get(c, "x0");
    struct board b;
    struct random random;
    random_seed(&random, 7);
    float finish[WIDTH];
    begin(&b, c, s);
    double scale = largest(&b, 0);
    for (int i = 0; i < s->steps; i++) {
        const struct schedule_step *row = &s->at[i];
        for (int k = 0; k < WIDTH; k++)
            b.slot[SLOT_NOISE][k] = NAN;
        model(&b, s, i);
        for (int k = 0; k < WIDTH; k++) {
            float x0 = row->x0_latent * b.slot[SLOT_X][k] + row->x0_model * b.slot[SLOT_MODEL][k];
            finish[k] = row->cut > 0 ? fminf(fmaxf(x0, -row->cut), row->cut) : x0;
            b.slot[SLOT_CUT][k] = row->cut > 0 ? finish[k] : NAN;
        }
        if (row->draws)
            random_normal(&random, b.slot[SLOT_NOISE], WIDTH);
        for (size_t k = 0; k < WIDTH && json_array_size(finished); k++)
            check(c, "x0", (size_t)i, finish[k], number(json_array_get(finished, (size_t)i), k),
                  scale * (1 + fabs((double)row->x0_latent) + fabs((double)row->x0_model)));
        assert_in_range(row->updates, 1, SCHEDULE_MAX_UPDATES);
        for (int u = 0; u < row->updates; u++)
            update(&b, &row->update[u]);
        scale = largest(&b, scale);
        for (size_t k = 0; k < WIDTH; k++)
            check(c, "x", (size_t)i, b.slot[SLOT_X][k],
                  number(json_array_get(latents, (size_t)i), k), scale);
    }
}

static void trajectories_are_those_of_diffusers(void **state)
{
    (void)state;
    for_each_case(compare_trajectory);
}

/* A slot beyond s->slots would be memory that nobody planned. */
static void check_slots(const json_t *c, const struct schedule *s)
{
    (void)c;
    int highest = 0;
    for (int i = 0; i < s->steps; i++) {
        const struct schedule_step *row = &s->at[i];
        bool draws = false, cuts = false;
        for (int u = 0; u < row->updates; u++) {
            if (row->update[u].to >= SLOT_0 && (int)row->update[u].to - SLOT_0 + 1 > highest)
                highest = (int)row->update[u].to - SLOT_0 + 1;
            for (int k = 0; k < row->update[u].count; k++) {
                draws = draws || row->update[u].from[k] == SLOT_NOISE;
                cuts = cuts || row->update[u].from[k] == SLOT_CUT;
                assert_true((int)row->update[u].from[k] < SLOT_0 + s->slots);
            }
        }
        assert_int_equal(draws, row->draws);
        assert_int_equal(cuts, row->cut > 0);
    }
    assert_int_equal(highest, s->slots);
}

static void slots_and_draws_are_declared(void **state)
{
    (void)state;
    for_each_case(check_slots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_those_of_diffusers),
        cmocka_unit_test(noise_added_to_a_picture_is_that_of_diffusers),
        cmocka_unit_test(trajectories_are_those_of_diffusers),
        cmocka_unit_test(slots_and_draws_are_declared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
