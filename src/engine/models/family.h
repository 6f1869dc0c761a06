/* Model families. A family is one file and one line in families.c: it says which checkpoints are
 * its own, turns prompts into conditions, predicts one step and turns latents into pixels. The
 * pipeline does the rest and knows no family by name.
 *
 * Latents travel as [B, frames, height, width, channels]; pixels as [frames, H, W, 3] in -1 … 1.
 * Functions with a `struct ops` report failures there (sticky), and must run in planning mode too:
 * the same operations on the same shapes, whatever the data. */
#ifndef OMNI_FAMILY_H
#define OMNI_FAMILY_H

#include <stdbool.h>

#include "base/err.h"
#include "engine/checkpoint.h"
#include "engine/omni.h"
#include "engine/ops.h"
#include "engine/random.h"
#include "engine/schedule/schedule.h"

/* How pictures reach the model. A picture that drawing starts from becomes a latent, with as much
 * noise as the request's strength asks for. */
struct image_traits {
    bool references;  /* image_to_image: the pictures are read beside the drawing, at sizes of their
                         own, and drawing starts from noise; inpaint: its picture is read as well */
    bool drawn;       /* read_image draws from a distribution */
    bool beside;      /* inpaint: the mask and the rest of the picture are channels beside the
                         latent; else both are blended after every step */
    bool first_frame; /* image_to_video: the picture is read beside every frame and drawing starts
                         from noise; else the first frame is kept and the others start from it */
    bool smooth_mask; /* the mask becomes a latent's bilinearly, else by the nearest pixel */
};

/* What a loaded checkpoint can do and what it likes. */
struct family_traits {
    const char *variant; /* "base", "distilled" */
    unsigned modes;      /* bits 1u << OMNI_… */
    int size_multiple;   /* pixels */
    int max_frames;      /* 1: pictures only */
    int default_width, default_height, default_steps;
    double default_guidance; /* as the user states it */
    /* Guidance g means negative + (g + guidance_offset)·(positive - negative), and is off where
     * that factor is 1 or less. */
    double guidance_offset;
    bool guided; /* false: one prediction a step whatever the guidance */
    int max_prompt_tokens;
    bool same_noise; /* all frames of a clip start from the same noise */
    bool own_times;  /* a frame's time is its own: a loop is not turned between steps */
    struct image_traits images;
};

/* The latent of one request. */
struct latent_shape {
    int frames, height, width, channels;
    int64_t tokens;   /* positions that attend to each other: what a pass costs */
    bool frame_major; /* noise is drawn [frames, channels, height, width], else channels first */
};

/* What a prompt becomes: a few fp32 arrays on the host, kept by content in the prompt cache. */
#define CONDITION_ARRAYS 3
struct condition {
    int references; /* condition_drop frees at 0 */
    bool truncated; /* the prompt had more tokens than fit */
    int count;
    struct condition_array {
        int rank;
        int64_t dims[3];
        size_t bytes;
        float *data; /* NULL while planning */
    } arrays[CONDITION_ARRAYS];
};

/* One forward pass: some predictions of one batch, with what stays on the device for all steps. */
#define PASS_KEPT       8
#define PASS_REFERENCES 16
struct pass {
    int first, batch; /* which of the run's predictions */
    const struct latent_shape *latent;
    const struct omni_request *const *requests;  /* [batch] */
    struct tensor *conditions[CONDITION_ARRAYS]; /* [batch, …] */
    struct tensor *beside;                       /* NULL, or [batch, 1, h, w, …]: more channels */
    struct tensor *references[PASS_REFERENCES];  /* pictures: latents [batch, 1, h, w, channels] */
    int reference_count;
    struct tensor *kept[PASS_KEPT]; /* the family's own, from prepare() */
};

struct family {
    const char *name;           /* "flux2-klein" */
    const char *what;           /* for people: "FLUX.2 [klein]" */
    const char *const *classes; /* pipeline classes in model_index.json, NULL at the end */
    /* For classes that several families share: looks closer. May be NULL. */
    bool (*detect)(const struct checkpoint *c);
    int (*load)(struct checkpoint *c, void **state, struct family_traits *traits, struct err *e);
    void (*free)(void *state);
    /* The latent of a request that passed the general checks; -EINVAL for what is special here. */
    int (*shape)(const void *state, const struct omni_request *r, struct latent_shape *out,
                 struct err *e);
    /* Corrects options of the scheduler as the original pipeline does on loading; NULL: none. */
    void (*correct)(struct schedule_config *schedule);
    /* … and as its sibling that inpaints does, besides; NULL: none. */
    void (*correct_inpaint)(struct schedule_config *schedule);
    /* The schedule's mu; NULL where schedules are static. */
    double (*mu)(const void *state, const struct schedule_config *c,
                 const struct latent_shape *latent, int steps);
    /* A prompt (NULL: an absent negative prompt) → arrays [1, …]; returns how many. */
    int (*encode)(const void *state, struct ops *o, const char *prompt,
                  struct tensor *out[CONDITION_ARRAYS], bool *truncated);
    /* Fills pass->kept; may be NULL. */
    void (*prepare)(const void *state, struct ops *o, struct pass *pass);
    /* Latents x [batch, frames, h, w, channels] at `timestep` → the prediction, same shape. */
    struct tensor *(*predict)(const void *state, struct ops *o, const struct pass *pass,
                              const struct tensor *x, float timestep);
    /* Pixels [1, H, W, 3] → the latent [1, 1, h, w, channels] that noise is mixed with. `random` is
     * the request's generator, for families that draw (NULL while planning). NULL where no mode
     * reads pictures. */
    struct tensor *(*read_image)(const void *state, struct ops *o, const struct tensor *pixels,
                                 struct random *random);
    /* One latent frame [1, 1, h, w, channels] → pixels [1, H, W, 3]. */
    struct tensor *(*decode)(const void *state, struct ops *o, const struct tensor *latent);
    /* The same, cheap and possibly smaller; NULL, or false from can_preview: no previews. */
    struct tensor *(*preview)(const void *state, struct ops *o, const struct tensor *latent);
    bool (*can_preview)(const void *state);
};

/* The family of an opened checkpoint; -EINVAL names the class that was found and those known. */
int family_find(const struct checkpoint *c, const struct family **out, struct err *e);

extern const struct family family_flux2_klein, family_stable_diffusion, family_stable_diffusion_xl,
    family_zimage;

#endif
