#include "job/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "job/modes.h"

struct audit {
    int fd;
};

int audit_open(const char *store, struct audit **out, struct err *e)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/audit.jsonl", store) >= (int)sizeof path)
        return err_set(e, -ENAMETOOLONG, "%s: the store's path is too long", store);
    struct audit *a = calloc(1, sizeof *a);
    if (!a)
        return err_nomem(e);
    a->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (a->fd < 0) {
        int code = -errno;
        free(a);
        return err_set(e, code, "%s: %s", path, strerror(-code));
    }
    *out = a;
    return 0;
}

void audit_close(struct audit *a)
{
    if (a)
        close(a->fd);
    free(a);
}

static json_t *text_sha256(const char *text)
{
    if (!text)
        return json_null();
    char hex[SHA256_HEX_SIZE];
    sha256_hex(text, strlen(text), hex);
    return json_string(hex);
}

static json_t *outputs(const struct run *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->output_count; i++)
        json_array_append_new(
            list, json_pack("{ss ss}", "file", r->outputs[i].name, "sha256", r->outputs[i].sha256));
    return list;
}

static json_t *record(const struct queue_job *q, const struct run *r)
{
    char now[CLOCK_RFC3339_SIZE], created[CLOCK_RFC3339_SIZE];
    const struct request *w = &r->request;
    const struct safety_verdict *v = &r->prompt_verdict;
    bool drawn = r->profile && job_mode_draws(w->mode);
    return json_pack("{ss ss ss sI sI ss ss? ss? ss so so so ss? so ss? ss}", "time",
                     clock_rfc3339(clock_wall_ms(), now), "id", r->id, "submitted",
                     clock_rfc3339(q->created_ms, created), "uid", (json_int_t)q->uid, "folder",
                     (json_int_t)q->folder, "modality", modality_names[r->modality], "profile",
                     r->profile ? r->profile->name : NULL, "model",
                     r->profile ? r->profile->model : NULL, "model_sha256", r->info.sha256, "seed",
                     drawn ? json_seed(w->seed) : json_null(), "prompt_sha256",
                     text_sha256(w->prompt), "negative_prompt_sha256",
                     text_sha256(w->negative_prompt), "prompt_verdict",
                     !r->prompt_checked ? NULL
                     : v->blocked       ? v->rule
                                        : "allow",
                     "outputs", outputs(r), "error", r->error.code ? r->error.text : NULL, "status",
                     job_state_names[r->state]);
}

int audit_write(struct audit *a, const struct queue_job *q, const struct run *r)
{
    json_t *j = record(q, r);
    AUTO_FREE char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    AUTO_STR struct str line = {0};
    if (!text)
        return -ENOMEM;
    str_addf(&line, "%s\n", text);
    if (line.failed)
        return -ENOMEM;
    /* one write: lines of several workers never mix */
    ssize_t n = write(a->fd, line.data, line.len);
    if (n != (ssize_t)line.len || fdatasync(a->fd)) {
        int code = n < 0 || n == (ssize_t)line.len ? -errno : -ENOSPC;
        log_write(LOG_LEVEL_ERROR, r->id, "the audit line could not be written: %s",
                  strerror(-code));
        return code;
    }
    return 0;
}
