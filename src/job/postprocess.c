/* Stage 4: from what was drawn to the files that were asked for. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/version.h"
#include "job/enlarge.h"
#include "job/modes.h"
#include "job/reference.h"
#include "job/run.h"

/* A converted clip takes the way of a drawn one from here on. */
static int take_clip(struct run *r, struct err *e)
{
    r->pictures = calloc(1, sizeof *r->pictures);
    if (!r->pictures)
        return err_nomem(e);
    r->picture_count = 1;
    r->pictures[0] = r->clip;
    r->clip = (struct picture){0};
    return 0;
}

/* ---- files ---- */

static void output_name(const struct run *r, int index, char *out, size_t size)
{
    static const char *const stems[] = {"image", "video", "animation"};
    const struct request *q = &r->request;
    const char *extension = media_format_info(q->format)->extension;
    if (q->count > 1)
        snprintf(out, size, "%s-%d.%s", stems[q->modality], index + 1, extension);
    else
        snprintf(out, size, "%s.%s", stems[q->modality], extension);
}

static bool is_output(const struct run *r, const char *name)
{
    const struct request *q = &r->request;
    char made[64];
    if (q->separate_frames)
        return !strncmp(name, "frame-", 6);
    for (int i = 0; i < q->count; i++) {
        output_name(r, i, made, sizeof made);
        if (!strcmp(made, name))
            return true;
    }
    return false;
}

int run_spares_references(const struct run *r, struct err *e)
{
    const struct request *q = &r->request;
    const char *names[REQUEST_MAX_IMAGES + 2];
    struct stat in, out;
    int count = 0;
    if (fstat(r->in_fd, &in) || fstat(r->out_fd, &out) || in.st_dev != out.st_dev ||
        in.st_ino != out.st_ino)
        return 0;
    for (int i = 0; i < q->image_count; i++)
        names[count++] = q->images[i];
    if (q->mask)
        names[count++] = q->mask;
    if (q->video)
        names[count++] = q->video;
    for (int i = 0; i < count; i++)
        if (is_output(r, names[i]))
            return err_set(e, -EINVAL,
                           "%s: the result would replace %s, which it is made of; rename that, or "
                           "choose another folder for results",
                           r->where, names[i]);
    return 0;
}

static int add_output(struct run *r, const char *name, const struct picture *p, int frames,
                      struct err *e)
{
    struct run_output *more = realloc(r->outputs, (size_t)(r->output_count + 1) * sizeof *more);
    if (!more)
        return err_nomem(e);
    r->outputs = more;
    struct run_output *o = &more[r->output_count++];
    *o = (struct run_output){.type = media_format_info(r->request.format)->mime,
                             .width = p->width,
                             .height = p->height,
                             .frames = frames,
                             .fps = frames > 1 ? r->request.fps : 0};
    if (job_mode_draws(r->request.mode)) {
        o->generated_width = r->draw_width;
        o->generated_height = r->draw_height;
    }
    snprintf(o->name, sizeof o->name, "%s", name);
    return 0;
}

struct encoding {
    struct run *r;
    int before; /* frames done */
};

static int on_frame(void *user, int done, int frames)
{
    const struct encoding *c = user;
    struct run *r = c->r;
    (void)frames;
    r->frames_done = c->before + done;
    run_progress(r, STAGE_POSTPROCESS, r->frames_done, r->frames_total);
    return run_cancelled(r);
}

static int write_frames(struct run *r, const struct picture *p, const struct media_options *o,
                        struct err *e)
{
    int code = media_write_frames(r->out_fd, p, o, e);
    for (int f = 0; f < p->frames && !code; f++) {
        char name[MEDIA_FRAME_NAME_SIZE];
        media_frame_name(f, p->frames, o->format, name);
        code = add_output(r, name, p, 1, e);
    }
    return code;
}

static int write_output(struct run *r, int index, struct err *e)
{
    const struct request *q = &r->request;
    const struct picture *p = &r->pictures[index];
    char software[64], name[64];
    AUTO_STR struct str parameters = {0};
    struct encoding encoding = {r, r->frames_done};
    struct media_options o;
    media_options_init(&o, q->format);
    snprintf(software, sizeof software, "omnifs %s", omnifs_version);
    run_parameters(r, index, &parameters);
    if (parameters.failed)
        return err_nomem(e);
    o.quality = q->quality;
    if (q->fps > 0)
        o.fps = q->fps;
    o.loop = q->loop;
    o.palette = q->palette;
    o.dither = q->dither;
    o.software = software;
    o.parameters = parameters.len ? parameters.data : NULL;
    o.progress = on_frame;
    o.user = &encoding;
    if (q->separate_frames)
        return write_frames(r, p, &o, e);
    output_name(r, index, name, sizeof name);
    int code = media_write(r->out_fd, name, p, &o, e);
    if (!code)
        on_frame(&encoding, p->frames, p->frames); /* formats of one frame do not say it */
    return code ? code : add_output(r, name, p, p->frames, e);
}

static void count_frames(struct run *r)
{
    const struct request *q = &r->request;
    r->frames_done = r->frames_total = 0;
    for (int i = 0; i < r->picture_count; i++) {
        const struct picture *p = &r->pictures[i];
        bool enlarged = p->width != q->width || p->height != q->height;
        r->frames_total += p->frames * (enlarged ? 2 : 1);
    }
}

int stage_postprocess(struct run *r, struct err *e)
{
    int code = job_mode_draws(r->request.mode) ? 0 : take_clip(r, e);
    r->watermark = r->request.watermark && job_mode_draws(r->request.mode) ? "metadata" : "none";
    if (!code)
        count_frames(r);
    for (int i = 0; i < r->picture_count && !code; i++)
        code = run_enlarge(r, &r->pictures[i], e);
    if (!code)
        code = references_keep(r, e);
    for (int i = 0; i < r->picture_count && !code; i++) {
        if (run_cancelled(r))
            return err_set(e, -ECANCELED, "cancelled");
        code = write_output(r, i, e);
    }
    return code;
}
