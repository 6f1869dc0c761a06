/* Prompts become what the checkpoint's chat template makes of them, as far as Qwen's templates
 * differ. Run from the repository root. */
#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/scratch.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "engine/text/chat.h"

#define TOKENIZER  "tests/engine/golden/tokenizer-qwen/tokenizer.json"
#define CHECKPOINT "models/omni-mini" /* whatever has a model_index.json */

#define TURN                                                                                       \
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + "  \
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
#define SYSTEM                                                                                     \
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful "          \
    "assistant.<|im_end|>\\n' }}{% endif %}"
#define THOUGHT "{% if enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"

#define USER  "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n"
#define EMPTY "<think>\n\n</think>\n\n"

/* Writes the tokenizer's folder; `jinja`: the template lies in a file of its own. */
static void write_tokenizer(const char *folder, const char *template, bool jinja)
{
    AUTO_STR struct str path = {0}, config = {0};
    AUTO_FREE char *absolute = realpath(TOKENIZER, NULL);
    str_addf(&path, "%s/tokenizer.json", folder);
    unlink(path.data);
    assert_int_equal(symlink(absolute, path.data), 0);
    str_free(&path);
    str_addf(&path, "%s/chat_template.jinja", folder);
    unlink(path.data);
    if (template && jinja)
        scratch_write(path.data, template);
    json_t *j = json_pack("{s:s}", "pad_token", "<|endoftext|>");
    if (template && !jinja)
        json_object_set_new(j, "chat_template", json_string(template));
    char *text = json_dumps(j, 0);
    json_decref(j);
    str_addf(&config, "%s/tokenizer_config.json", folder);
    scratch_write(config.data, text);
    free(text);
}

static int open_chat(const char *folder, bool thinking, struct chat *chat, struct err *e)
{
    const struct omni_part part = {"tokenizer", folder};
    struct checkpoint c;
    *chat = (struct chat){.room = 64, .thinking = thinking};
    assert_int_equal(checkpoint_open(&c, CHECKPOINT, e), 0);
    c.elsewhere = &part;
    c.elsewhere_count = 1;
    int code = chat_open(&c, 1 << 20, chat, e);
    checkpoint_close(&c);
    return code;
}

static void assert_becomes(const char *folder, bool thinking, const char *expected)
{
    struct chat chat;
    struct err e = {0};
    int32_t ids[64], mask[64];
    bool truncated = false;
    AUTO_FREE int32_t *found = NULL;
    size_t count;
    if (open_chat(folder, thinking, &chat, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(
        tokenizer_encode(chat.tokenizer, expected, strlen(expected), &found, &count, &e), 0);
    assert_int_equal(chat_tokens(&chat, "a cat", ids, mask, &truncated, &e), count);
    assert_memory_equal(ids, found, count * sizeof *ids);
    chat_close(&chat);
}

static void a_template_says_what_stands_around_the_prompt(void **state)
{
    static const struct {
        const char *template;
        bool thinking;
        const char *becomes;
    } cases[] = {
        {NULL, false, USER EMPTY},
        {NULL, true, USER},
        {TURN THOUGHT, false, USER EMPTY},
        {TURN THOUGHT, true, USER},
        {TURN, false, USER},
        {SYSTEM TURN, false, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" USER},
        {"{{'<|im_start|>system\\n' + x + '<|im_end|>'}}" TURN, false, USER},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (int jinja = 0; jinja < 2; jinja++) {
            write_tokenizer(*state, cases[i].template, jinja);
            assert_becomes(*state, cases[i].thinking, cases[i].becomes);
        }
}

static void a_template_of_another_kind_is_refused(void **state)
{
    struct chat chat;
    struct err e = {0};
    write_tokenizer(*state, "[INST] {{ messages[0]['content'] }} [/INST]", false);
    assert_int_equal(open_chat(*state, true, &chat, &e), -ENOTSUP);
    assert_non_null(strstr(e.text, "chat template"));
    chat_close(&chat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_template_says_what_stands_around_the_prompt),
        cmocka_unit_test(a_template_of_another_kind_is_refused),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
