/* Sigmas, timesteps and mu are diffusers' to the last bit. The tables come from
 * tests/reference/sigmas.py. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "engine/schedule/schedule.h"

static const struct {
    int steps;
    double shift, mu;   /* mu NAN: static shift */
    const char *sha256; /* over sigmas, then timesteps, as little-endian fp32 */
} diffusers_cases[] = {
    {2, 2.0, NAN, "3af2b5dbc1bef618981c0fb927c4a3144de2445bbf725f579926f66516e5d411"},
    {2, 3.0, NAN, "5d75e28ef6baded29dde4bd22448b97b12754284b39e1924180262f3924e2e13"},
    {2, 1.0, NAN, "34ec8280147fdf00024494c32ff2310a76bd84ac0a853a9ca5c4a029b0957341"},
    {2, 1.15, NAN, "c8736e45075852efd22ddb17e26321843e4b1e88254fbf29c52ef7b0baaae8a1"},
    {2, 3.0, 0.5, "7450fcd62dbe4e360c7b4af945622eb6e8f40f875cedb5770b74141dcc6a3d66"},
    {2, 3.0, 2.29118, "d02942e84405753d2807a93702f2be54161846d7411a27ffad7e7765e2a5a6e8"},
    {4, 2.0, NAN, "c2a4f9d2095dc14b449fdc771297c0a9b6a4b7b61b8e430f8be37d9b36c23407"},
    {4, 3.0, NAN, "7f01626cbd159c13d394e5a374cb50ada3825438a6d375f4d4b08c52b56b511a"},
    {4, 1.0, NAN, "6cbbb80a4c0f8ad3b5419492ea4fae9d815f1c61b968154ad66cfa6020d0887e"},
    {4, 1.15, NAN, "7dd5231f3ab509912f70263d05f63187b9c365da7701b75eae2035a70447944d"},
    {4, 3.0, 0.5, "92e20d3407452270f1cda9fedf27f12c1f0139e5b90bdea85b38c2abe2a8b077"},
    {4, 3.0, 2.29118, "5aaf04d4c80afbde18274c1cb6768ab3896bcde56d6353532682f667886d4251"},
    {24, 2.0, NAN, "0d6133716847b31e89552c1b0e928adccaf92d4305f173456102af5fc52ed8db"},
    {24, 3.0, NAN, "7e628b6b4471a6d84473b142ebb0a0f6d8d64090e1c37a9094eb1decea080854"},
    {24, 1.0, NAN, "47a7c1ec3d1463ad4b6ba2170b948cd3e3d8df3ac7255342509997d68a9db792"},
    {24, 1.15, NAN, "4cdddfb47e095b52036e1891ada330a20d2dc97972e01400a6088d53f9dd4c55"},
    {24, 3.0, 0.5, "41a02add9791431bcb16378a08fb534995b144c85425e393486e6e752cfc6ec5"},
    {24, 3.0, 2.29118, "20de1515e367059c6d7c60d4a3660ee079d4b6b1c7dc7154bbd78ad824d09502"},
    {50, 2.0, NAN, "0412b3266cf863e033cc95dbce8d82c83b57a596e6d9959cfbff9d21e99fd6f7"},
    {50, 3.0, NAN, "affb2e58fa6fc2a7b4af1c30909f9676fa5ee6ada4fc28b24ec7ef315ab8e062"},
    {50, 1.0, NAN, "146b6224fb3e4e56bdad08afb3c103800584a7e9475ca38120ed9976e3910d3c"},
    {50, 1.15, NAN, "e88e0a501582b4c0f00a09789f1d7e6a46dd8d7edf4bd2fce75b1c4b7a30ede6"},
    {50, 3.0, 0.5, "faab7d7525013c18577cca4a2ec0b1ac4760c6a59f4ee8b9d947306e082cb084"},
    {50, 3.0, 2.29118, "03bea0d247274fdfcd545d895b77e71b3b46c47423b2a3d3f5d12f3715a9fdbc"},
    {1000, 2.0, NAN, "576f9e3a5beec2fccb0ae2148c1f4ec2760d787a4dff861e02395c063e103c1b"},
    {1000, 3.0, NAN, "49813478422ed33a26e7513a930b24a451bdccf72ad3944212a43e2250c77ae8"},
    {1000, 1.0, NAN, "50991310ce75437fddc0c0daf7c93d958f1a60d14af55003ec695c358b183c4e"},
    {1000, 1.15, NAN, "8da76582c49e362b5a25c165ea58bdbf2fce61fc9817a2f9540de3c204cae350"},
    {1000, 3.0, 0.5, "945adaa6a19ae2c19155e577c130968948e0a9a79d0756c870316f7f8a937767"},
    {1000, 3.0, 2.29118, "91aa5485439eebbfc59a78cc3fffec843e4ab5d3ff91a174f0a9fa23385e5df6"},
    {1, 2.0, NAN, "98566d09b680e1350fb5548de9e6036a04336d8327530c7f90861c344ac001e8"},
};

static const struct {
    int64_t tokens;
    int steps;
    double mu;
} mu_cases[] = {
    {64, 1, 0x1.f8d2d3285f32ep+0},     {64, 4, 0x1.f30471126f308p+0},
    {64, 24, 0x1.cc4f38802f20ap+0},    {64, 50, 0x1.99fd3bc20f0c0p+0},
    {256, 1, 0x1.fced85eb474abp+0},    {256, 4, 0x1.f72f68d4575acp+0},
    {256, 24, 0x1.d0e6a6e617c58p+0},   {256, 50, 0x1.9f21aac9f8505p+0},
    {1024, 1, 0x1.06ac287b73d51p+1},   {1024, 4, 0x1.03eda3edfc01ep+1},
    {1024, 24, 0x1.e344607dba590p+0},  {1024, 50, 0x1.b3b366e99d618p+0},
    {4096, 1, 0x1.2781be92b493ep+1},   {4096, 4, 0x1.254561fd3d53dp+1},
    {4096, 24, 0x1.165da36e22539p+1},  {4096, 50, 0x1.02fd2bb418d33p+1},
    {4300, 1, 0x1.29afed8a3fe07p+1},   {4300, 4, 0x1.277c359c40aa3p+1},
    {4300, 24, 0x1.18ce161445eb1p+1},  {4300, 50, 0x1.05b886b04cbf6p+1},
    {4301, 1, 0x1.2f484c4a0587bp+0},   {4301, 4, 0x1.2f484c4a0587bp+0},
    {4301, 24, 0x1.2f484c4a0587bp+0},  {4301, 50, 0x1.2f484c4a0587bp+0},
    {8160, 1, 0x1.d68142b5b2291p+0},   {8160, 4, 0x1.d68142b5b2291p+0},
    {8160, 24, 0x1.d68142b5b2291p+0},  {8160, 50, 0x1.d68142b5b2291p+0},
    {65536, 1, 0x1.7199270db5f62p+3},  {65536, 4, 0x1.7199270db5f62p+3},
    {65536, 24, 0x1.7199270db5f62p+3}, {65536, 50, 0x1.7199270db5f62p+3},
};

static void parse(const char *json, struct schedule_config *out, struct err *e)
{
    struct config *c;
    assert_int_equal(config_parse("scheduler.json", json, strlen(json), &c, e), 0);
    schedule_config_parse(c, out, e);
    config_close(c);
}

static void sigmas_and_timesteps_are_those_of_diffusers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(diffusers_cases); i++) {
        struct schedule_config c = {.kind = "flow_euler",
                                    .train_timesteps = 1000,
                                    .shift = diffusers_cases[i].shift,
                                    .dynamic = !isnan(diffusers_cases[i].mu)};
        struct schedule s;
        struct err e = {0};
        assert_int_equal(schedule_make(&c, diffusers_cases[i].steps, diffusers_cases[i].mu, &s, &e),
                         0);
        assert_int_equal(s.steps, diffusers_cases[i].steps);
        struct sha256 *sum = sha256_new();
        sha256_add(sum, s.sigmas, (size_t)(s.steps + 1) * sizeof(float));
        sha256_add(sum, s.timesteps, (size_t)s.steps * sizeof(float));
        char hex[SHA256_HEX_SIZE];
        sha256_end(sum, hex);
        schedule_free(&s);
        assert_string_equal(hex, diffusers_cases[i].sha256);
    }
}

static void four_steps_at_1024_square_fall_as_published(void **state)
{
    (void)state;
    static const float expected[] = {1, 0.967384f, 0.908144f, 0.767200f, 0};
    struct schedule_config c = {.kind = "flow_euler", .train_timesteps = 1000, .dynamic = true};
    struct schedule s;
    struct err e = {0};
    assert_int_equal(schedule_make(&c, 4, flux2_empirical_mu(4096, 4), &s, &e), 0);
    for (int i = 0; i < 5; i++)
        assert_float_equal(s.sigmas[i], expected[i], 1e-6);
    assert_float_equal(s.timesteps[1], 967.384, 1e-3);
    schedule_free(&s);
}

static void mu_is_that_of_diffusers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(mu_cases); i++)
        assert_true(flux2_empirical_mu(mu_cases[i].tokens, mu_cases[i].steps) == mu_cases[i].mu);
}

static void the_shipped_scheduler_config_is_read(void **state)
{
    (void)state;
    struct schedule_config c;
    struct err e = {0};
    assert_int_equal(
        schedule_config_read("models/omni-mini/scheduler/scheduler_config.json", &c, &e), 0);
    assert_string_equal(c.kind, "flow_euler");
    assert_int_equal(c.train_timesteps, 1000);
    assert_true(c.shift == 2.0);
    assert_false(c.dynamic);
    assert_int_equal(schedule_kind_check(c.kind, &e), 0);
}

static void unknown_schedulers_are_named_with_what_there_is(void **state)
{
    (void)state;
    struct schedule_config c;
    struct err e = {0};
    parse("{\"_class_name\": \"HeunDiscreteScheduler\"}", &c, &e);
    assert_int_equal(e.code, -EINVAL);
    assert_non_null(strstr(e.text, "HeunDiscreteScheduler"));
    assert_non_null(strstr(e.text, "FlowMatchEulerDiscreteScheduler"));
    assert_int_equal(schedule_kind_check("heun", &e), -EINVAL);
    assert_non_null(strstr(e.text, "heun"));
    assert_non_null(strstr(e.text, "flow_euler"));
    assert_non_null(strstr(e.text, "dpmpp_2m_karras"));
}

static void options_that_would_change_the_sigmas_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const options[][2] = {
        {"use_karras_sigmas", "true"},      {"use_beta_sigmas", "true"},
        {"use_exponential_sigmas", "true"}, {"invert_sigmas", "true"},
        {"stochastic_sampling", "true"},    {"shift_terminal", "0.02"},
    };
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        char json[200];
        struct schedule_config c;
        struct err e = {0};
        snprintf(json, sizeof json,
                 "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"%s\": %s}",
                 options[i][0], options[i][1]);
        parse(json, &c, &e);
        assert_int_equal(e.code, -ENOTSUP);
        assert_non_null(strstr(e.text, options[i][0]));
    }
    struct schedule_config c;
    struct err e = {0};
    parse("{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"use_dynamic_shifting\": true,"
          " \"time_shift_type\": \"cubic\"}",
          &c, &e);
    assert_non_null(strstr(e.text, "time_shift_type"));
}

static void options_that_are_off_or_null_are_accepted(void **state)
{
    (void)state;
    struct schedule_config c;
    struct err e = {0};
    parse("{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"use_karras_sigmas\": false,"
          " \"shift_terminal\": null, \"invert_sigmas\": false, \"use_dynamic_shifting\": true,"
          " \"time_shift_type\": \"exponential\", \"shift\": 3}",
          &c, &e);
    assert_int_equal(e.code, 0);
    assert_true(c.dynamic);
    assert_true(c.shift == 3.0);
}

static void a_failure_of_an_earlier_call_is_not_taken_for_this_one(void **state)
{
    (void)state;
    struct schedule_config c;
    struct schedule s;
    struct config *config;
    struct err e = {.code = -EDOM, .text = "older"};
    const char *json = "{\"_class_name\": \"DDIMScheduler\", \"beta_schedule\": \"linear\"}";
    assert_int_equal(config_parse("scheduler.json", json, strlen(json), &config, &e), 0);
    assert_int_equal(schedule_config_parse(config, &c, &e), 0);
    config_close(config);
    assert_int_equal(schedule_swap(&c, "euler", &e), 0);
    assert_int_equal(schedule_make(&c, 4, 0, &s, &e), 0);
    schedule_free(&s);
}

static void numbers_out_of_range_are_refused(void **state)
{
    (void)state;
    struct schedule_config c;
    struct err e = {0};
    parse("{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"shift\": -2}", &c, &e);
    assert_non_null(strstr(e.text, "shift is -2"));
    struct schedule s;
    c = (struct schedule_config){.kind = "flow_euler", .train_timesteps = 1000, .shift = 1};
    assert_int_equal(schedule_make(&c, 0, 0, &s, &e), -EINVAL);
    assert_int_equal(schedule_make(&c, SCHEDULE_MAX_STEPS + 1, 0, &s, &e), -EINVAL);
    c.dynamic = true;
    assert_int_equal(schedule_make(&c, 4, NAN, &s, &e), -EINVAL);
    assert_null(s.sigmas);
}

/* Parses `json` and swaps `kind` in. */
static void swap(const char *json, const char *kind, struct schedule_config *c, struct err *e)
{
    parse(json, c, e);
    assert_int_equal(e->code, 0);
    schedule_swap(c, kind, e);
}

static void kinds_that_do_not_fit_the_training_are_refused_with_those_that_do(void **state)
{
    (void)state;
    struct schedule_config c;
    struct err e = {0};
    swap("{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\"}", "ddim", &c, &e);
    assert_int_equal(e.code, -EINVAL);
    assert_non_null(strstr(e.text, "ddim"));
    assert_non_null(strstr(e.text, "flow_euler, unipc do"));
    assert_string_equal(c.kind, "flow_euler");
    e = (struct err){0};
    swap("{\"_class_name\": \"UniPCMultistepScheduler\", \"use_flow_sigmas\": true,"
         " \"prediction_type\": \"flow_prediction\"}",
         "dpmpp_2m", &c, &e);
    assert_int_equal(e.code, -EINVAL);
    e = (struct err){0};
    swap("{\"_class_name\": \"EulerDiscreteScheduler\"}", "flow_euler", &c, &e);
    assert_int_equal(e.code, -EINVAL);
    assert_non_null(strstr(e.text, "euler, euler_a, dpmpp_2m, dpmpp_2m_karras, ddim, pndm, unipc"));
    e = (struct err){0};
    swap("{\"_class_name\": \"EulerDiscreteScheduler\"}", "magic", &c, &e);
    assert_non_null(strstr(e.text, "'magic' is unknown"));
    e = (struct err){0};
    parse("{\"_class_name\": \"DPMSolverMultistepScheduler\", \"use_flow_sigmas\": true}", &c, &e);
    assert_int_equal(e.code, -EINVAL);
}

static void a_class_with_karras_sigmas_has_a_word_of_its_own(void **state)
{
    (void)state;
    struct schedule_config c;
    struct err e = {0};
    parse("{\"_class_name\": \"DPMSolverMultistepScheduler\", \"use_karras_sigmas\": true}", &c,
          &e);
    assert_string_equal(c.kind, "dpmpp_2m_karras");
    parse("{\"_class_name\": \"DPMSolverMultistepScheduler\"}", &c, &e);
    assert_string_equal(c.kind, "dpmpp_2m");
}

static void options_of_the_noise_schedulers_that_are_not_supported_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const options[][2] = {
        {"thresholding", "true"},
        {"use_lu_lambdas", "true"},
        {"predict_x0", "false"},
        {"disable_corrector", "[0, 1]"},
        {"trained_betas", "[0.1]"},
        {"algorithm_type", "\"sde-dpmsolver++\""},
        {"timestep_type", "\"continuous\""},
        {"lambda_min_clipped", "-5.1"},
        {"beta_schedule", "\"sigmoid\""},
        {"timestep_spacing", "\"random\""},
        {"prediction_type", "\"score\""},
        {"prediction_type", "\"flow_prediction\""},
        {"final_sigmas_type", "\"one\""},
    };
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        char json[200];
        struct schedule_config c;
        struct err e = {0};
        snprintf(json, sizeof json,
                 "{\"_class_name\": \"DPMSolverMultistepScheduler\", \"%s\": %s}", options[i][0],
                 options[i][1]);
        parse(json, &c, &e);
        assert_int_equal(e.code, -ENOTSUP);
        assert_non_null(strstr(e.text, options[i][0]));
    }
}

static void an_infinity_as_python_writes_it_means_nothing_is_stated(void **state)
{
    (void)state;
    struct schedule_config c;
    struct err e = {0};
    parse("{\"_class_name\": \"DPMSolverMultistepScheduler\", \"lambda_min_clipped\": -Infinity,"
          " \"sigma_max\":Infinity, \"solver_type\": \"heun\"}",
          &c, &e);
    assert_int_equal(e.code, 0);
    assert_int_equal(c.solver, SOLVER_HEUN);
    parse("{\"_class_name\": \"-Infinity \\\" Infinity\"}", &c, &e);
    assert_non_null(strstr(e.text, "'-Infinity \" Infinity'"));
}

static void steps_that_a_kind_cannot_make_are_said_in_words(void **state)
{
    (void)state;
    static const struct {
        const char *options, *word;
        int steps, first;
        const char *says;
    } wrong[] = {
        {"", "lcm", 51, 0, "at most 50 steps"},
        {"\"num_train_timesteps\": 10,", "ddim", 11, 0, "at most 10 steps"},
        {"\"steps_offset\": 1,", "ddim", 1000, 0, "timestep 1000"},
        {"\"timestep_spacing\": \"leading\",", "dpmpp_2m", 1000, 0, "not finite"},
        {"\"rescale_betas_zero_snr\": true, \"timestep_spacing\": \"trailing\",", "ddim", 5, 0,
         "not finite"},
        {"\"skip_prk_steps\": false,", "pndm", 3, 0, "at least 4 steps"},
        {"", "euler", 5, 5, "no step is left"},
        {"", "euler", 5, -1, "no step is left"},
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        char json[200];
        struct schedule_config c;
        struct schedule s;
        struct err e = {0};
        snprintf(json, sizeof json, "{%s \"_class_name\": \"EulerDiscreteScheduler\"}",
                 wrong[i].options);
        swap(json, wrong[i].word, &c, &e);
        assert_int_equal(e.code, 0);
        assert_int_not_equal(schedule_make_from(&c, wrong[i].steps, wrong[i].first, 0, &s, &e), 0);
        if (!strstr(e.text, wrong[i].says))
            fail_msg("'%s' does not say '%s'", e.text, wrong[i].says);
        assert_null(s.at);
    }
}

static void every_kind_makes_every_number_of_steps_that_fits_its_table(void **state)
{
    (void)state;
    static const char *const words[] = {"euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras",
                                        "ddim",  "pndm",    "unipc",    "lcm"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        for (int steps = 1; steps < SCHEDULE_MAX_STEPS; steps += steps < 60 ? 1 : 47) {
            struct schedule_config c;
            struct schedule s;
            struct err e = {0};
            swap("{\"_class_name\": \"PNDMScheduler\", \"beta_schedule\": \"scaled_linear\","
                 " \"beta_start\": 0.00085, \"beta_end\": 0.012, \"skip_prk_steps\": true}",
                 words[i], &c, &e);
            int code = schedule_make(&c, steps, 0, &s, &e);
            assert_int_equal(code, !strcmp(words[i], "lcm") && steps > 50 ? -EINVAL : 0);
            assert_true(code || s.steps >= steps);
            schedule_free(&s);
        }
}

static void strength_leaves_as_many_steps_as_the_reference_pipelines_take(void **state)
{
    (void)state;
    static const struct {
        bool flow;
        int steps;
        double strength;
        int first;
    } known[] = {
        {false, 50, 0.3, 35}, {false, 50, 0.8, 10}, {false, 8, 0.75, 2},    {false, 4, 0.6, 2},
        {true, 4, 0.6, 1},    {true, 8, 0.3, 5},    {false, 50, 0.9999, 1}, {true, 50, 0.9999, 0},
        {false, 10, 1, 0},    {false, 10, 0, 10},   {false, 100, 0.29, 72},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        struct schedule_config c = {.flow = known[i].flow};
        assert_int_equal(schedule_start(&c, known[i].steps, known[i].strength), known[i].first);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sigmas_and_timesteps_are_those_of_diffusers),
        cmocka_unit_test(four_steps_at_1024_square_fall_as_published),
        cmocka_unit_test(mu_is_that_of_diffusers),
        cmocka_unit_test(the_shipped_scheduler_config_is_read),
        cmocka_unit_test(unknown_schedulers_are_named_with_what_there_is),
        cmocka_unit_test(options_that_would_change_the_sigmas_are_refused_by_name),
        cmocka_unit_test(options_that_are_off_or_null_are_accepted),
        cmocka_unit_test(a_failure_of_an_earlier_call_is_not_taken_for_this_one),
        cmocka_unit_test(numbers_out_of_range_are_refused),
        cmocka_unit_test(kinds_that_do_not_fit_the_training_are_refused_with_those_that_do),
        cmocka_unit_test(a_class_with_karras_sigmas_has_a_word_of_its_own),
        cmocka_unit_test(
            options_of_the_noise_schedulers_that_are_not_supported_are_refused_by_name),
        cmocka_unit_test(an_infinity_as_python_writes_it_means_nothing_is_stated),
        cmocka_unit_test(steps_that_a_kind_cannot_make_are_said_in_words),
        cmocka_unit_test(every_kind_makes_every_number_of_steps_that_fits_its_table),
        cmocka_unit_test(strength_leaves_as_many_steps_as_the_reference_pipelines_take),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
