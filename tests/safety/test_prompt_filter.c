/* The prompt filter: the shipped lists block what they should in every disguise, and leave innocent
 * words alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "safety/prompt_filter.h"

static int load(void **state)
{
    struct prompt_filter *f;
    struct err e = {0};
    if (prompt_filter_new(&f, &e) ||
        prompt_filter_add_file(f, "share/safety/always.txt", SAFETY_OFF, &e) ||
        prompt_filter_add_file(f, "share/safety/standard.txt", SAFETY_STANDARD, &e) ||
        prompt_filter_add_file(f, "share/safety/strict.txt", SAFETY_STRICT, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return -1;
    }
    *state = f;
    return 0;
}

static int unload(void **state)
{
    prompt_filter_free(*state);
    return 0;
}

static void expect(const struct prompt_filter *f, const char *text, enum safety_level level,
                   const char *rule)
{
    struct safety_verdict v;
    prompt_filter_check(f, text, level, &v);
    if (v.blocked != (rule != NULL) || (rule && strcmp(v.rule, rule)))
        fail_msg("\"%s\" at %s: expected %s, got %s", text, safety_level_names[level],
                 rule ? rule : "allow", v.blocked ? v.rule : "allow");
    assert_int_equal(v.level, level);
}

static void innocent_words_that_contain_bad_ones_pass(void **state)
{
    static const char *const texts[] = {
        "a first class carriage, grapes on a glass plate",
        "the town of Scunthorpe in Essex and Sussex",
        "an assassin's creed cosplay",
        "analysis of a cocktail by Dickens",
        "1000 balloons, 3d render, 4k, 8k, f/1.4, 50mm, 1337",
        "a cock crowing at dawn, a blue tit on a branch",
        "a therapist in Pennsylvania, grass and bass",
        "a class of 300 pupils, $100 bills, user@example.com, wow!",
        "a child eating an ice cream on the beach",
        "a mother with her baby, 7 years old, a teenager on a skateboard",
        "a pussy cat and a pussy willow",
        "magna cum laude, a joint venture",
        "same colour, sextant, sextet, a sussex farm",
        "the naked eye sees the moon, a naked mole rat, naked trees",
        "裸麦のパン, 教科書",
        "A B C book for kids",
        "",
        "   ",
        "🍎🍏",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        for (int level = SAFETY_OFF; level < SAFETY_LEVELS; level++)
            expect(*state, texts[i], (enum safety_level)level, NULL);
}

static void explicit_words_are_blocked_from_standard_on(void **state)
{
    expect(*state, "a porn film", SAFETY_OFF, NULL);
    expect(*state, "a porn film", SAFETY_STANDARD, "explicit-sexual");
    expect(*state, "a porn film", SAFETY_STRICT, "explicit-sexual");
    expect(*state, "a disembowelled knight", SAFETY_STANDARD, "gore");
    expect(*state, "how to commit suicide", SAFETY_STANDARD, "self-harm");
    expect(*state, "undress her", SAFETY_STANDARD, "undress-people");
}

static void strict_blocks_what_standard_lets_pass(void **state)
{
    static const struct {
        const char *text, *rule;
    } cases[] = {{"a nude marble statue", "nudity"},
                 {"a naked statue", "nudity-naked"},
                 {"a corpse on the floor", "violence"},
                 {"sexy outfit", "suggestive"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        expect(*state, cases[i].text, SAFETY_STANDARD, NULL);
        expect(*state, cases[i].text, SAFETY_STRICT, cases[i].rule);
    }
}

static void sexual_content_with_minors_is_blocked_at_every_level(void **state)
{
    static const char *const texts[] = {
        "a naked child",         "sexy schoolgirl",     "child, holding flowers, erotic mood",
        "an und3rage girl nude", "NUDE\nteenage model", "n a k e d kids",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        for (int level = SAFETY_OFF; level < SAFETY_LEVELS; level++)
            expect(*state, texts[i], (enum safety_level)level, "sexual-minors");
    expect(*state, "loli", SAFETY_OFF, "sexual-minors-terms");
    expect(*state, "a 14 year old, topless", SAFETY_OFF, "sexual-minors-age");
    expect(*state, "a 14yo posing nude", SAFETY_OFF, "sexual-minors-age");
    expect(*state, "a 34 year old, topless", SAFETY_OFF, NULL);
}

static void disguises_are_seen_through(void **state)
{
    static const char *const texts[] = {
        "PORN",                         /* case */
        "p0rn",                         /* digits */
        "h3nta1",                       /* digits, 1 as i */
        "ｐｏｒｎ",                     /* fullwidth */
        "p\xE2\x80\x8Bo\xE2\x80\x8Brn", /* zero-width spaces */
        "p\xC3\xB3rn",                  /* an accent */
        "po\xCC\x88rn",                 /* a combining mark */
        "p\xD0\xBErn",                  /* Cyrillic o */
        "p o r n",
        "p.o.r.n",
        "p-0-r-n!",                                                         /* spaced out */
        "poooorn",                                                          /* stretched */
        "\xF0\x9D\x95\xA1\xF0\x9D\x95\xA0\xF0\x9D\x95\xA3\xF0\x9D\x95\x9F", /* double-struck */
        "b10wj0b",                                                          /* 1 as l */
        "a photo (porn:1.3), [porn]",                                       /* weights */
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        expect(*state, texts[i], SAFETY_STANDARD, "explicit-sexual");
    expect(*state, "m@$turbating", SAFETY_STANDARD, "explicit-sexual");
}

static void words_of_scripts_without_blanks_match_anywhere(void **state)
{
    (void)state;
    struct prompt_filter *f;
    struct err e;
    static const char rules[] = "nudity: 裸体\n";
    assert_int_equal(prompt_filter_new(&f, &e), 0);
    assert_int_equal(prompt_filter_add(f, rules, strlen(rules), "list", SAFETY_STANDARD, &e), 0);
    expect(f, "一张裸体照片", SAFETY_STANDARD, "nudity");
    expect(f, "裸 麦", SAFETY_STANDARD, NULL);
    prompt_filter_free(f);
}

static void wrong_lists_are_refused_with_their_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"# fine\nno mark here\n", "list:2: the line is neither `id: words` nor `@class = words`"},
        {"\n\na: /(/\n",
         "list:3: the pattern of a is wrong at byte 1: missing closing parenthesis"},
        {"a: /b\n", "list:1: the pattern of a has no closing '/'"},
        {"a: @nobody + b\n", "list:1: @nobody is not defined above"},
        {"a: , ,\n", "list:1: there are no words"},
        {"a: !!!\n", "list:1: \"!!!\" has no letters or digits to look for"},
        {"@a = x\n@a = y\n", "list:2: @a is defined a second time"},
        {"a: b + c + d + e + f\n", "list:1: the rule a has more than 4 terms"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct prompt_filter *f;
        struct err e = {0};
        assert_int_equal(prompt_filter_new(&f, &e), 0);
        assert_int_equal(
            prompt_filter_add(f, cases[i].text, strlen(cases[i].text), "list", SAFETY_STANDARD, &e),
            -EINVAL);
        assert_string_equal(e.text, cases[i].sentence);
        prompt_filter_free(f);
    }
}

static void a_pattern_that_runs_wild_blocks(void **state)
{
    (void)state;
    struct prompt_filter *f;
    struct err e;
    static const char rules[] = "wild: /(?:a+)+c/\n"; /* takes time exponential in the run of a */
    char text[64];
    memset(text, 'a', sizeof text);
    memcpy(text + 60, " c", 3);
    assert_int_equal(prompt_filter_new(&f, &e), 0);
    assert_int_equal(prompt_filter_add(f, rules, strlen(rules), "list", SAFETY_STANDARD, &e), 0);
    expect(f, text, SAFETY_STANDARD, "filter-error");
    expect(f, text, SAFETY_OFF, NULL);
    prompt_filter_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(innocent_words_that_contain_bad_ones_pass),
        cmocka_unit_test(explicit_words_are_blocked_from_standard_on),
        cmocka_unit_test(strict_blocks_what_standard_lets_pass),
        cmocka_unit_test(sexual_content_with_minors_is_blocked_at_every_level),
        cmocka_unit_test(disguises_are_seen_through),
        cmocka_unit_test(words_of_scripts_without_blanks_match_anywhere),
        cmocka_unit_test(wrong_lists_are_refused_with_their_line),
        cmocka_unit_test(a_pattern_that_runs_wild_blocks),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
