/* A job's state in words, for people and for programs. */
#include <jansson.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "job/jobs.h"

bool job_state_final(enum job_state s)
{
    return s >= JOB_DONE;
}

static int percent(const struct job_view *v)
{
    return v->total > 0 ? (int)(100.0 * v->done / v->total) : 0;
}

void job_status_line(const struct job_view *v, struct str *out)
{
    str_add(out, job_state_names[v->state]);
    switch (v->state) {
    case JOB_QUEUED:
        if (v->position > 0)
            str_addf(out, " %d", v->position);
        break;
    case JOB_RUNNING:
        str_addf(out, " %s", job_stage_names[v->stage]);
        if (v->total > 0)
            str_addf(out, " %d/%d %d%%", v->done, v->total, percent(v));
        if (v->eta >= 0)
            str_addf(out, " eta %.0fs", v->eta);
        break;
    case JOB_FAILED:
    case JOB_BLOCKED:
        str_addf(out, ": %s", v->error);
        break;
    default:
        break;
    }
}

static void add_time(json_t *o, const char *key, int64_t wall_ms)
{
    char text[CLOCK_RFC3339_SIZE];
    json_object_set_new(o, key, wall_ms ? json_string(clock_rfc3339(wall_ms, text)) : json_null());
}

void job_status_json(const struct job_view *v, struct str *out)
{
    bool running = v->state == JOB_RUNNING, counted = running && v->total > 0;
    json_t *o = json_object();
    json_object_set_new(o, "id", json_string(v->id));
    json_object_set_new(o, "state", json_string(job_state_names[v->state]));
    json_object_set_new(o, "stage", running ? json_string(job_stage_names[v->stage]) : json_null());
    json_object_set_new(o, "position",
                        v->state == JOB_QUEUED ? json_integer(v->position) : json_null());
    json_object_set_new(o, "done", counted ? json_integer(v->done) : json_null());
    json_object_set_new(o, "total", counted ? json_integer(v->total) : json_null());
    json_object_set_new(o, "percent", counted ? json_integer(percent(v)) : json_null());
    json_object_set_new(o, "eta_seconds", running && v->eta >= 0 ? json_real(v->eta) : json_null());
    json_object_set_new(o, "modality", json_string(modality_names[v->modality]));
    json_object_set_new(o, "profile", *v->profile ? json_string(v->profile) : json_null());
    json_object_set_new(o, "error", *v->error ? json_string(v->error) : json_null());
    add_time(o, "created", v->created_ms);
    add_time(o, "started", v->started_ms);
    add_time(o, "finished", v->finished_ms);
    AUTO_FREE char *text = json_dumps(o, JSON_REAL_PRECISION(4));
    json_decref(o);
    if (text)
        str_add(out, text);
    else
        out->failed = true;
}
