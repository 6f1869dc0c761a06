/* CLIP's tokenizer, from every form that checkpoints have, gives the ids of transformers' class
 * (rows of tests/reference/clip_tokens.json, or of the file that CLIP_TOKENS names). */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/text/clip_prompt.h"
#include "../support/scratch.h"

#define GOLDEN "tests/engine/golden/clip/"

enum { TOKENS = 77, FOLDERS = 3 };
static const char *const folders[FOLDERS] = {GOLDEN "tokenizer", GOLDEN "tokenizer_2",
                                             GOLDEN "json"};

static struct tokenizer *open_folder(const char *folder)
{
    struct tokenizer *t = NULL;
    struct err e = {0};
    if (tokenizer_open(folder, &t, &e) != 0 || clip_prompt_check(t, folder, &e) != 0)
        fail_msg("%s", e.text);
    return t;
}

/* The last id of a row repeats up to TOKENS. */
static void assert_row(const struct tokenizer *t, const char *text, const json_t *expected)
{
    int32_t ids[TOKENS];
    bool truncated = false;
    struct err e = {0};
    size_t last = json_array_size(expected) - 1;
    if (clip_prompt(t, text, ids, TOKENS, &truncated, &e) != 0)
        fail_msg("%s", e.text);
    for (size_t i = 0; i < TOKENS; i++)
        if (ids[i] != json_integer_value(json_array_get(expected, i < last ? i : last)))
            fail_msg("token %zu is %d: %s", i, ids[i], text);
}

static void texts_of_many_scripts_get_the_ids_of_transformers(void **state)
{
    (void)state;
    const char *path = getenv("CLIP_TOKENS");
    json_error_t fault;
    json_t *rows = json_load_file(path ? path : "tests/reference/clip_tokens.json", 0, &fault);
    struct tokenizer *t[FOLDERS];
    size_t count = json_array_size(rows);
    assert_true(count >= 80);
    for (int k = 0; k < FOLDERS; k++)
        t[k] = open_folder(folders[k]);
    for (size_t i = 0; i < count; i++) {
        const json_t *row = json_array_get(rows, i);
        for (size_t k = 0; k < FOLDERS; k++)
            assert_row(t[k], json_string_value(json_array_get(row, 0)), json_array_get(row, k + 1));
    }
    for (int k = 0; k < FOLDERS; k++)
        tokenizer_close(t[k]);
    json_decref(rows);
}

static void prompts_beyond_the_room_are_cut_and_said_to_be(void **state)
{
    (void)state;
    struct tokenizer *t = open_folder(folders[0]);
    int32_t ids[6];
    bool truncated = false;
    struct err e = {0};
    assert_int_equal(clip_prompt(t, "! ! ! !", ids, 6, &truncated, &e), 0);
    assert_false(truncated);
    assert_int_equal(clip_prompt(t, "! ! ! ! !", ids, 6, &truncated, &e), 0);
    assert_true(truncated);
    assert_int_equal(ids[0], tokenizer_id(t, "<|startoftext|>"));
    assert_int_equal(ids[4], tokenizer_id(t, "!</w>"));
    assert_int_equal(ids[5], tokenizer_id(t, "<|endoftext|>"));
    tokenizer_close(t);
}

/* ---- folders with faults ---- */

static void put(const char *folder, const char *name, const char *text)
{
    AUTO_STR struct str path = {0};
    str_addf(&path, "%s/%s", folder, name);
    AUTO_FILE FILE *f = fopen(path.data, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
}

/* A copy of the golden folder with one file replaced. */
static void assert_refused(const char *name, const char *text, const char *message)
{
    static const char *const files[] = {"vocab.json", "merges.txt", "tokenizer_config.json"};
    char folder[SCRATCH_SIZE];
    struct tokenizer *t = NULL;
    struct err e = {0};
    assert_non_null(mkdtemp(scratch_name(folder, "omni-clip-XXXXXX")));
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        AUTO_STR struct str path = {0};
        AUTO_FREE char *contents = NULL;
        size_t size;
        str_addf(&path, "%s/%s", folders[0], files[i]);
        assert_int_equal(file_read(AT_FDCWD, path.data, 1 << 20, &contents, &size, &e), 0);
        put(folder, files[i], contents);
    }
    put(folder, name, text);
    assert_true(tokenizer_open(folder, &t, &e) < 0);
    assert_null(t);
    if (!strstr(e.text, folder) || !strstr(e.text, message))
        fail_msg("expected '%s' in: %s", message, e.text);
    file_remove_tree(AT_FDCWD, folder);
}

static void faults_of_the_files_are_named(void **state)
{
    (void)state;
    assert_refused("merges.txt", "#version: 0.2\na b c\n", "merges.txt: line 2 is not two symbols");
    assert_refused("merges.txt", "a\n", "line 1 is not two symbols");
    assert_refused("merges.txt", "# #qqq\nq \xC4\xA2zz\n", "not in the vocabulary");
    assert_refused("vocab.json", "{\"a\": 1", "vocab.json");
    assert_refused("vocab.json", "{}", "the first is not in the vocabulary");
    assert_refused("vocab.json", "{\"a\": -1}", "vocab.json: token 'a' has id -1");
    assert_refused("vocab.json", "\xff", "vocab.json: not valid UTF-8");
    assert_refused("tokenizer_config.json", "[]", "tokenizer_config.json: expected an object");
    assert_refused("tokenizer_config.json", "{\"pad_token\": \"<pad>\"}", "'<pad>'");
    assert_refused("special_tokens_map.json", "{", "special_tokens_map.json: not valid JSON");
}

static void a_folder_without_any_tokenizer_says_what_is_missing(void **state)
{
    (void)state;
    struct tokenizer *t = NULL;
    struct err e = {0};
    assert_true(tokenizer_open(GOLDEN, &t, &e) < 0);
    assert_non_null(strstr(e.text, "tokenizer.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_of_many_scripts_get_the_ids_of_transformers),
        cmocka_unit_test(prompts_beyond_the_room_are_cut_and_said_to_be),
        cmocka_unit_test(faults_of_the_files_are_named),
        cmocka_unit_test(a_folder_without_any_tokenizer_says_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
