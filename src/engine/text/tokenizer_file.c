/* tokenizer.json: which steps it asks for. Layout: tokenizers/src/tokenizer/serialization.rs. */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/text/json_span.h"
#include "engine/text/pipeline.h"
#include "engine/text/unicode.h"

/* The two large members of the model, read in place. */
struct tables {
    struct json_span vocab, merges;
};

enum { ADDED_LIMIT = 1 << 16, ADDED_LENGTH_LIMIT = 512, NESTING_LIMIT = 4 };

static const char *text_at(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static bool is_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static int refuse(struct err *e, const char *step, const json_t *object)
{
    return err_set(e, -ENOTSUP, "%s of type '%.60s' is not supported", step,
                   text_at(object, "type"));
}

/* ---- steps that may be null, one, or a sequence of them ---- */

typedef int (*step_reader)(struct tokenizer *t, json_t *step, struct err *e);

static int read_steps(struct tokenizer *t, json_t *object, const char *list, step_reader read,
                      int depth, struct err *e)
{
    if (!object || json_is_null(object))
        return 0;
    if (strcmp(text_at(object, "type"), "Sequence") != 0)
        return read(t, object, e);
    if (depth == NESTING_LIMIT)
        return err_set(e, -EINVAL, "%s are nested too deep", list);
    size_t i;
    json_t *step;
    json_array_foreach(json_object_get(object, list), i, step)
    {
        int code = read_steps(t, step, list, read, depth + 1, e);
        if (code)
            return code;
    }
    return 0;
}

static int read_normalizer(struct tokenizer *t, json_t *step, struct err *e)
{
    const char *type = text_at(step, "type");
    if (!strcmp(type, "NFC"))
        return normal_add(&t->normal, NORMAL_NFC, e);
    if (!strcmp(type, "Lowercase"))
        return normal_add(&t->normal, NORMAL_LOWER, e);
    if (!strcmp(type, "Replace") && !strcmp(text_at(step, "content"), " ") &&
        !strcmp(text_at(json_object_get(step, "pattern"), "Regex"), "\\s+"))
        return normal_add(&t->normal, NORMAL_SPACES, e);
    return refuse(e, "a normalizer", step);
}

int tokenizer_add_split(struct tokenizer *t, const char *pattern, size_t n, bool literal,
                        bool only_matches, struct err *e)
{
    if (t->split_count == SPLITS_MAX)
        return err_set(e, -ENOTSUP, "more than %d patterns to split by", SPLITS_MAX);
    t->only_matches[t->split_count] = only_matches;
    int code = split_new(pattern, n, literal, &t->splits[t->split_count], e);
    t->split_count += code == 0;
    return code;
}

static int read_split(struct tokenizer *t, json_t *step, struct err *e)
{
    /* What an inverted pattern removes is all but its matches. */
    const char *behavior = text_at(step, "behavior");
    bool only_matches = !strcmp(behavior, "Removed") && is_true(step, "invert");
    if (!only_matches && strcmp(behavior, "Isolated") != 0)
        return err_set(e, -ENOTSUP,
                       "Split behavior '%.40s' is not supported, expected 'Isolated', or 'Removed' "
                       "with invert",
                       behavior);
    json_t *pattern = json_object_get(step, "pattern");
    json_t *regex = json_object_get(pattern, "Regex"), *plain = json_object_get(pattern, "String");
    json_t *text = regex ? regex : plain;
    if (!json_is_string(text))
        return err_set(e, -EINVAL, "a Split has no pattern");
    return tokenizer_add_split(t, json_string_value(text), json_string_length(text), !regex,
                               only_matches, e);
}

static int read_byte_level(struct tokenizer *t, json_t *step, struct err *e)
{
    if (is_true(step, "add_prefix_space"))
        return err_set(e, -ENOTSUP, "ByteLevel with add_prefix_space is not supported");
    t->byte_level = true;
    json_t *regex = json_object_get(step, "use_regex");
    if (regex && !json_is_true(regex))
        return 0;
    return tokenizer_add_split(t, GPT2_PATTERN, strlen(GPT2_PATTERN), false, false, e);
}

static int read_pre_tokenizer(struct tokenizer *t, json_t *step, struct err *e)
{
    const char *type = text_at(step, "type");
    if (t->byte_level)
        return err_set(e, -ENOTSUP, "a pre-tokenizer of type '%.60s' after ByteLevel", type);
    if (!strcmp(type, "Split"))
        return read_split(t, step, e);
    if (!strcmp(type, "ByteLevel"))
        return read_byte_level(t, step, e);
    return refuse(e, "a pre-tokenizer", step);
}

/* ---- the model ---- */

static int read_id(const json_t *value, const char *what, int32_t *out, struct err *e)
{
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (id < 0 || id >= TOKENIZER_ID_LIMIT)
        return err_set(e, -EINVAL, "token '%.40s' has no id from 0 to %d", what,
                       TOKENIZER_ID_LIMIT - 1);
    *out = (int32_t)id;
    return 0;
}

/* ["<|endoftext|>", 49407] */
static int read_end(const json_t *pair, int32_t *out, struct err *e)
{
    return read_id(json_array_get(pair, 1), "of a post-processor", out, e);
}

/* ByteLevel only corrects offsets here, which nobody asks for. */
static int read_post_processor(struct tokenizer *t, json_t *step, struct err *e)
{
    const char *type = text_at(step, "type");
    if (!strcmp(type, "ByteLevel"))
        return 0;
    if (strcmp(type, "RobertaProcessing") != 0)
        return refuse(e, "a post-processor", step);
    int code = read_end(json_object_get(step, "cls"), &t->before, e);
    return code ? code : read_end(json_object_get(step, "sep"), &t->after, e);
}

int tokenizer_read_vocabulary(struct bpe *b, struct json_span vocab, struct err *e)
{
    AUTO_STR struct str buffer = {0};
    if (!json_take(&vocab, '{'))
        return err_set(e, -EINVAL, "the model's vocab is not an object");
    if (json_take(&vocab, '}'))
        return 0;
    for (size_t i = 0;; i++) {
        const char *text;
        size_t n;
        int64_t id;
        if (!json_take_string(&vocab, &buffer, &text, &n) || !json_take(&vocab, ':') ||
            !json_take_integer(&vocab, &id))
            return err_set(e, -EINVAL, "entry %zu of the vocab is not \"token\": id", i);
        if (id < 0 || id >= TOKENIZER_ID_LIMIT)
            return err_set(e, -EINVAL, "token '%.*s' has id %lld, expected 0 to %d",
                           n > 40 ? 40 : (int)n, text, (long long)id, TOKENIZER_ID_LIMIT - 1);
        int code = bpe_add_token(b, text, n, (int32_t)id, e);
        if (code)
            return code;
        if (json_take(&vocab, '}'))
            return 0;
        if (!json_take(&vocab, ','))
            return err_set(e, -EINVAL, "entry %zu of the vocab does not end with ','", i);
    }
}

/* "a b", or ["a", "b"]. */
static int read_merge(struct bpe *b, struct json_span *merges, struct str buffers[2], size_t index,
                      struct err *e)
{
    const char *left, *right;
    size_t left_n, right_n;
    if (json_take(merges, '[')) {
        if (json_take_string(merges, &buffers[0], &left, &left_n) && json_take(merges, ',') &&
            json_take_string(merges, &buffers[1], &right, &right_n) && json_take(merges, ']'))
            return bpe_add_merge(b, left, left_n, right, right_n, e);
    } else if (json_take_string(merges, &buffers[0], &left, &left_n)) {
        const char *end = left + left_n, *blank = memchr(left, ' ', left_n);
        if (blank && !memchr(blank + 1, ' ', (size_t)(end - blank - 1)))
            return bpe_add_merge(b, left, (size_t)(blank - left), blank + 1,
                                 (size_t)(end - blank - 1), e);
    }
    return err_set(e, -EINVAL, "merge %zu is neither \"a b\" nor [\"a\", \"b\"]", index);
}

static int read_merges(struct bpe *b, struct json_span merges, struct err *e)
{
    if (!json_take(&merges, '['))
        return err_set(e, -EINVAL, "the model's merges are not an array");
    if (json_take(&merges, ']'))
        return 0;
    struct str buffers[2] = {0};
    int code = 0;
    for (size_t i = 0; !code; i++) {
        code = read_merge(b, &merges, buffers, i, e);
        if (code || json_take(&merges, ']'))
            break;
        if (!json_take(&merges, ','))
            code = err_set(e, -EINVAL, "merge %zu does not end with ','", i);
    }
    str_free(&buffers[0]);
    str_free(&buffers[1]);
    return code;
}

/* Options of BPE that change the tokens and that no byte-level vocabulary uses. */
static int check_bpe_options(const json_t *model, struct err *e)
{
    const char *prefix = text_at(model, "continuing_subword_prefix");
    if (*prefix)
        return err_set(e, -ENOTSUP, "BPE with continuing_subword_prefix '%.20s' is not supported",
                       prefix);
    json_t *dropout = json_object_get(model, "dropout");
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0)
        return err_set(e, -ENOTSUP, "BPE with dropout is not supported");
    if (is_true(model, "byte_fallback"))
        return err_set(e, -ENOTSUP, "BPE with byte_fallback is not supported");
    return 0;
}

static int read_model(struct tokenizer *t, json_t *model, const struct tables *tables,
                      struct err *e)
{
    if (strcmp(text_at(model, "type"), "BPE") != 0)
        return refuse(e, "a model", model);
    int code = check_bpe_options(model, e);
    if (code)
        return code;
    t->bpe = bpe_new(json_count(tables->vocab), json_count(tables->merges),
                     is_true(model, "ignore_merges"));
    if (!t->bpe)
        return err_nomem(e);
    code = bpe_end_of_word(t->bpe, text_at(model, "end_of_word_suffix"), e);
    if (!code)
        code = tokenizer_read_vocabulary(t->bpe, tables->vocab, e);
    if (!code)
        code = read_merges(t->bpe, tables->merges, e);
    return code ? code : bpe_finish(t->bpe, e);
}

/* ---- added tokens ---- */

int tokenizer_add_token(struct tokenizer *t, const char *text, size_t n, struct added_token like,
                        bool normalized, struct err *e)
{
    AUTO_FREE char *normal = NULL;
    if (n == 0 || n > ADDED_LENGTH_LIMIT)
        return err_set(e, -EINVAL, "an added token's content must have 1 to %d bytes",
                       ADDED_LENGTH_LIMIT);
    if (like.id > t->last_id)
        t->last_id = like.id;
    if (!normalized)
        return added_add(&t->raw, text, n, like, e);
    int code = normal_run(&t->normal, text, n, &normal, &n, e);
    return code ? code : added_add(&t->normalized, normal, n, like, e);
}

static int read_added_token(struct tokenizer *t, json_t *token, struct err *e)
{
    const json_t *content = json_object_get(token, "content");
    const char *text = text_at(token, "content");
    if (is_true(token, "single_word"))
        return err_set(e, -ENOTSUP, "added token '%.40s' with single_word is not supported", text);
    struct added_token like = {.lstrip = is_true(token, "lstrip"),
                               .rstrip = is_true(token, "rstrip")};
    int code = read_id(json_object_get(token, "id"), text, &like.id, e);
    if (code)
        return code;
    json_t *stated = json_object_get(token, "normalized");
    bool normalized = stated ? json_is_true(stated) : !is_true(token, "special");
    return tokenizer_add_token(t, text, json_string_length(content), like, normalized, e);
}

static int read_added_tokens(struct tokenizer *t, json_t *list, struct err *e)
{
    if (json_array_size(list) > ADDED_LIMIT)
        return err_set(e, -EINVAL, "more than %d added tokens", ADDED_LIMIT);
    size_t i;
    json_t *token;
    json_array_foreach(list, i, token)
    {
        int code = read_added_token(t, token, e);
        if (code)
            return code;
    }
    added_sort(&t->raw);
    added_sort(&t->normalized);
    return 0;
}

static int read_all(struct tokenizer *t, json_t *root, const struct tables *tables, struct err *e)
{
    int code =
        read_steps(t, json_object_get(root, "normalizer"), "normalizers", read_normalizer, 0, e);
    if (!code)
        code = read_steps(t, json_object_get(root, "pre_tokenizer"), "pretokenizers",
                          read_pre_tokenizer, 0, e);
    if (!code && !t->byte_level)
        code = err_set(e, -ENOTSUP, "no ByteLevel pre-tokenizer; other kinds are not supported");
    if (!code)
        code = read_steps(t, json_object_get(root, "post_processor"), "processors",
                          read_post_processor, 0, e);
    if (!code)
        code = read_model(t, json_object_get(root, "model"), tables, e);
    if (code)
        return code;
    t->last_id = bpe_last_id(t->bpe);
    return read_added_tokens(t, json_object_get(root, "added_tokens"), e);
}

/* The text without the two tables, which are left as null. */
static bool cut_tables(struct json_span all, const struct tables *tables, struct str *out)
{
    struct json_span first = tables->vocab, second = tables->merges;
    if (first.at > second.at) {
        first = tables->merges;
        second = tables->vocab;
    }
    str_addn(out, all.at, (size_t)(first.at - all.at));
    str_add(out, "null");
    str_addn(out, first.end, (size_t)(second.at - first.end));
    str_add(out, "null");
    str_addn(out, second.end, (size_t)(all.end - second.end));
    return !out->failed;
}

int tokenizer_file_parse(const char *name, const char *json, size_t size, struct tokenizer *t,
                         struct err *e)
{
    struct json_span all = {json, json + size}, model;
    struct tables tables;
    if (!utf8_valid(json, size))
        return err_set(e, -EINVAL, "%s: not valid UTF-8", name);
    if (!json_find(all, "model", &model) || !json_find(model, "vocab", &tables.vocab) ||
        !json_find(model, "merges", &tables.merges))
        return err_set(e, -EINVAL, "%s: model, model.vocab or model.merges is missing", name);
    AUTO_STR struct str rest = {0};
    if (!cut_tables(all, &tables, &rest))
        return err_nomem(e);
    json_error_t fault;
    json_t *root = json_loadb(rest.data, rest.len, JSON_REJECT_DUPLICATES, &fault);
    if (!root)
        return err_set(e, -EINVAL, "%s: not valid JSON: %s", name, fault.text);
    int code = read_all(t, root, &tables, e);
    json_decref(root);
    if (code)
        err_prefix(e, "%s", name);
    return code;
}
