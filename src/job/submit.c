/* From the text of a prompt to a durable job: references copied, limits kept, or refused with one
 * sentence. Nothing is clamped; a refused request becomes a job that failed, with its files. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "job/jobs_internal.h"
#include "job/loras.h"

struct submission {
    struct jobs *jobs;
    const struct job_submission *given;
    struct registry *registry;
    struct request request;
    struct queue_job job;
    char where[300];
    struct sha256 *digest;
    uint64_t bytes; /* of references */
    bool parsed;
    bool missing;     /* a reference is not there */
    struct err error; /* why the job fails at once; code 0: it does not */
    int copy_fd;      /* the job's folder for references */
};

static void refuse(struct submission *s, const struct err *e)
{
    if (!s->error.code)
        s->error = *e;
}

static bool is_empty(const struct job_submission *g)
{
    for (size_t i = 0; i < g->size; i++)
        if (!strchr(" \t\r\n", g->text[i]) || !g->text[i])
            return false;
    return true;
}

/* ---- references ---- */

static int open_reference(struct submission *s, const char *name, struct stat *st)
{
    int fd = s->given->open_file ? s->given->open_file(s->given->ctx, name) : -ENOENT;
    if (fd >= 0 && (fstat(fd, st) || !S_ISREG(st->st_mode))) {
        close(fd);
        return -EISDIR;
    }
    return fd;
}

static bool is_lora(const struct request *q, const char *name)
{
    for (int i = 0; i < q->lora_count; i++)
        if (!strcmp(q->loras[i].name, name))
            return true;
    return false;
}

static int line_of(const struct request *q, const char *name)
{
    if (q->mask && !strcmp(q->mask, name))
        return q->line[KEY_MASK];
    if (q->video && !strcmp(q->video, name))
        return q->line[KEY_VIDEO];
    if (is_lora(q, name))
        return q->line[KEY_LORA];
    return q->line[KEY_IMAGE];
}

/* What was looked for, and where. */
static void not_found(const struct submission *s, const char *lora, struct err *e)
{
    char path[REGISTRY_PATH_SIZE];
    lora_find(registry_profile(s->registry, s->request.profile), lora, path, e);
    if (s->request.line[KEY_LORA] > 0)
        err_prefix(e, "%s:%d", s->where, s->request.line[KEY_LORA]);
    else
        err_prefix(e, "%s", s->where);
}

static int reference_error(struct submission *s, const char *name, int code)
{
    struct err e;
    int line = line_of(&s->request, name);
    if (code == -ENOENT) {
        s->missing = true;
        if (is_lora(&s->request, name))
            not_found(s, name, &e);
        else
            err_set(&e, code, "%s:%d: the file %s is not in the job folder", s->where, line, name);
    } else if (code == -EISDIR)
        err_set(&e, code,
                "%s:%d: %s is a link, a folder or a pipe; put the file itself into the job folder",
                s->where, line, name);
    else
        err_set(&e, code, "%s:%d: the file %s cannot be read: %s", s->where, line, name,
                strerror(-code));
    refuse(s, &e);
    return 0;
}

/* Adds name and content of a reference to the digest. */
static int digest_reference(void *ctx, const char *name)
{
    struct submission *s = ctx;
    struct stat st;
    char hex[SHA256_HEX_SIZE] = "missing";
    AUTO_FD int fd = open_reference(s, name, &st);
    int code = fd < 0 ? fd : 0;
    if (!code) {
        s->bytes += (uint64_t)st.st_size;
        if (s->bytes <= s->registry->limits.request_bytes)
            code = sha256_file_hex(fd, hex);
    }
    sha256_add(s->digest, name, strlen(name) + 1);
    sha256_add(s->digest, hex, strlen(hex));
    return code ? reference_error(s, name, code) : 0;
}

/* Keeps a copy, so that later changes of the folder do not change the job. */
static int copy_reference(void *ctx, const char *name)
{
    struct submission *s = ctx;
    struct stat st;
    struct err e = {0};
    AUTO_FD int from = open_reference(s, name, &st);
    if (from < 0)
        return reference_error(s, name, from);
    AUTO_FD int to = openat(s->copy_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int code = to < 0 ? -errno : file_copy(from, to, &e);
    if (!code && fsync(to))
        code = -errno;
    if (code) {
        err_set(&e, code, "the store has no room for a copy of %s: %s", name, strerror(-code));
        refuse(s, &e);
    }
    return code;
}

/* Calls each() for what the job folder must hold: images, mask, video, and LoRAs that are nowhere
 * else. */
static int each_reference(struct submission *s, int (*each)(void *ctx, const char *name))
{
    const struct request *q = &s->request;
    const struct profile *p = registry_profile(s->registry, q->profile);
    int code = request_references(q, each, s);
    for (int i = 0; i < q->lora_count && !code; i++) {
        char path[REGISTRY_PATH_SIZE];
        if (lora_find(p, q->loras[i].name, path, NULL) == -ENOENT && q->loras[i].name[0] != '/')
            code = each(s, q->loras[i].name);
    }
    return code;
}

static void copy_references(struct submission *s)
{
    struct err e;
    if (!s->request.image_count && !s->request.mask && !s->request.video && !s->request.lora_count)
        return;
    s->copy_fd = jobs_work_folder(s->jobs, s->job.id, "in");
    if (s->copy_fd < 0) {
        err_set(&e, s->copy_fd, "the store has no room for the job: %s", strerror(-s->copy_fd));
        refuse(s, &e);
        return;
    }
    if (!each_reference(s, copy_reference))
        fsync(s->copy_fd);
    close(s->copy_fd);
}

/* ---- judging ---- */

/* Parses, and finds the digest over everything that the result depends on. */
static void read_prompt(struct submission *s)
{
    const struct job_submission *g = s->given;
    struct err e = {0};
    s->digest = sha256_new();
    sha256_add(s->digest, modality_names[g->modality], strlen(modality_names[g->modality]) + 1);
    sha256_add(s->digest, g->text, g->size);
    if (request_parse(g->text, g->size, s->where, g->modality, &s->request, &e))
        refuse(s, &e);
    else {
        s->parsed = true;
        each_reference(s, digest_reference);
    }
    sha256_end(s->digest, s->job.digest);
}

static void check_limits(struct submission *s)
{
    const struct registry_limits *l = &s->registry->limits;
    struct err e = {0};
    int all, user;
    char have[24], limit[24];
    if (s->bytes + s->given->size > l->request_bytes)
        err_set(&e, -EFBIG,
                "%s and its files have %s together; request_bytes in registry.ini allows %s",
                s->where, format_bytes(s->bytes + s->given->size, have),
                format_bytes(l->request_bytes, limit));
    else if (!queue_active(s->jobs->db, s->given->folder, s->given->uid, &all, &user)) {
        if (user >= l->jobs_per_user)
            err_set(&e, -EDQUOT,
                    "you have %d jobs waiting or running, and jobs_per_user in registry.ini allows "
                    "%d; wait until one is done and save prompt.ini again",
                    user, l->jobs_per_user);
        else if (all >= l->queue)
            err_set(&e, -EAGAIN,
                    "%d jobs are waiting or running, and queue in registry.ini allows %d; wait "
                    "until one is done and save prompt.ini again",
                    all, l->queue);
    }
    if (!s->error.code && (e.code == -EDQUOT || e.code == -EAGAIN))
        s->job.digest[0] = '\0'; /* no fault of the text: the same may be submitted again */
    if (e.code)
        refuse(s, &e);
}

static void judge(struct submission *s)
{
    const struct profile *p = NULL;
    struct err e = {0};
    if (!s->parsed)
        return;
    if (request_normalise(&s->request, s->registry, s->where, &p, &e))
        refuse(s, &e);
    else {
        snprintf(s->job.profile, sizeof s->job.profile, "%s", p->name);
        s->job.priority = p->priority;
        s->job.pictures = s->request.count;
        if (job_mode_draws(s->request.mode))
            run_batch_key(&s->request, s->job.key);
    }
    check_limits(s);
}

/* ---- recording ---- */

static int record(struct submission *s, struct err *e)
{
    struct jobs *j = s->jobs;
    struct queue_job *q = &s->job;
    q->state = JOB_QUEUED;
    if (s->error.code) {
        q->state = JOB_PUBLISHING; /* its files are the janitor's to write */
        q->outcome = JOB_FAILED;
        memcpy(q->error, s->error.text, sizeof q->error);
    }
    db_lock(j->db); /* a job is superseded in the database and among the live ones at once */
    int code = queue_insert(j->db, q);
    if (!code)
        live_cancel(j, q->folder);
    db_unlock(j->db);
    if (!code)
        code = db_sync(j->db);
    if (code)
        return err_set(e, code, "the store cannot record the job: %s", strerror(-code));
    jobs_note(j, q->id, "submitted by user %u", (unsigned)q->uid);
    jobs_wake_janitor(j); /* also for what was superseded */
    if (!s->error.code)
        jobs_wake_workers(j);
    jobs_changed(j, q->folder);
    return 0;
}

static void fill_job(struct submission *s)
{
    const struct job_submission *g = s->given;
    struct queue_job *q = &s->job;
    id_new(q->id);
    q->folder = g->folder;
    q->modality = g->modality;
    q->uid = g->uid;
    q->gid = g->gid;
    q->pictures = 1;
    q->created_ms = clock_wall_ms();
    q->text = (char *)(uintptr_t)g->text; /* borrowed; insert only reads it */
    q->size = g->size > REQUEST_MAX_BYTES ? REQUEST_MAX_BYTES + 1 : g->size;
    memcpy(q->folder_name, g->folder_name, sizeof q->folder_name);
}

static int submit(struct submission *s, enum submit_result *result, struct err *e)
{
    struct queue_job last;
    read_prompt(s);
    if (s->missing && !s->given->final) {
        *result = SUBMIT_WAIT;
        return 0;
    }
    if (!queue_latest(s->jobs->db, s->given->folder, &last) &&
        !strcmp(last.digest, s->job.digest)) {
        *result = SUBMIT_UNCHANGED;
        return 0;
    }
    judge(s);
    *result = SUBMIT_ACCEPTED;
    pthread_rwlock_rdlock(&s->jobs->preparing);
    if (!s->error.code)
        copy_references(s);
    int code = record(s, e);
    pthread_rwlock_unlock(&s->jobs->preparing);
    return code;
}

int jobs_submit(struct jobs *j, const struct job_submission *given, enum submit_result *result,
                struct err *e)
{
    *result = SUBMIT_EMPTY;
    if (is_empty(given))
        return 0;
    struct submission s = {.jobs = j, .given = given, .copy_fd = -1};
    jobs_prompt_name(given->folder_name, s.where, sizeof s.where);
    fill_job(&s);
    s.registry = jobs_registry(j);
    int code = submit(&s, result, e);
    request_free(&s.request);
    registry_unref(s.registry);
    return code;
}
