/* Stage 1: from what a prompt says to a complete request. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/str.h"
#include "job/loras.h"
#include "job/modes.h"
#include "job/registry.h"
#include "job/run.h"

struct context {
    struct request *r;
    const struct registry *registry;
    const struct profile *p;
    const char *where;
    struct err *e;
};

/* An error about a key: with its line where the prompt has one. */
static int ERR_PRINTF(3, 4)
    at_key(const struct context *c, enum request_key key, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    err_setv(c->e, -EINVAL, fmt, ap);
    va_end(ap);
    if (c->r->line[key] > 0)
        return err_prefix(c->e, "%s:%d", c->where, c->r->line[key]);
    return err_prefix(c->e, "%s", c->where);
}

static bool given(const struct context *c, enum request_key key)
{
    return c->r->line[key] != 0;
}

/* ---- mode ---- */

/* What a missing key should look like. */
static const char *example(enum request_key key)
{
    switch (key) {
    case KEY_PROMPT:
        return "prompt = a red apple";
    case KEY_EXPAND:
        return "expand = 64,0,64,0";
    case KEY_VIDEO:
        return "video = clip.mp4";
    case KEY_MASK:
        return "mask = mask.png";
    default:
        return "image = photo.png";
    }
}

static bool key_filled(const struct context *c, enum request_key key)
{
    if (key == KEY_PROMPT) /* the empty text is one, when it is stated */
        return c->r->prompt != NULL;
    return given(c, key);
}

static bool adds_nothing(const struct request *r)
{
    return !r->expand[0] && !r->expand[1] && !r->expand[2] && !r->expand[3];
}

static int check_mode(struct context *c)
{
    struct request *r = c->r;
    if (!given(c, KEY_MODE))
        r->mode = mode_default(r);
    const struct mode_info *m = mode_info(r->mode);
    const char *name = job_mode_names[r->mode];
    if (m->modality != r->modality)
        return at_key(c, KEY_MODE, "mode %s belongs into the folder %s/, not %s/", name,
                      modality_names[m->modality], modality_names[r->modality]);
    for (int k = 0; k < REQUEST_KEYS; k++)
        if ((m->needs & UINT32_C(1) << k) && !key_filled(c, (enum request_key)k))
            return at_key(c, (enum request_key)k, "mode %s needs %s; write a line like `%s`", name,
                          request_key_names[k], example((enum request_key)k));
    if (r->mode == MODE_OUTPAINT && adds_nothing(r))
        return at_key(c, KEY_EXPAND, "expand adds nothing; write a line like `%s`",
                      example(KEY_EXPAND));
    if (r->mode == MODE_UPSCALE && r->image_count > 1)
        return at_key(c, KEY_IMAGE, "mode upscale enlarges one image, %d are given",
                      r->image_count);
    return 0;
}

/* ---- profile ---- */

static bool profile_serves(const struct profile *p, enum modality m)
{
    return p->modality == m || (p->modality == MODALITY_VIDEO && m == MODALITY_GIF);
}

static int unknown_profile(const struct context *c)
{
    const char *names[128];
    int n = 0;
    AUTO_STR struct str list = {0};
    for (int i = 0; i < c->registry->profile_count && n < 127; i++) {
        const struct profile *p = &c->registry->profiles[i];
        if (profile_serves(p, c->r->modality)) {
            str_addf(&list, "%s%s", n ? ", " : "", p->name);
            names[n++] = p->name;
        }
    }
    names[n] = NULL;
    const char *near = str_nearest(c->r->profile, names);
    if (near)
        return at_key(c, KEY_PROFILE, "profile \"%s\" is unknown; did you mean %s?", c->r->profile,
                      near);
    return at_key(c, KEY_PROFILE, "profile \"%s\" is unknown; for %s there are: %s", c->r->profile,
                  modality_names[c->r->modality], n ? str_cstr(&list) : "none");
}

static int check_profile(struct context *c)
{
    struct request *r = c->r;
    if (!given(c, KEY_PROFILE))
        strcpy(r->profile, r->modality == MODALITY_IMAGE ? "image_default" : "video_default");
    c->p = registry_profile(c->registry, r->profile);
    if (!c->p)
        return unknown_profile(c);
    if (!profile_serves(c->p, r->modality))
        return at_key(c, KEY_PROFILE, "profile %s makes %s, not %s", r->profile,
                      modality_names[c->p->modality], modality_names[r->modality]);
    return 0;
}

/* ---- size and length ---- */

static int check_size(struct context *c)
{
    struct request *r = c->r;
    const struct profile *p = c->p;
    bool size = given(c, KEY_SIZE), width = given(c, KEY_WIDTH), height = given(c, KEY_HEIGHT);
    if (size && (width || height))
        return at_key(c, width ? KEY_WIDTH : KEY_HEIGHT,
                      "the size is set twice: by size and by width and height");
    if (width != height)
        return at_key(c, width ? KEY_WIDTH : KEY_HEIGHT, "%s is set without %s",
                      width ? "width" : "height", width ? "height" : "width");
    if ((size || width) && r->mode == MODE_UPSCALE && given(c, KEY_SCALE))
        return at_key(c, KEY_SCALE, "the size is set twice: by %s and by scale",
                      size ? "size" : "width and height");
    if (!size && !width) { /* 0 x 0: known once the file is read */
        bool own = mode_info(r->mode)->own_size;
        r->width = own ? 0 : p->width;
        r->height = own ? 0 : p->height;
    }
    enum request_key w_key = size ? KEY_SIZE : KEY_WIDTH, h_key = size ? KEY_SIZE : KEY_HEIGHT;
    if (r->width > p->max_width)
        return at_key(c, w_key, "width %d is over max_resolution %dx%d of %s", r->width,
                      p->max_width, p->max_height, p->name);
    if (r->height > p->max_height)
        return at_key(c, h_key, "height %d is over max_resolution %dx%d of %s", r->height,
                      p->max_width, p->max_height, p->name);
    return 0;
}

static int check_length(struct context *c)
{
    struct request *r = c->r;
    const struct profile *p = c->p;
    const struct mode_info *m = mode_info(r->mode);
    if (!m->clip) {
        r->frames = 1;
        r->fps = 0;
        return 0;
    }
    if (given(c, KEY_FRAMES) && given(c, KEY_SECONDS))
        return at_key(c, KEY_SECONDS, "the length is set twice: by frames and by seconds");
    if (m->needs & UINT32_C(1) << KEY_VIDEO) { /* the clip's own, as far as nothing else is said */
        if (given(c, KEY_FRAMES) && r->frames > p->max_frames)
            return at_key(c, KEY_FRAMES, "frames %d is over max_frames %d of %s", r->frames,
                          p->max_frames, p->name);
        return 0;
    }
    if (!given(c, KEY_FPS))
        r->fps = p->fps;
    enum request_key key = given(c, KEY_SECONDS) ? KEY_SECONDS : KEY_FRAMES;
    double frames = given(c, KEY_SECONDS)  ? fmax(1, round(r->seconds * r->fps))
                    : given(c, KEY_FRAMES) ? r->frames
                                           : p->frames;
    if (frames > p->max_frames && key == KEY_SECONDS)
        return at_key(c, key,
                      "seconds %g at %g frames a second are %.0f frames, over max_frames "
                      "%d of %s",
                      r->seconds, r->fps, frames, p->max_frames, p->name);
    if (frames > p->max_frames)
        return at_key(c, key, "frames %.0f is over max_frames %d of %s", frames, p->max_frames,
                      p->name);
    r->frames = (int)frames;
    return 0;
}

/* ---- the rest ---- */

static int check_sampling(struct context *c)
{
    struct request *r = c->r;
    const struct profile *p = c->p;
    if (!given(c, KEY_STEPS))
        r->steps = p->steps;
    if (r->steps > p->max_steps)
        return at_key(c, KEY_STEPS, "steps %d is over max_steps %d of %s", r->steps, p->max_steps,
                      p->name);
    if (r->count > p->max_count)
        return at_key(c, KEY_COUNT, "count %d is over max_count %d of %s", r->count, p->max_count,
                      p->name);
    if (!given(c, KEY_STRENGTH) && r->mode == MODE_OUTPAINT)
        r->strength = 1; /* nothing was there */
    if (!given(c, KEY_GUIDANCE))
        r->guidance = p->guidance;
    if (!given(c, KEY_SCHEDULER))
        memcpy(r->scheduler, p->scheduler, sizeof r->scheduler);
    /* 32 bits: torch's CPU generator reads no more of a seed, and every JSON reader holds them */
    if (!given(c, KEY_SEED) && job_mode_draws(r->mode))
        r->seed = random_u64() >> 32;
    if (!given(c, KEY_LORA) && p->lora_count) {
        r->loras = calloc(REQUEST_MAX_LORAS, sizeof *r->loras);
        if (!r->loras)
            return err_nomem(c->e);
        memcpy(r->loras, p->loras, (size_t)p->lora_count * sizeof *r->loras);
        r->lora_count = p->lora_count;
    }
    for (int i = 0; i < r->lora_count; i++)
        if (!lora_allowed(p, r->loras[i].name))
            return at_key(c, KEY_LORA,
                          "lora %s is a path; a prompt names LoRAs by name, and paths are for "
                          "registry.ini",
                          r->loras[i].name);
    return 0;
}

/* A request may be stricter than its profile; less strict only where the operator says so. */
static int check_permissions(struct context *c)
{
    struct request *r = c->r;
    const struct registry_safety *s = &c->registry->safety;
    if (!given(c, KEY_SAFETY_LEVEL))
        r->safety_level = c->p->safety_level;
    if (r->safety_level < c->p->safety_level && !s->allow_off)
        return at_key(c, KEY_SAFETY_LEVEL,
                      "safety_level %s is below the %s of profile %s, which is not allowed here "
                      "(allow_off in registry.ini)",
                      safety_level_names[r->safety_level], safety_level_names[c->p->safety_level],
                      c->p->name);
    if (!given(c, KEY_WATERMARK))
        r->watermark = c->p->watermark;
    if (!r->watermark && c->p->watermark && !s->allow_no_watermark)
        return at_key(c, KEY_WATERMARK,
                      "watermark no is not allowed here (allow_no_watermark in "
                      "registry.ini); use yes");
    return 0;
}

static int check_format(struct context *c)
{
    static const struct {
        enum media_format standard;
        uint32_t allowed;
        const char *list;
    } rules[MODALITY_COUNT] = {
        [MODALITY_IMAGE] = {MEDIA_PNG, 1 << MEDIA_PNG | 1 << MEDIA_JPEG | 1 << MEDIA_WEBP,
                            "png, jpeg or webp"},
        [MODALITY_VIDEO] = {MEDIA_MP4, 1 << MEDIA_MP4 | 1 << MEDIA_WEBM | 1 << MEDIA_PNG,
                            "mp4, webm or png (one file a frame)"},
        [MODALITY_GIF] = {MEDIA_GIF, 1 << MEDIA_GIF | 1 << MEDIA_WEBP, "gif or webp"},
    };
    struct request *r = c->r;
    if (!given(c, KEY_RETURN_FORMAT))
        r->format = rules[r->modality].standard;
    if (!(rules[r->modality].allowed & UINT32_C(1) << r->format))
        return at_key(c, KEY_RETURN_FORMAT, "return_format %s is nothing for %s; it may be %s",
                      media_format_info(r->format)->name, modality_names[r->modality],
                      rules[r->modality].list);
    r->separate_frames = r->modality == MODALITY_VIDEO && r->format == MEDIA_PNG;
    return 0;
}

/* Nothing is silently ignored: a key that the mode or the format has no use for is refused. */
static int check_use(struct context *c)
{
    const struct request *r = c->r;
    for (int k = 0; k < REQUEST_KEYS; k++) {
        enum request_key key = (enum request_key)k, against;
        if (!given(c, key) || mode_reads_key(r, key, &against))
            continue;
        if (against == KEY_MODE)
            return at_key(c, key, "%s has no use in mode %s; remove it", request_key_names[k],
                          job_mode_names[r->mode]);
        return at_key(c, key, "%s has no use with return_format %s; remove it",
                      request_key_names[k], media_format_info(r->format)->name);
    }
    return 0;
}

int request_normalise(struct request *r, const struct registry *registry, const char *where,
                      const struct profile **profile, struct err *e)
{
    struct context c = {r, registry, NULL, where, e};
    static int (*const checks[])(struct context *) = {
        check_mode,     check_profile,     check_size,   check_length,
        check_sampling, check_permissions, check_format, check_use,
    };
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        int code = checks[i](&c);
        if (code)
            return code;
    }
    *profile = c.p;
    return 0;
}

int stage_normalise(struct run *r, struct err *e)
{
    int code = 0;
    if (r->text)
        code = request_parse(r->text, r->size, r->where, r->modality, &r->request, e);
    if (!code)
        code = request_normalise(&r->request, r->registry, r->where, &r->profile, e);
    return code;
}
