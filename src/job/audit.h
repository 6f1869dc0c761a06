/* The audit: one line of JSON for every request that ended, appended to STORE/audit.jsonl (mode
 * 0600) and synced. Prompts are recorded as sha256: the log can prove what was asked without
 * repeating it. A crash may repeat a line; the id tells. */
#ifndef OMNIFS_JOB_AUDIT_H
#define OMNIFS_JOB_AUDIT_H

#include "job/queue.h"
#include "job/run.h"

struct audit;

int audit_open(const char *store, struct audit **out, struct err *e);
void audit_close(struct audit *a);
/* 0 or negative errno (a full disk): the caller goes on, the log says so. */
int audit_write(struct audit *a, const struct queue_job *q, const struct run *r);

#endif
