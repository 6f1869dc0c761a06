#include "engine/text/tokenizer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/config.h"
#include "engine/text/pipeline.h"
#include "engine/text/unicode.h"

/* ---- opening ---- */

static struct tokenizer *tokenizer_new(void)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    if (t)
        t->pad = t->before = t->after = -1;
    return t;
}

/* The tokenizer as a result, or nothing. */
static int finish(struct tokenizer *t, int code, struct tokenizer **out)
{
    if (code)
        tokenizer_close(t);
    else
        *out = t;
    return code;
}

int tokenizer_parse(const char *name, const char *json, size_t size, struct tokenizer **out,
                    struct err *e)
{
    struct tokenizer *t = tokenizer_new();
    return t ? finish(t, tokenizer_file_parse(name, json, size, t, e), out) : err_nomem(e);
}

/* The pad token of tokenizer_config.json, which may be missing, a text or an object. */
static int read_pad(struct tokenizer *t, const char *path, struct err *e)
{
    if (access(path, F_OK) && errno == ENOENT)
        return 0;
    struct config *c;
    int code = config_open(path, &c, e);
    if (code)
        return code;
    const char *key = config_has(c, "pad_token.content") ? "pad_token.content" : "pad_token";
    const char *pad = config_string(c, key, NULL);
    code = config_error(c, e);
    if (!code && pad) {
        t->pad = tokenizer_id(t, pad);
        if (t->pad < 0)
            code = err_set(e, -EINVAL, "%s: pad_token '%.40s' is not a token of tokenizer.json",
                           path, pad);
    }
    config_close(c);
    return code;
}

static bool there(const char *path)
{
    return access(path, F_OK) == 0;
}

static int open_file(const char *path, const char *options, struct tokenizer *t, struct err *e)
{
    AUTO_FREE char *json = NULL;
    size_t size;
    int code = file_read(AT_FDCWD, path, TOKENIZER_FILE_LIMIT, &json, &size, e);
    if (!code)
        code = tokenizer_file_parse(path, json, size, t, e);
    return code ? code : read_pad(t, options, e);
}

int tokenizer_open(const char *folder, struct tokenizer **out, struct err *e)
{
    AUTO_STR struct str file = {0}, options = {0}, vocab = {0};
    str_addf(&file, "%s/tokenizer.json", folder);
    str_addf(&options, "%s/tokenizer_config.json", folder);
    str_addf(&vocab, "%s/vocab.json", folder);
    struct tokenizer *t = tokenizer_new();
    if (!t || file.failed || options.failed || vocab.failed)
        return finish(t, err_nomem(e), out);
    bool parts = !there(file.data) && there(vocab.data);
    return finish(
        t, parts ? tokenizer_clip_read(folder, t, e) : open_file(file.data, options.data, t, e),
        out);
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    added_free(&t->raw);
    added_free(&t->normalized);
    for (int i = 0; i < t->split_count; i++)
        split_free(t->splits[i]);
    bpe_free(t->bpe);
    free(t);
}

int tokenizer_vocabulary(const struct tokenizer *t)
{
    return t->last_id + 1;
}

int32_t tokenizer_pad(const struct tokenizer *t)
{
    return t->pad;
}

int32_t tokenizer_before(const struct tokenizer *t)
{
    return t->before;
}

int32_t tokenizer_after(const struct tokenizer *t)
{
    return t->after;
}

int32_t tokenizer_id(const struct tokenizer *t, const char *token)
{
    size_t n = strlen(token);
    int32_t id = added_id(&t->raw, token, n);
    if (id < 0)
        id = added_id(&t->normalized, token, n);
    return id < 0 ? bpe_id(t->bpe, token, n) : id;
}

/* ---- encoding ---- */

struct encoder {
    const struct tokenizer *t;
    struct split_run *run;
    struct bpe_scratch scratch;
    struct id_list ids;
    struct err *e;
};

/* Cuts a piece by pattern number `step` and the ones after it; matches and, unless they are to be
 * dropped, what is between them are pieces alike. */
static int encode_words(struct encoder *c, int step, const char *text, size_t n)
{
    if (n == 0)
        return 0;
    if (step >= c->t->split_count || step >= SPLITS_MAX)
        return bpe_encode(c->t->bpe, &c->scratch, text, n, &c->ids, c->e);
    bool drops = c->t->only_matches[step];
    size_t done = 0, from = 0, start, end;
    int code = 0, found = 0;
    while (!code && from <= n &&
           (found = split_find(c->t->splits[step], c->run, text, n, from, &start, &end, c->e)) >
               0) {
        if (!drops)
            code = encode_words(c, step + 1, text + done, start - done);
        if (!code)
            code = encode_words(c, step + 1, text + start, end - start);
        done = end;
        from = end;
        if (end == start) /* an empty match cuts, and the search goes on a character later */
            do
                from++;
            while (from < n && ((unsigned char)text[from] & 0xC0) == 0x80);
    }
    if (code || found < 0 || drops)
        return code ? code : found;
    return encode_words(c, step + 1, text + done, n - done);
}

/* Cuts added tokens out; what is between them goes on to `rest`. */
static int encode_added(struct encoder *c, const struct added_set *set,
                        int (*rest)(struct encoder *c, const char *text, size_t n),
                        const char *text, size_t n)
{
    size_t done = 0, from = 0;
    struct added_match m;
    int code = 0;
    while (!code && added_find(set, text, n, from, done, &m)) {
        if (m.start > done)
            code = rest(c, text + done, m.start - done);
        id_list_add(&c->ids, m.id);
        done = m.end;
        from = m.next;
    }
    return code || done >= n ? code : rest(c, text + done, n - done);
}

static int encode_normalized(struct encoder *c, const char *text, size_t n)
{
    return encode_words(c, 0, text, n);
}

static int encode_segment(struct encoder *c, const char *text, size_t n)
{
    AUTO_FREE char *normal = NULL;
    int code = normal_run(&c->t->normal, text, n, &normal, &n, c->e);
    return code ? code : encode_added(c, &c->t->normalized, encode_normalized, normal, n);
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, int32_t **ids,
                     size_t *count, struct err *e)
{
    if (n > TOKENIZER_TEXT_LIMIT)
        return err_set(e, -EFBIG, "the text has %zu bytes; at most %d are tokenized", n,
                       TOKENIZER_TEXT_LIMIT);
    if (!utf8_valid(text, n))
        return err_set(e, -EILSEQ, "the text is not valid UTF-8");
    struct encoder c = {.t = t, .run = split_run_new(), .e = e};
    int code = c.run ? encode_added(&c, &t->raw, encode_segment, text, n) : err_nomem(e);
    split_run_free(c.run);
    bpe_scratch_free(&c.scratch);
    if (!code && !c.ids.data) /* no ids: still something to free */
        c.ids.failed = !(c.ids.data = malloc(sizeof *c.ids.data));
    if (!code && c.ids.failed)
        code = err_nomem(e);
    if (code) {
        free(c.ids.data);
        return code;
    }
    *ids = c.ids.data;
    *count = c.ids.count;
    return 0;
}
