/* Stage 6: the record. The results are measured, error.txt is written where something went wrong,
 * and metadata.json, always last. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "job/run.h"

/* The size and digest of a result, as it lies on the disk. */
static int measure(const struct run *r, struct run_output *o, struct err *e)
{
    struct stat st;
    AUTO_FD int fd = openat(r->out_fd, o->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int code = fd < 0 || fstat(fd, &st) ? -errno : sha256_file_hex(fd, o->sha256);
    if (code)
        return err_set(e, code, "%s cannot be read back: %s", o->name, strerror(-code));
    o->bytes = (uint64_t)st.st_size;
    return 0;
}

static void measure_outputs(struct run *r)
{
    for (int i = 0; i < r->output_count && r->state == JOB_DONE; i++)
        if (measure(r, &r->outputs[i], &r->error))
            r->state = JOB_FAILED;
}

/* What was made of a run that did not end well is not delivered. */
static void drop_outputs(struct run *r)
{
    for (int i = 0; i < r->output_count; i++)
        unlinkat(r->out_fd, r->outputs[i].name, 0);
    r->output_count = 0;
}

static int write_error(const struct run *r, struct err *e)
{
    AUTO_STR struct str text = {0};
    str_addf(&text, "%s: %s\n\n", job_state_names[r->state], r->error.text);
    str_add(&text,
            r->state == JOB_BLOCKED ? "Write another prompt into prompt.ini and save it.\n"
            : r->error.code == -EAGAIN
                ? "Save prompt.ini again later; nothing needs to be changed in it.\n"
                : "Change prompt.ini (a comment is enough) and save it to run it again; saving the "
                  "same text does nothing.\n");
    str_addf(&text, "Request %s\n", r->id);
    if (text.failed)
        return err_nomem(e);
    return file_write_atomic(r->out_fd, "error.txt", text.data, text.len, e);
}

/* The time of this stage so far: what metadata.json can say of the stage that writes it. */
static void book_time(struct run *r, double start)
{
    double now = clock_seconds();
    r->timings.stage[STAGE_PACKAGE] = now - start;
    if (r->timings.total < 0) /* minus the begin: see run.c */
        r->timings.total += now;
    r->finished_ms = clock_wall_ms();
}

int stage_package(struct run *r, struct err *e)
{
    int code = 0;
    double start = clock_seconds();
    measure_outputs(r);
    if (r->state != JOB_DONE)
        drop_outputs(r);
    if (r->state == JOB_FAILED || r->state == JOB_BLOCKED)
        code = write_error(r, e);
    else
        unlinkat(r->out_fd, "error.txt", 0); /* of an earlier run into the same folder */
    book_time(r, start);
    AUTO_FREE char *text = run_metadata(r);
    AUTO_STR struct str line = {0};
    str_addf(&line, "%s\n", text ? text : "");
    if (!text || line.failed)
        return err_nomem(e);
    if (!code)
        code = file_write_atomic(r->out_fd, "metadata.json", line.data, line.len, e);
    return code;
}
