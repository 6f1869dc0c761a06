/* Tokenizers give the ids of the `tokenizers` library (rows of tests/reference/tokens.json), refuse
 * what they do not support by name, and survive what is wrong. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/text/tokenizer.h"
#include "../support/scratch.h"

static struct tokenizer *mini;

static int open_mini(void **state)
{
    (void)state;
    struct err e = {0};
    if (!tokenizer_open("tests/engine/golden/tokenizer-qwen", &mini, &e))
        return 0;
    print_error("%s\n", e.text);
    return -1;
}

static int close_mini(void **state)
{
    (void)state;
    tokenizer_close(mini);
    return 0;
}

struct tokens {
    int32_t *ids;
    size_t count;
};

static struct tokens encode(const struct tokenizer *t, const char *text, size_t n)
{
    struct tokens k;
    struct err e = {0};
    if (tokenizer_encode(t, text, n, &k.ids, &k.count, &e))
        fail_msg("%s", e.text);
    return k;
}

/* ---- against the reference ---- */

static json_t *load_json(const char *path)
{
    json_error_t fault;
    json_t *root = json_load_file(path, 0, &fault);
    if (!root)
        fail_msg("%s: %s", path, fault.text);
    return root;
}

static void assert_ids(const struct tokens *k, const json_t *ids, const char *text)
{
    if (k->count != json_array_size(ids))
        fail_msg("%zu tokens, expected %zu: %s", k->count, json_array_size(ids), text);
    for (size_t i = 0; i < k->count; i++)
        if (k->ids[i] != json_integer_value(json_array_get(ids, i)))
            fail_msg("token %zu is %d: %s", i, k->ids[i], text);
}

static void assert_digest(const struct tokens *k, const json_t *expected, const char *text)
{
    char hex[SHA256_HEX_SIZE];
    sha256_hex(k->ids, k->count * sizeof *k->ids, hex);
    if ((json_int_t)k->count != json_integer_value(json_array_get(expected, 0)) ||
        strcmp(hex, json_string_value(json_array_get(expected, 1))) != 0)
        fail_msg("%zu tokens that are not the reference's: repeated '%s'", k->count, text);
}

static void texts_of_many_scripts_get_the_ids_of_the_library(void **state)
{
    (void)state;
    json_t *rows = load_json("tests/reference/tokens.json"), *row;
    size_t i;
    assert_true(json_array_size(rows) > 180);
    json_array_foreach(rows, i, row)
    {
        const json_t *text = json_array_get(row, 0), *ids = json_array_get(row, 2);
        json_int_t times = json_integer_value(json_array_get(row, 1));
        AUTO_STR struct str s = {0};
        for (json_int_t k = 0; k < times; k++)
            str_addn(&s, json_string_value(text), json_string_length(text));
        struct tokens k = encode(mini, str_cstr(&s), s.len);
        (times == 1 ? assert_ids : assert_digest)(&k, ids, json_string_value(text));
        free(k.ids);
    }
    json_decref(rows);
}

static void prompts_of_the_shipped_model_get_its_training_ids(void **state)
{
    (void)state;
    json_t *rows = load_json("models/omni-mini/reference/reference.json"), *row;
    struct tokenizer *shipped = NULL;
    struct err e = {0};
    size_t i;
    assert_int_equal(tokenizer_open("models/omni-mini/tokenizer", &shipped, &e), 0);
    assert_int_equal(json_array_size(rows), 8);
    json_array_foreach(rows, i, row)
    {
        AUTO_STR struct str s = {0};
        str_addf(&s,
                 "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
                 json_string_value(json_object_get(row, "prompt")));
        struct tokens k = encode(shipped, s.data, s.len);
        const json_t *ids = json_object_get(row, "tokens"), *mask = json_object_get(row, "mask");
        for (size_t j = 0; j < json_array_size(ids); j++) {
            bool real = json_integer_value(json_array_get(mask, j)) == 1;
            assert_int_equal(real, j < k.count);
            assert_int_equal(real ? k.ids[j] : tokenizer_pad(shipped),
                             json_integer_value(json_array_get(ids, j)));
        }
        free(k.ids);
    }
    tokenizer_close(shipped);
    json_decref(rows);
}

static void the_vocabulary_is_known_by_text(void **state)
{
    (void)state;
    assert_int_equal(tokenizer_vocabulary(mini), 4096);
    assert_int_equal(tokenizer_pad(mini), 4091);
    assert_int_equal(tokenizer_id(mini, "<|im_start|>"), 4092);
    assert_int_equal(tokenizer_id(mini, "!"), 0);
    assert_int_equal(tokenizer_id(mini, "\xC4\x8A"), 198); /* Ċ, a newline */
    assert_int_equal(tokenizer_id(mini, "no such token"), -1);
    assert_int_equal(tokenizer_id(mini, ""), -1);
}

static void one_long_word_does_not_take_quadratic_time(void **state)
{
    (void)state;
    size_t n = TOKENIZER_TEXT_LIMIT;
    AUTO_FREE char *text = malloc(n);
    for (size_t i = 0; i < n; i++)
        text[i] = "abcdefgh"[i * 2654435761u >> 7 & 7];
    double start = clock_seconds();
    struct tokens k = encode(mini, text, n);
    assert_true(clock_seconds() - start < 120); /* 0.3 s; an hour if it were quadratic */
    assert_true(k.count > n / 8);
    free(k.ids);
}

/* ---- texts that are refused ---- */

static void assert_text_refused(const char *text, size_t n, int code)
{
    int32_t *ids;
    size_t count;
    struct err e = {0};
    assert_int_equal(tokenizer_encode(mini, text, n, &ids, &count, &e), code);
    assert_true(e.text[0]);
}

static void invalid_utf8_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\xff",   "a\x80", "\xc3", "\xe2\x82", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80",
        "caf\xe9"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_text_refused(bad[i], strlen(bad[i]), -EILSEQ);
    assert_text_refused("a\0b", 3, -EILSEQ);
}

static void texts_beyond_the_limits_are_refused(void **state)
{
    (void)state;
    size_t n = TOKENIZER_TEXT_LIMIT + 1;
    AUTO_FREE char *text = malloc(n);
    memset(text, 'x', n);
    assert_text_refused(text, n, -EFBIG);
    for (size_t i = 0; i + 1 < 4000; i += 2)
        memcpy(text + i, i % 4 ? "\xCC\x81" : "\xCC\xA3", 2);
    assert_text_refused(text, 4000, -EINVAL);
}

/* ---- small tokenizers, made here ---- */

/* A tokenizer.json with all byte symbols and "ab" (256), "abc" (257), then what is given. */
struct parts {
    const char *vocab, *merges, *added, *normalizer, *pre, *post, *model;
};

static const char *or_else(const char *given, const char *usual)
{
    return given ? given : usual;
}

static void put_byte_symbols(struct str *s)
{
    int others = 0;
    for (int b = 0; b < 256; b++) {
        bool printable = (b > 32 && b < 127) || (b > 160 && b != 173);
        str_addf(s, "%s\"\\u%04x\":%d", b ? "," : "", printable ? b : 256 + others++, b);
    }
}

static char *make_file(const struct parts *p)
{
    struct str s = {0};
    str_addf(&s, "{\"added_tokens\":[%s],\"normalizer\":%s,", or_else(p->added, ""),
             or_else(p->normalizer, "null"));
    str_addf(&s, "\"pre_tokenizer\":%s,\"post_processor\":%s,",
             or_else(p->pre, "{\"type\":\"ByteLevel\",\"use_regex\":false}"),
             or_else(p->post, "null"));
    str_addf(&s, "\"model\":{\"type\":\"BPE\",%s\"merges\":[%s],\"vocab\":{", or_else(p->model, ""),
             or_else(p->merges, "\"a b\",[\"ab\",\"c\"]"));
    put_byte_symbols(&s);
    str_addf(&s, ",\"ab\":256,\"abc\":257%s}}}", or_else(p->vocab, ""));
    return str_take(&s);
}

static int parse(const struct parts *p, struct tokenizer **t, struct err *e)
{
    AUTO_FREE char *json = make_file(p);
    return tokenizer_parse("t.json", json, strlen(json), t, e);
}

static void assert_encodes(const struct parts *p, const char *text, const int32_t *ids,
                           size_t count)
{
    struct tokenizer *t;
    struct err e = {0};
    if (parse(p, &t, &e))
        fail_msg("%s", e.text);
    struct tokens k = encode(t, text, strlen(text));
    assert_int_equal(k.count, count);
    assert_memory_equal(k.ids, ids, count * sizeof *ids);
    free(k.ids);
    tokenizer_close(t);
}

#define IDS(...) (const int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

static void merges_come_as_texts_and_as_pairs(void **state)
{
    (void)state;
    assert_encodes(&(struct parts){0}, "abcab", IDS(257, 256));
}

static void lower_ranks_merge_first_and_ties_go_left(void **state)
{
    (void)state;
    struct parts p = {.vocab = ",\"bc\":258,\"aa\":259", .merges = "\"b c\",\"a b\",\"a a\""};
    assert_encodes(&p, "abc", IDS('a', 258));
    assert_encodes(&p, "aaa", IDS(259, 'a'));
}

static void ignore_merges_takes_whole_words_from_the_vocabulary(void **state)
{
    (void)state;
    struct parts p = {.vocab = ",\"xyz\":258", .merges = ""};
    assert_encodes(&p, "xyz", IDS('x', 'y', 'z'));
    p.model = "\"ignore_merges\":true,";
    assert_encodes(&p, "xyz", IDS(258));
    assert_encodes(&p, "xyzz", IDS('x', 'y', 'z', 'z'));
}

static void the_longest_added_token_wins_and_takes_its_white_space(void **state)
{
    (void)state;
    struct parts p = {.added = "{\"id\":300,\"content\":\"<a>\",\"lstrip\":true,\"special\":true},"
                               "{\"id\":301,\"content\":\"<a>b\",\"rstrip\":true,\"special\":true},"
                               "{\"id\":302,\"content\":\"<\",\"special\":true}"};
    assert_encodes(&p, "a \xE3\x80\x80<a>b \n a<a>c<",
                   IDS('a', ' ', 0xE3, 0x80, 0x80, 301, 'a', 300, 'c', 302));
    assert_encodes(&p, "a \xE3\x80\x80<a>", IDS('a', 300));
}

static void normalized_added_tokens_are_found_after_nfc(void **state)
{
    (void)state;
    struct parts p = {.normalizer = "{\"type\":\"NFC\"}",
                      .added = "{\"id\":300,\"content\":\"e\xCC\x81\",\"normalized\":true},"
                               "{\"id\":301,\"content\":\"o\xCC\x81\",\"normalized\":false}"};
    assert_encodes(&p,
                   "\xC3\xA9"
                   "e\xCC\x81",
                   IDS(300, 300));
    assert_encodes(&p, "o\xCC\x81\xC3\xB3", IDS(301, 0xC3, 0xB3));
}

static void white_space_in_patterns_is_that_of_unicode(void **state)
{
    (void)state;
    /* White space becomes a word of its own, so that x does not merge with its first byte. */
    struct parts p = {.pre = "{\"type\":\"Sequence\",\"pretokenizers\":["
                             "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\s+|[^\\\\S]\"},"
                             "\"behavior\":\"Isolated\",\"invert\":false},"
                             "{\"type\":\"ByteLevel\",\"use_regex\":false}]}",
                      .vocab = ",\"x\xC3\x82\":258,\"x\xC3\xA1\":259",
                      .merges = "\"x \xC3\x82\",\"x \xC3\xA1\""};
    assert_encodes(&p, "x\xC2\x85", IDS('x', 0xC2, 0x85)); /* U+0085 is */
    assert_encodes(&p, "x\xE1\xA0\x8E",
                   IDS(259, 0xA0, 0x8E)); /* U+180E is not, though \s of PCRE */
}

static void what_is_not_supported_is_refused_by_name(void **state)
{
    (void)state;
#define BYTES ",{\"type\":\"ByteLevel\",\"use_regex\":false}]}"
#define SPLIT(regex, behavior)                                                                     \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"        \
    "\"" regex "\"},\"behavior\":\"" behavior "\"}" BYTES
    static const struct {
        struct parts parts;
        const char *message;
    } faults[] = {
        {{.normalizer = "{\"type\":\"Strip\"}"}, "normalizer of type 'Strip'"},
        {{.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"}]}"}, "'NFKC'"},
        {{.pre = "null"}, "no ByteLevel"},
        {{.pre = "{\"type\":\"Metaspace\"}"}, "'Metaspace'"},
        {{.pre = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}"}, "add_prefix_space"},
        {{.pre = SPLIT("a", "Removed")}, "behavior 'Removed'"},
        {{.pre = SPLIT("\\\\w+", "Isolated")}, "escape at byte 0"},
        {{.pre = SPLIT("^a", "Isolated")}, "anchor at byte 0"},
        {{.pre = SPLIT("(?R)", "Isolated")}, "group at byte 0"},
        {{.pre = SPLIT("(*ACCEPT)", "Isolated")}, "group at byte 0"},
        {{.pre = SPLIT("[a&&b]", "Isolated")}, "nested class at byte 2"},
        {{.pre = SPLIT("[a[b]]", "Isolated")}, "nested class"},
        {{.pre = SPLIT("\\\\pL", "Isolated")}, "property at byte 0"},
        {{.pre = SPLIT("\\\\p{Nonsense}", "Isolated")}, "the pattern is wrong"},
        {{.pre = SPLIT("a(", "Isolated")}, "the pattern is wrong"},
        {{.pre = SPLIT("a\\\\", "Isolated")}, "escape at byte 1"},
        {{.post = "{\"type\":\"TemplateProcessing\"}"}, "'TemplateProcessing'"},
        {{.added = "{\"id\":1,\"content\":\"x\",\"single_word\":true}"}, "single_word"},
        {{.added = "{\"id\":1,\"content\":\"\"}"}, "content must have"},
        {{.added = "{\"id\":-1,\"content\":\"x\"}"}, "no id from 0"},
        {{.model = "\"dropout\":0.1,"}, "dropout"},
        {{.model = "\"byte_fallback\":true,"}, "byte_fallback"},
        {{.model = "\"continuing_subword_prefix\":\"##\","}, "continuing_subword_prefix '##'"},
        {{.model = "\"end_of_word_suffix\":\"</w>\","}, "byte 0x00 at the end of a word"},
        {{.model = "\"end_of_word_suffix\":\"</w>\",\"ignore_merges\":true,"}, "and ignore_merges"},
        {{.merges = "\"a q b\""}, "merge 0 is neither"},
        {{.merges = "3"}, "merge 0 is neither"},
        {{.merges = "\"a b\" \"a b\""}, "does not end with ','"},
        {{.merges = "\"a x\""}, "the result is not in the vocabulary"},
        {{.merges = "\"\xC3\xBF\xC3\xBF b\""}, "the first is not in the vocabulary"},
        {{.vocab = ",\"ab\":3"}, "'ab' is there twice"},
        {{.vocab = ",\"xx\":-3"}, "has id -3"},
        {{.vocab = ",\"xx\":1.5"}, "does not end with ','"},
        {{.vocab = ",\"\\ud800\":300"}, "is not \"token\": id"},
    };
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        struct tokenizer *t = NULL;
        struct err e = {0};
        assert_true(parse(&faults[i].parts, &t, &e) < 0);
        if (strncmp(e.text, "t.json: ", 8) != 0 || !strstr(e.text, faults[i].message))
            fail_msg("expected '%s' in: %s", faults[i].message, e.text);
    }
}

static void a_model_of_another_type_is_refused_by_name(void **state)
{
    (void)state;
    static const char json[] = "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},"
                               "\"model\":{\"type\":\"Unigram\",\"vocab\":{},\"merges\":[]}}";
    struct tokenizer *t;
    struct err e = {0};
    assert_int_equal(tokenizer_parse("t.json", json, strlen(json), &t, &e), -ENOTSUP);
    assert_non_null(strstr(e.text, "model of type 'Unigram'"));
}

static void a_vocabulary_that_lacks_a_byte_is_refused(void **state)
{
    (void)state;
    AUTO_FREE char *json = make_file(&(struct parts){0});
    char *at = strstr(json, "\"\\u0041\":");
    memcpy(at, "\"\\u0841\":", 8);
    struct tokenizer *t;
    struct err e = {0};
    assert_int_equal(tokenizer_parse("t.json", json, strlen(json), &t, &e), -EINVAL);
    assert_non_null(strstr(e.text, "no token for byte 0x41"));
}

static void every_truncation_of_a_file_is_refused(void **state)
{
    (void)state;
    AUTO_FREE char *json = make_file(&(struct parts){.added = "{\"id\":1,\"content\":\"x\"}"});
    for (size_t n = 0; n < strlen(json); n++) {
        AUTO_FREE char *exact = malloc(n + 1); /* so that a sanitizer sees a read past n */
        memcpy(exact, json, n);
        struct tokenizer *t;
        struct err e = {0};
        assert_int_equal(tokenizer_parse("t.json", exact, n, &t, &e), -EINVAL);
    }
}

/* All pairs of byte symbols, then triples up to `count` merges, spelled with escapes. */
static char *make_large_file(int count)
{
    int codes[256], others = 0;
    struct str s = {0};
    for (int b = 0; b < 256; b++)
        codes[b] = (b > 32 && b < 127) || (b > 160 && b != 173) ? b : 256 + others++;
    str_add(&s, "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},"
                "\"model\":{\"type\":\"BPE\",\"vocab\":{");
    put_byte_symbols(&s);
    for (int i = 0; i < count; i++)
        str_addf(&s, i < 65536 ? ",\"\\u%04x\\u%04x\":%d" : ",\"\\u%04x\\u%04x\\u0041\":%d",
                 codes[i >> 8 & 255], codes[i & 255], 256 + i);
    str_add(&s, "},\"merges\":[");
    for (int i = 0; i < count; i++)
        str_addf(&s, i < 65536 ? "%s[\"\\u%04x\",\"\\u%04x\"]" : "%s[\"\\u%04x\\u%04x\",\"A\"]",
                 i ? "," : "", codes[i >> 8 & 255], codes[i & 255]);
    str_add(&s, "]}}");
    return str_take(&s);
}

static void a_vocabulary_of_real_size_loads_at_once(void **state)
{
    (void)state;
    AUTO_FREE char *json = make_large_file(131072);
    struct tokenizer *t;
    struct err e = {0};
    double start = clock_seconds();
    assert_int_equal(tokenizer_parse("t.json", json, strlen(json), &t, &e), 0);
    assert_true(clock_seconds() - start < 60); /* 0.1 s without sanitizers */
    assert_int_equal(tokenizer_vocabulary(t), 256 + 131072);
    struct tokens k = encode(t, "AzA", 3); /* "Az" has a lower rank than "zA", then the triple */
    assert_int_equal(k.count, 1);
    assert_int_equal(k.ids[0], 256 + 65536 + 'A' * 256 + 'z');
    free(k.ids);
    tokenizer_close(t);
}

/* ---- the folder ---- */

static void the_pad_token_is_a_text_an_object_or_absent(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        int code, pad;
    } cases[] = {
        {"{\"pad_token\":\"<p>\"}", 0, 300},
        {"{\"pad_token\":{\"content\":\"<p>\",\"lstrip\":false}}", 0, 300},
        {"{\"pad_token\":null}", 0, -1},
        {"{}", 0, -1},
        {NULL, 0, -1},
        {"{\"pad_token\":\"<q>\"}", -EINVAL, 0},
        {"{\"pad_token\":7}", -EINVAL, 0},
        {"{", -EINVAL, 0},
    };
    AUTO_FREE char *json = make_file(&(struct parts){.added = "{\"id\":300,\"content\":\"<p>\"}"});
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char folder[SCRATCH_SIZE], path[96];
        assert_non_null(mkdtemp(scratch_name(folder, "omnifs-tokenizer-XXXXXX")));
        snprintf(path, sizeof path, "%s/tokenizer.json", folder);
        file_write_atomic(AT_FDCWD, path, json, strlen(json), NULL);
        snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
        if (cases[i].options)
            file_write_atomic(AT_FDCWD, path, cases[i].options, strlen(cases[i].options), NULL);
        struct tokenizer *t = NULL;
        struct err e = {0};
        assert_int_equal(tokenizer_open(folder, &t, &e), cases[i].code);
        if (t) {
            assert_int_equal(tokenizer_pad(t), cases[i].pad);
            assert_int_equal(tokenizer_vocabulary(t), 301);
        }
        tokenizer_close(t);
        file_remove_tree(AT_FDCWD, folder);
    }
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct err e = {0};
    assert_int_equal(tokenizer_open("tests/no-such-folder", &t, &e), -ENOENT);
    assert_non_null(strstr(e.text, "tests/no-such-folder/tokenizer.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_of_many_scripts_get_the_ids_of_the_library),
        cmocka_unit_test(prompts_of_the_shipped_model_get_its_training_ids),
        cmocka_unit_test(the_vocabulary_is_known_by_text),
        cmocka_unit_test(one_long_word_does_not_take_quadratic_time),
        cmocka_unit_test(invalid_utf8_is_refused),
        cmocka_unit_test(texts_beyond_the_limits_are_refused),
        cmocka_unit_test(merges_come_as_texts_and_as_pairs),
        cmocka_unit_test(lower_ranks_merge_first_and_ties_go_left),
        cmocka_unit_test(ignore_merges_takes_whole_words_from_the_vocabulary),
        cmocka_unit_test(the_longest_added_token_wins_and_takes_its_white_space),
        cmocka_unit_test(normalized_added_tokens_are_found_after_nfc),
        cmocka_unit_test(white_space_in_patterns_is_that_of_unicode),
        cmocka_unit_test(what_is_not_supported_is_refused_by_name),
        cmocka_unit_test(a_model_of_another_type_is_refused_by_name),
        cmocka_unit_test(a_vocabulary_that_lacks_a_byte_is_refused),
        cmocka_unit_test(every_truncation_of_a_file_is_refused),
        cmocka_unit_test(a_vocabulary_of_real_size_loads_at_once),
        cmocka_unit_test(the_pad_token_is_a_text_an_object_or_absent),
        cmocka_unit_test(a_missing_file_is_named),
    };
    return cmocka_run_group_tests(tests, open_mini, close_mini);
}
