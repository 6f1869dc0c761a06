/* metadata.json: the whole record of a run, keys in the order that the contract names. */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/version.h"
#include "job/modes.h"
#include "job/run.h"

/* Microseconds are enough for any stage, and make short numbers. */
static json_t *milliseconds(double seconds)
{
    return json_real(round(seconds * 1e6) / 1e3);
}

static json_t *time_json(int64_t wall_ms)
{
    char text[CLOCK_RFC3339_SIZE];
    return wall_ms ? json_string(clock_rfc3339(wall_ms, text)) : json_null();
}

static json_t *output_json(const struct run_output *o)
{
    json_t *j = json_pack("{ss ss si si si}", "file", o->name, "type", o->type, "width", o->width,
                          "height", o->height, "frames", o->frames);
    json_object_set_new(j, "fps", o->fps > 0 ? json_real(o->fps) : json_null());
    json_object_set_new(j, "bytes", json_integer((json_int_t)o->bytes));
    json_object_set_new(j, "sha256", json_string(o->sha256));
    json_object_set_new(j, "generated_size",
                        o->generated_width
                            ? json_sprintf("%dx%d", o->generated_width, o->generated_height)
                            : json_null());
    return j;
}

static json_t *outputs_json(const struct run *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->output_count; i++)
        json_array_append_new(list, output_json(&r->outputs[i]));
    return list;
}

/* What is known of the files only once they were used. */
static json_t *loras_json(const struct run *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->request.lora_count; i++) {
        const struct request_lora *l = &r->request.loras[i];
        json_t *j = json_pack("{ss sf}", "name", l->name, "weight", l->weight);
        if (i < r->lora_report_count) {
            const struct omni_lora_report *report = &r->lora_reports[i];
            json_object_set_new(j, "sha256", json_string(report->sha256));
            json_object_set_new(j, "modules", json_integer(report->modules));
            json_object_set_new(j, "matched", json_integer(report->matched));
        }
        json_array_append_new(list, j);
    }
    return list;
}

static json_t *model_json(const struct run *r)
{
    if (!r->info.family)
        return json_null();
    return json_pack("{ss ss ss ss so}", "id", r->profile->model, "family", r->info.family,
                     "precision", r->info.precision, "sha256", r->info.sha256, "loras",
                     loras_json(r));
}

static json_t *upscaler_json(const struct run *r)
{
    if (!r->upscaler_factor)
        return json_null();
    return json_pack("{ss si ss ss}", "id", r->profile->upscaler_model, "factor",
                     r->upscaler_factor, "precision", r->upscaler.precision, "sha256",
                     r->upscaler.sha256);
}

static json_t *timings_json(const struct run *r)
{
    const struct run_timings *t = &r->timings;
    json_t *j = json_object(), *diffuse = json_object();
    json_object_set_new(diffuse, "encode", milliseconds(t->encode));
    json_object_set_new(diffuse, "steps", milliseconds(t->steps));
    json_object_set_new(diffuse, "decode", milliseconds(t->decode));
    json_object_set_new(j, "queue", milliseconds(t->queue));
    for (int s = 0; s < STAGE_COUNT; s++)
        json_object_set_new(j, job_stage_names[s],
                            s == STAGE_DIFFUSE ? diffuse : milliseconds(t->stage[s]));
    json_object_set_new(j, "total", milliseconds(t->total));
    return j;
}

static json_t *safety_json(const struct run *r)
{
    const struct safety_verdict *v = &r->prompt_verdict;
    json_t *prompt = json_null();
    if (r->prompt_checked)
        prompt = json_pack("{ss ss ss?}", "level", safety_level_names[v->level], "verdict",
                           v->blocked ? "block" : "allow", "rule", v->blocked ? v->rule : NULL);
    return json_pack("{so ss}", "prompt", prompt, "output", r->output_verdict);
}

static json_t *text_or_null(const char *text)
{
    return text && *text ? json_string(text) : json_null();
}

/* Were mode and profile found out? */
static bool normalised(const struct run *r)
{
    return r->profile != NULL;
}

char *run_metadata(const struct run *r)
{
    const struct request *q = &r->request;
    bool draws = normalised(r) && job_mode_draws(q->mode);
    json_t *j = json_object();
    json_object_set_new(j, "id", json_string(r->id));
    json_object_set_new(j, "status", json_string(job_state_names[r->state]));
    json_object_set_new(j, "error", text_or_null(r->error.code ? r->error.text : NULL));
    json_object_set_new(j, "modality", json_string(modality_names[r->modality]));
    json_object_set_new(j, "mode", text_or_null(normalised(r) ? job_mode_names[q->mode] : NULL));
    json_object_set_new(j, "profile", text_or_null(normalised(r) ? q->profile : NULL));
    json_object_set_new(j, "request", normalised(r) ? request_json(q) : json_null());
    json_object_set_new(j, "outputs", outputs_json(r));
    json_object_set_new(j, "model", model_json(r));
    json_object_set_new(j, "upscaler", upscaler_json(r));
    json_object_set_new(j, "seed", draws ? json_seed(q->seed) : json_null());
    json_object_set_new(j, "truncated",
                        draws ? json_pack("{sb sb}", "prompt", r->prompt_truncated,
                                          "negative_prompt", r->negative_truncated)
                              : json_null());
    json_object_set_new(j, "timings_ms", timings_json(r));
    json_object_set_new(j, "device",
                        text_or_null(r->info.family ? r->info.device : r->upscaler.device));
    if (*r->lost) /* drawn anew, on another device */
        json_object_set_new(j, "requeued", json_string(r->lost));
    json_object_set_new(j, "memory",
                        json_pack("{sI sI}", "peak_bytes", (json_int_t)r->peak_bytes,
                                  "planned_bytes", (json_int_t)r->planned_bytes));
    json_object_set_new(j, "safety", safety_json(r));
    json_object_set_new(j, "watermark", json_string(r->watermark));
    json_object_set_new(j, "created", time_json(r->created_ms));
    json_object_set_new(j, "started", time_json(r->started_ms));
    json_object_set_new(j, "finished", time_json(r->finished_ms));
    json_object_set_new(j, "omnifs",
                        json_pack("{ss ss}", "version", omnifs_version, "commit", omnifs_commit));
    char *text = json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    json_decref(j);
    return text;
}
