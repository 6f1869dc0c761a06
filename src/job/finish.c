/* What happens around a run that belongs to a job: its folders before, its records after. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "job/audit.h"
#include "job/jobs_internal.h"

int finish_open_folders(struct jobs *j, struct run *r, struct err *e)
{
    char out[JOB_PATH_SIZE];
    jobs_work_path(j, r->id, "out", out);
    int code = file_remove_tree(AT_FDCWD, out); /* of an attempt that a crash ended */
    r->in_fd = code ? code : jobs_work_folder(j, r->id, "in");
    r->out_fd = r->in_fd < 0 ? r->in_fd : jobs_work_folder(j, r->id, "out");
    if (r->out_fd < 0)
        return err_set(e, r->out_fd, "the store has no room for the job's files: %s",
                       strerror(-r->out_fd));
    return 0;
}

void finish_close_folders(struct run *r)
{
    if (r->out_fd >= 0)
        close(r->out_fd);
    if (r->in_fd >= 0)
        close(r->in_fd);
    r->in_fd = r->out_fd = -1;
}

static bool exists(int dirfd, const char *name)
{
    return dirfd >= 0 && !faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW);
}

int finish_files(const struct run *r, char (**names)[64], int *count)
{
    static const char *const last[] = {"error.txt", "metadata.json"};
    *count = 0;
    *names = calloc((size_t)r->output_count + 2, sizeof **names);
    if (!*names)
        return -ENOMEM;
    for (int i = 0; i < r->output_count; i++)
        memcpy((*names)[(*count)++], r->outputs[i].name, 64);
    for (int i = 0; i < 2; i++) /* a full disk may have kept them from being written */
        if (exists(r->out_fd, last[i]))
            strcpy((*names)[(*count)++], last[i]);
    if (r->out_fd >= 0 && fsync(r->out_fd)) /* the files are whole; so must their names be */
        return -errno;
    return 0;
}

void finish_record(struct jobs *j, const struct queue_job *q, const struct run *r)
{
    audit_write(j->audit, q, r);
    metrics_run(j->metrics, r);
    const char *state = job_state_names[r->state];
    bool told = r->state == JOB_FAILED || r->state == JOB_BLOCKED;
    jobs_note(j, q->id, "%s%s%s", state, told ? ": " : "", told ? r->error.text : "");
    log_write(r->state == JOB_FAILED ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, q->id,
              "%s by user %u: %s%s%s, %.3f s", q->folder_name, (unsigned)q->uid, state,
              told ? ": " : "", told ? r->error.text : "", r->timings.total);
}
