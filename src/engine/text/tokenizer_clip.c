/* CLIP's tokenizer in the form that checkpoints have without tokenizer.json: vocab.json, merges.txt
 * and what the special tokens are. The steps are those of
 * transformers/models/clip/tokenization_clip.py. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/text/pipeline.h"

#define CLIP_PATTERN                                                                               \
    "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|"            \
    "[^\\s\\p{L}\\p{N}]+"
#define END_OF_WORD "</w>"

enum { OPTIONS_LIMIT = 4 << 20, MERGES_LIMIT = 1 << 22 };

/* A file of the folder; NULL without error where an optional one is missing. */
static int read_text(const char *folder, const char *name, bool optional, size_t limit, char **text,
                     size_t *size, struct err *e)
{
    AUTO_STR struct str path = {0};
    str_addf(&path, "%s/%s", folder, name);
    *text = NULL;
    if (path.failed)
        return err_nomem(e);
    if (optional && access(path.data, F_OK) != 0 && errno == ENOENT)
        return 0;
    int code = file_read(AT_FDCWD, path.data, limit, text, size, e);
    if (!code && !utf8_valid(*text, *size))
        code = err_set(e, -EINVAL, "%s: not valid UTF-8", path.data);
    return code;
}

/* ---- vocabulary and merges ---- */

/* The next line without its end; false after the last. */
static bool next_line(struct json_span *s, struct json_span *line)
{
    if (s->at == s->end)
        return false;
    const char *end = memchr(s->at, '\n', (size_t)(s->end - s->at));
    *line = (struct json_span){s->at, end ? end : s->end};
    s->at = end ? end + 1 : s->end;
    if (line->end > line->at && line->end[-1] == '\r')
        line->end--;
    return true;
}

static int add_merge(struct bpe *b, struct json_span line, size_t number, struct err *e)
{
    const char *blank = memchr(line.at, ' ', (size_t)(line.end - line.at));
    if (!blank || memchr(blank + 1, ' ', (size_t)(line.end - blank - 1)))
        return err_set(e, -EINVAL, "line %zu is not two symbols", number);
    return bpe_add_merge(b, line.at, (size_t)(blank - line.at), blank + 1,
                         (size_t)(line.end - blank - 1), e);
}

/* One merge a line, after a line with the version; later lines may well begin with '#'. */
static int read_merges(struct bpe *b, struct json_span merges, struct err *e)
{
    struct json_span line;
    int code = 0;
    for (size_t number = 1; !code && next_line(&merges, &line); number++)
        if (line.at < line.end && !(number == 1 && *line.at == '#'))
            code = add_merge(b, line, number, e);
    return code;
}

static size_t count_lines(struct json_span s)
{
    struct json_span line;
    size_t count = 0;
    while (next_line(&s, &line))
        count++;
    return count;
}

static int read_model(const char *folder, struct tokenizer *t, struct err *e)
{
    AUTO_FREE char *vocab = NULL;
    AUTO_FREE char *merges = NULL;
    size_t vocab_size, merges_size;
    if (read_text(folder, "vocab.json", false, TOKENIZER_FILE_LIMIT, &vocab, &vocab_size, e) ||
        read_text(folder, "merges.txt", false, TOKENIZER_FILE_LIMIT, &merges, &merges_size, e))
        return e->code;
    struct json_span v = {vocab, vocab + vocab_size}, m = {merges, merges + merges_size};
    size_t lines = count_lines(m);
    if (lines > MERGES_LIMIT)
        return err_set(e, -EINVAL, "%s/merges.txt: over %d lines", folder, MERGES_LIMIT);
    t->bpe = bpe_new(json_count(v), lines, false);
    if (!t->bpe)
        return err_nomem(e);
    int code = bpe_end_of_word(t->bpe, END_OF_WORD, e);
    if (!code && tokenizer_read_vocabulary(t->bpe, v, e))
        return err_prefix(e, "%s/vocab.json", folder);
    if (!code && read_merges(t->bpe, m, e))
        return err_prefix(e, "%s/merges.txt", folder);
    if (!code && bpe_finish(t->bpe, e))
        return err_prefix(e, "%s/vocab.json", folder);
    t->last_id = bpe_last_id(t->bpe);
    return code;
}

/* ---- special tokens ---- */

static int read_options(const char *folder, const char *name, json_t **out, struct err *e)
{
    AUTO_FREE char *text = NULL;
    size_t size;
    json_error_t fault;
    if (read_text(folder, name, true, OPTIONS_LIMIT, &text, &size, e))
        return e->code;
    *out = text ? json_loadb(text, size, JSON_REJECT_DUPLICATES, &fault) : json_object();
    if (!*out)
        return err_set(e, -EINVAL, "%s/%s: not valid JSON: %s", folder, name, fault.text);
    if (json_is_object(*out))
        return 0;
    return err_set(e, -EINVAL, "%s/%s: expected an object", folder, name);
}

/* Notes an added token: {"its text": what is said of it}. Those said by their text alone have no
 * options; what was said of them before is forgotten. */
static int note(json_t *added, const char *text, json_t *options, struct err *e)
{
    return json_object_set(added, text, options) ? err_nomem(e) : 0;
}

/* {"49406": {"content": …}, …} */
static int note_listed(json_t *added, json_t *list, struct err *e)
{
    const char *id;
    json_t *token;
    int code = 0;
    json_object_foreach(list, id, token)
    {
        const char *text = json_string_value(json_object_get(token, "content"));
        if (!code && text)
            code = note(added, text, token, e);
    }
    return code;
}

/* A special token by its role, as one of the files states it, or CLIP's own; its text. */
static const char *special(json_t *const files[2], const char *role, const char *usual,
                           json_t **stated)
{
    *stated = NULL;
    for (int i = 0; i < 2 && !*stated; i++)
        *stated = json_object_get(files[i], role);
    const char *text =
        json_string_value(json_is_object(*stated) ? json_object_get(*stated, "content") : *stated);
    return text ? text : usual;
}

static int add_noted(struct tokenizer *t, json_t *added, struct err *e)
{
    const char *text;
    json_t *options;
    int code = 0;
    json_object_foreach(added, text, options)
    {
        struct added_token like = {
            .id = bpe_id(t->bpe, text, strlen(text)),
            .lstrip = json_is_true(json_object_get(options, "lstrip")),
            .rstrip = json_is_true(json_object_get(options, "rstrip")),
        };
        if (like.id < 0)
            return err_set(e, -EINVAL, "special token '%.40s' is not in vocab.json", text);
        if (!code)
            code = tokenizer_add_token(t, text, strlen(text), like,
                                       json_is_true(json_object_get(options, "normalized")), e);
    }
    added_sort(&t->raw);
    added_sort(&t->normalized);
    return code;
}

/* files: tokenizer_config.json, special_tokens_map.json. */
static int read_special(struct tokenizer *t, json_t *const files[2], json_t *added, struct err *e)
{
    static const struct {
        const char *role, *usual;
    } roles[] = {{"bos_token", "<|startoftext|>"},
                 {"eos_token", "<|endoftext|>"},
                 {"unk_token", "<|endoftext|>"},
                 {"pad_token", "<|endoftext|>"}};
    const char *texts[ARRAY_LEN(roles)];
    json_t *listed = json_object_get(files[0], "added_tokens_decoder");
    int code = note_listed(added, listed, e);
    for (size_t i = 0; !code && i < ARRAY_LEN(roles); i++) {
        json_t *stated;
        texts[i] = special(files, roles[i].role, roles[i].usual, &stated);
        if (json_is_object(stated))
            code = note(added, texts[i], stated, e);
        else if (!json_is_object(listed) || !json_object_get(added, texts[i]))
            code = note(added, texts[i], json_null(), e);
    }
    if (code || (code = add_noted(t, added, e)))
        return code;
    t->before = tokenizer_id(t, texts[0]);
    t->after = tokenizer_id(t, texts[1]);
    t->pad = tokenizer_id(t, texts[3]);
    return 0;
}

static int read_special_files(const char *folder, struct tokenizer *t, struct err *e)
{
    static const char *const names[2] = {"tokenizer_config.json", "special_tokens_map.json"};
    json_t *files[2] = {0}, *added = json_object();
    int code = added ? 0 : err_nomem(e);
    for (int i = 0; i < 2 && !code; i++)
        code = read_options(folder, names[i], &files[i], e);
    if (!code && read_special(t, files, added, e))
        code = err_prefix(e, "%s", folder);
    json_decref(files[0]);
    json_decref(files[1]);
    json_decref(added);
    return code;
}

int tokenizer_clip_read(const char *folder, struct tokenizer *t, struct err *e)
{
    static const enum normal_step steps[] = {NORMAL_NFC, NORMAL_SPACES, NORMAL_LOWER};
    int code = 0;
    for (size_t i = 0; i < ARRAY_LEN(steps) && !code; i++)
        code = normal_add(&t->normal, steps[i], e);
    if (!code)
        code = tokenizer_add_split(t, CLIP_PATTERN, strlen(CLIP_PATTERN), false, true, e);
    if (!code) /* of its ByteLevel step */
        code = tokenizer_add_split(t, GPT2_PATTERN, strlen(GPT2_PATTERN), false, false, e);
    t->byte_level = true;
    if (!code)
        code = read_model(folder, t, e);
    return code ? code : read_special_files(folder, t, e);
}
