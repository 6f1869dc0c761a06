/* The registry: what an operator offers and allows, from registry.ini (one section a profile, and
 * [limits], [devices], [safety]). A loaded registry never changes; a reload makes a new one, and
 * the old one lives until its last user lets go. */
#ifndef OMNIFS_JOB_REGISTRY_H
#define OMNIFS_JOB_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/omni.h"
#include "job/jobs.h"
#include "job/request.h"
#include "media/media.h"
#include "safety/prompt_filter.h"

#define REGISTRY_PATH_SIZE   4096
#define REGISTRY_MAX_DEVICES 16

/* Parts that a profile may take from elsewhere: keys of registry.ini, and the engine's names. */
enum profile_part {
    PART_TEXT_ENCODER,
    PART_TEXT_ENCODER_2,
    PART_VAE,
    PART_TOKENIZER,
    PART_TOKENIZER_2,
    PROFILE_PARTS
};
extern const char *const profile_part_names[PROFILE_PARTS];

#define PROFILE_NATIVE_SIZES 4

struct profile {
    char name[64];
    char model[512];                /* omni_model_id: a name on the search path, or a path */
    char parts[PROFILE_PARTS][512]; /* the same for parts of it; "": the model's own */
    enum modality modality;
    enum omni_precision precision;
    struct native_size {
        int width, height;
    } native[PROFILE_NATIVE_SIZES]; /* as many as there are; none: generate at the requested size */
    bool native_only; /* what prompts alone ask for is drawn at no other size, and continued */
    enum media_scale upscaler; /* how pictures are enlarged … */
    char upscaler_model[512]; /* … or the model whose networks do it, and a filter the rest; "" */
    int width, height;        /* default_size */
    int max_width, max_height; /* max_resolution */
    int max_frames, max_steps, max_count;
    int steps;                      /* 0: the checkpoint's own */
    double guidance;                /* NAN: the checkpoint's own */
    char scheduler[SCHEDULER_SIZE]; /* "": the checkpoint's own */
    int frames;
    double fps;
    struct request_lora loras[REQUEST_MAX_LORAS];
    int lora_count;
    enum safety_level safety_level;
    bool watermark;
    int priority;   /* higher is served first */
    double timeout; /* seconds of running */
};

struct registry_limits {
    int queue;              /* jobs waiting and running, all users */
    int jobs_per_user;      /* the same for one user */
    uint64_t store_bytes;   /* 0: none */
    uint64_t request_bytes; /* prompt and references of one job */
};

struct registry_devices {
    char names[REGISTRY_MAX_DEVICES][32]; /* "cpu", "cuda:0"; one worker each */
    int count;                            /* 0: OMNIFS_DEVICE, else the best there is */
    uint64_t memory;                      /* bytes for models and work; 0: from the machine */
    int threads;                          /* CPU threads; 0: all */
    int batch;                            /* most pictures drawn together */
};

struct registry_safety {
    bool allow_off;          /* safety_level = off may be asked for */
    bool allow_no_watermark; /* watermark = no may be asked for */
};

struct registry {
    char path[REGISTRY_PATH_SIZE];
    struct profile *profiles;
    int profile_count;
    struct registry_limits limits;
    struct registry_devices devices;
    struct registry_safety safety;
    struct prompt_filter *filter;
};

/* `path` NULL: the first that exists of $OMNIFS_REGISTRY, $XDG_CONFIG_HOME/omnifs/registry.ini,
 * /etc/omnifs/registry.ini, PREFIX/share/omnifs/registry.ini, the source tree's registry.ini. The
 * result has one reference. Errors name file and line. */
int registry_load(const char *path, struct registry **out, struct err *e);
/* The path that registry_load(NULL) would read; -ENOENT with the places that were searched. */
int registry_find(char path[REGISTRY_PATH_SIZE], struct err *e);
/* From memory; `where` for messages. */
int registry_parse(const char *text, size_t size, const char *where, struct registry **out,
                   struct err *e);
struct registry *registry_ref(const struct registry *r);
void registry_unref(struct registry *r);
const struct profile *registry_profile(const struct registry *r, const char *name);
/* The native size whose aspect is nearest to that of width x height; 0 x 0 where it has none. */
struct native_size profile_native(const struct profile *p, int width, int height); /* or NULL */

/* Where the model `name` lies: an absolute path, or the first hit on $OMNIFS_MODELS (':'),
 * $XDG_DATA_HOME/omnifs/models, /usr/local/share/omnifs/models, /usr/share/omnifs/models, the
 * source tree's models/. -ENOENT with the places that were searched. */
int model_find(const char *name, char path[REGISTRY_PATH_SIZE], struct err *e);
/* Where the parts lie that `p` takes from elsewhere, for omni_load_options. */
struct profile_places {
    struct omni_part list[PROFILE_PARTS];
    int count;
    char paths[PROFILE_PARTS][REGISTRY_PATH_SIZE];
};
int profile_places_find(const struct profile *p, struct profile_places *out, struct err *e);
/* Calls each(ctx, folder) for every folder of that search path that exists. */
void model_search_path(void (*each)(void *ctx, const char *folder), void *ctx);
/* A file of the installation: the first of /usr/local/share/omnifs, /usr/share/omnifs, the source
 * tree's share/ that holds `name`. -ENOENT. */
int share_find(const char *name, char path[REGISTRY_PATH_SIZE], struct err *e);

#endif
