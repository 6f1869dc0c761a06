/* A request: what prompt.ini says, first as it was written, then normalised.
 *
 *     request_parse      text → request; every key checked by itself, nothing filled in
 *     request_normalise  + registry → mode, profile, defaults, limits; nothing clamped
 *     request_complete   + model → the checkpoint's own steps, guidance, scheduler
 *     request_json       → the object `request` of metadata.json, which request_from_json reads
 *
 * Errors name file and line: "cat/prompt.ini:4: width 5000 is over max_resolution …". */
#ifndef OMNIFS_JOB_REQUEST_H
#define OMNIFS_JOB_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "job/jobs.h"
#include "media/media.h"
#include "safety/prompt_filter.h"

#define REQUEST_MAX_BYTES  65536 /* of prompt.ini */
#define REQUEST_MAX_IMAGES 16
#define REQUEST_MAX_LORAS  16
#define REQUEST_MAX_COUNT  1000
#define REQUEST_MIN_FPS    0.1
#define REQUEST_MAX_FPS    240.0
#define SCHEDULER_SIZE     24

enum job_mode {
    MODE_TEXT_TO_IMAGE,
    MODE_IMAGE_TO_IMAGE,
    MODE_INPAINT,
    MODE_OUTPAINT,
    MODE_UPSCALE,
    MODE_TEXT_TO_VIDEO,
    MODE_IMAGE_TO_VIDEO,
    MODE_EDIT_VIDEO,
    MODE_VIDEO_TO_GIF,
    MODE_LOOP,
    MODE_COUNT
};
extern const char *const job_mode_names[MODE_COUNT + 1]; /* NULL-terminated */

enum request_key {
    KEY_PROMPT,
    KEY_NEGATIVE_PROMPT,
    KEY_MODE,
    KEY_PROFILE,
    KEY_SAFETY_LEVEL,
    KEY_WATERMARK,
    KEY_RETURN_FORMAT,
    KEY_SIZE,
    KEY_WIDTH,
    KEY_HEIGHT,
    KEY_FRAMES,
    KEY_FPS,
    KEY_SECONDS,
    KEY_STEPS,
    KEY_GUIDANCE,
    KEY_SEED,
    KEY_SCHEDULER,
    KEY_COUNT,
    KEY_IMAGE,
    KEY_MASK,
    KEY_VIDEO,
    KEY_STRENGTH,
    KEY_EXPAND,
    KEY_SCALE,
    KEY_LORA,
    KEY_QUALITY,
    KEY_LOOP,
    KEY_PALETTE,
    KEY_DITHER,
    REQUEST_KEYS
};
extern const char *const request_key_names[REQUEST_KEYS + 1]; /* NULL-terminated */

struct request_lora {
    char name[256]; /* on the search path, or a path */
    double weight;
};

struct request {
    enum modality modality;
    /* Line of each key in prompt.ini; 0: absent. -1: given, but not in a file. */
    int line[REQUEST_KEYS];

    char *prompt;          /* heap; NULL: absent */
    char *negative_prompt; /* heap; NULL: absent, "" is the empty text */
    enum job_mode mode;
    char profile[64];
    enum safety_level safety_level;
    bool watermark;
    enum media_format format;
    bool separate_frames; /* a clip as frame-0001.png … */

    int width, height; /* pixels */
    int frames;        /* 1 for pictures */
    double fps;        /* 0 for pictures */
    double seconds;    /* as given; frames is what counts */
    int steps;         /* 0 until request_complete where profile and request name none */
    double guidance;   /* NAN likewise */
    uint64_t seed;
    char scheduler[SCHEDULER_SIZE]; /* "" likewise */
    int count;

    char **images; /* [image_count] names of files in the job folder */
    int image_count;
    char *mask, *video; /* heap or NULL */
    double strength;    /* 0 … 1 */
    int expand[4];      /* pixels: left, top, right, bottom */
    double scale;       /* upscale */
    struct request_lora *loras;
    int lora_count;

    int quality; /* 1 … 100 */
    int loop;    /* 0: for ever */
    int palette; /* colours, 2 … 256 */
    enum media_dither dither;
};

struct registry;
struct profile;

/* "name:weight, name" into out[max]; a weight that is left out is 1. */
int request_lora_parse(const char *text, struct request_lora *out, int max, int *count,
                       struct err *e);
/* The schedulers a request may name, NULL-terminated. */
extern const char *const request_scheduler_names[];

/* `where` is the file for messages. The request is request_free'd by the caller in any case. */
int request_parse(const char *text, size_t size, const char *where, enum modality modality,
                  struct request *out, struct err *e);
/* Sets one key as a line `key = value` would (from -s of the command line; replaces what was). */
int request_set(struct request *r, const char *key, const char *value, const char *where,
                struct err *e);
/* Fills in everything that the profile and the modality decide, draws a seed where none is given,
 * and checks all limits. `*profile` points into the registry. */
int request_normalise(struct request *r, const struct registry *registry, const char *where,
                      const struct profile **profile, struct err *e);
/* What only the loaded model knows. */
struct omni_model_info;
void request_complete(struct request *r, const struct omni_model_info *info);
void request_free(struct request *r);

/* Does the mode draw with the model (or only convert files)? */
bool job_mode_draws(enum job_mode m);
/* The names of all files that the request refers to, in a fixed order: calls each(ctx, name) until
 * it returns other than 0; returns that. */
int request_references(const struct request *r, int (*each)(void *ctx, const char *name),
                       void *ctx);

/* The normalised request as the object `request` of metadata.json (new reference; NULL: memory). */
json_t *request_json(const struct request *r);
/* A seed as a number, or as text where it is over 2^63 - 1. */
json_t *json_seed(uint64_t seed);
/* The other way: `metadata` is a whole metadata.json; all keys of its `request` are set as if they
 * stood in a prompt.ini, and its modality is used. */
int request_from_json(const char *metadata, size_t size, const char *where, struct request *out,
                      struct err *e);

#endif
