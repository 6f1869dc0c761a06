/* Stage 6: the record. error.txt where something went wrong, and metadata.json, always last. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "job/run.h"

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
            r->state == JOB_BLOCKED
                ? "Write another prompt into prompt.ini and save it.\n"
                : "Change prompt.ini and save it to run it again; saving the same text again "
                  "does nothing.\n");
    str_addf(&text, "Request %s\n", r->id);
    if (text.failed)
        return err_nomem(e);
    return file_write_atomic(r->out_fd, "error.txt", text.data, text.len, e);
}

int stage_package(struct run *r, struct err *e)
{
    int code = 0;
    if (r->state != JOB_DONE)
        drop_outputs(r);
    if (r->state == JOB_FAILED || r->state == JOB_BLOCKED)
        code = write_error(r, e);
    r->finished_ms = clock_wall_ms();
    AUTO_FREE char *text = run_metadata(r);
    AUTO_STR struct str line = {0};
    str_addf(&line, "%s\n", text ? text : "");
    if (!text || line.failed)
        return err_nomem(e);
    if (!code)
        code = file_write_atomic(r->out_fd, "metadata.json", line.data, line.len, e);
    return code;
}
