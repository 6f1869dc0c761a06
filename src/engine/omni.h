/* Omni: a diffusion engine in C. The one public header.
 *
 * Load a checkpoint folder, plan a request (bytes needed, known before any work), generate pictures
 * or clips. A model is used by one thread at a time; different models may run side by side. Nothing
 * here prints or exits; errors are one sentence in `struct err`. */
#ifndef OMNI_H
#define OMNI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/picture.h"

struct omni_model;

/* OMNI_FP8: as bf16, but the large products of the transformer or U-Net have operands in 8-bit
 * floats (e4m3), with a scale for each matrix and for each item's activations; NVIDIA GPUs from
 * compute capability 8.9 on alone, with cuBLASLt. */
enum omni_precision { OMNI_AUTO, OMNI_FP32, OMNI_BF16, OMNI_FP16, OMNI_FP8 };

/* "auto", "fp32", "bf16", "fp16", "fp8" ↔ enum; parse returns -EINVAL for other words. */
int omni_precision_parse(const char *word, enum omni_precision *out);
const char *omni_precision_name(enum omni_precision p);

/* A part of a checkpoint that lies elsewhere. `path`: its folder, or a checkpoint in the hub's
 * layout that has a part of this name. */
struct omni_part {
    const char *name; /* "text_encoder", "text_encoder_2", "vae", "tokenizer", "tokenizer_2" … */
    const char *path;
};

struct omni_load_options {
    const char *device;            /* "cpu", "cuda:0"; NULL: the first of omni_device_list(NULL) */
    enum omni_precision precision; /* OMNI_AUTO: measured to be the fastest that the model allows */
    int threads;                   /* CPU threads; 0: OMNIFS_THREADS, else all that may be used */
    /* Bytes for weights and work together; 0: no bound. Where all weights and a request's work do
     * not fit, quantized matrices stay in their blocks, and where that is not enough, text encoders
     * and the rest are in memory by turns, which costs time at each prompt that is new. */
    uint64_t memory;
    const struct omni_part *parts; /* in place of the checkpoint's own, or of those it lacks */
    int part_count;
};

struct omni_model_info {
    const char *family;    /* "flux2-klein" */
    const char *variant;   /* "base" or "distilled" */
    const char *precision; /* what OMNI_AUTO became */
    const char *device;
    uint64_t parameters; /* over all parts */
    /* Weights in memory, exactly: all of them; at most at a time where they are there by turns; now
     * (none before a request needs them). The last omni_plan or omni_generate may have changed
     * them, with its LoRAs and by in_blocks. */
    uint64_t weight_bytes, least_weight_bytes, resident_bytes;
    bool in_blocks;    /* large quantized matrices stay in their blocks, because memory is short */
    int size_multiple; /* widths and heights must be multiples of this, in pixels */
    int default_width, default_height;
    int default_steps;
    double default_guidance;
    bool guided;    /* guidance and negative prompts have an effect */
    bool has_video; /* frames > 1 are possible */
    /* image_to_image reads pictures beside the drawing, at sizes of their own and without strength;
     * else drawing starts from the one picture, made the request's size. */
    bool reads_references;
    /* image_to_video reads its picture beside every frame, without strength; else the picture is
     * the first frame. */
    bool reads_first_frame;
    int max_prompt_tokens;
    /* Over the model's files in order: names, sizes and contents; of files over 64 MiB the first
     * MiB and 256 samples of 64 KiB, so that loading stays fast (engine/fingerprint.h). */
    char sha256[65];
};

/* Opens a checkpoint and reads no weights, which come into memory when a request needs them.
 *
 * It is a folder in the hub's layout (model_index.json), or a single .safetensors or .gguf file, or
 * a folder that holds one. Parts that a single file lacks are looked for in `parts`, in folders
 * beside the file, and (tokenizers, the scheduler) beside the other parts. Configs are found out
 * from the tensors; model_index.json and config.json beside the file win where their _class_name is
 * the right one. */
int omni_model_load(const char *path, const struct omni_load_options *options,
                    struct omni_model **out, struct err *e);
void omni_model_free(struct omni_model *m);
const struct omni_model_info *omni_model_info(const struct omni_model *m);

/* Low-rank changes of the weights, added to them times `weight`. */
#define OMNI_MAX_LORAS 16
struct omni_lora {
    const char *path; /* a .safetensors file */
    double weight;
};

enum omni_mode {
    OMNI_TEXT_TO_IMAGE,
    OMNI_IMAGE_TO_IMAGE,
    OMNI_INPAINT,
    OMNI_TEXT_TO_VIDEO,
    OMNI_IMAGE_TO_VIDEO
};

struct omni_request {
    enum omni_mode mode;
    const char *prompt;          /* UTF-8, not NULL */
    const char *negative_prompt; /* NULL: what the family's reference pipeline does without */
    int width, height;           /* pixels, multiples of size_multiple */
    int frames;                  /* 1 for pictures */
    bool loop;                   /* the clip should return to its start */
    int steps;                   /* 0: the checkpoint's own */
    double guidance; /* NAN: the checkpoint's own; as the family's diffusers pipeline means it */
    uint64_t seed;
    const char *scheduler;        /* NULL: the checkpoint's own */
    double strength;              /* with pictures: 0 … 1, how far from the first one */
    const struct picture *images; /* borrowed; the first is what is changed, or begins the clip */
    int image_count;
    const struct picture *mask; /* inpaint: white is drawn anew; scaled with the picture */
    /* The same for all requests of a call; another set than that of the last call means that the
     * weights it touches are made anew. */
    const struct omni_lora *loras;
    int lora_count;
};

/* What became of one LoRA. */
struct omni_lora_report {
    char sha256[65];      /* of the file */
    int modules, matched; /* how many it has, and of how many the model has the weights */
    char unmatched[152];  /* the first that does not fit, "" for none */
};

enum omni_stage { OMNI_ENCODE, OMNI_STEPS, OMNI_DECODE };

struct omni_callbacks {
    void *ctx;
    /* Work `done` of `total` in `stage` (steps, frames); seconds may be derived by the caller. */
    void (*progress)(void *ctx, enum omni_stage stage, int done, int total);
    /* Asked at least every step and within long steps (every 0.5 s at the least); true ends the
     * whole call with -ECANCELED. */
    bool (*cancelled)(void *ctx);
    /* A small picture of request `index` as it stands after `step`, borrowed; asked for every
     * `preview_every` steps (0: never). */
    void (*preview)(void *ctx, int index, int step, const struct picture *p);
    int preview_every;
    /* After each matrix product, convolution and attention: "linear", "conv" or "attention", its
     * shape ("1536x3072 · 3072x3072"), two operations a multiply-add, seconds. */
    void (*operation)(void *ctx, const char *kind, const char *shape, uint64_t flops,
                      double seconds);
};

struct omni_result {
    struct picture picture;
    bool prompt_truncated;   /* the prompt had more tokens than the model reads */
    bool negative_truncated; /* the same of the negative prompt, where it was read */
    int steps;               /* as used */
    double guidance;
    char scheduler[24];
    int lora_count;
    struct omni_lora_report loras[OMNI_MAX_LORAS];
};

/* What one kind of operation did during a call, for bench tables. */
struct omni_work {
    const char *kind;             /* "linear", "conv", "attention", "norm", "pointwise", "move" */
    uint64_t calls, flops, bytes; /* two operations a multiply-add; bytes read and written */
    double seconds;
};
#define OMNI_WORK_KINDS 6

struct omni_timings {
    double encode, steps, decode; /* seconds for the whole call */
    struct omni_work work[OMNI_WORK_KINDS];
    uint64_t peak_bytes;    /* activations and workspace, as measured by the arena */
    uint64_t planned_bytes; /* the same, as predicted */
};

/* Peak bytes beyond the weights that omni_generate will use for these requests together; what the
 * weights take then is in omni_model_info. -EINVAL with a sentence for a request that this model
 * cannot do (size, mode, frames, scheduler). */
int omni_plan(struct omni_model *m, const struct omni_request *requests, int count, uint64_t *bytes,
              struct err *e);

/* Runs `count` requests of one mode, size, frames and step count as one batch; each gives the same
 * bytes as it does alone. results[count] are the caller's to picture_free; `timings` may be NULL.
 * -ECANCELED, -ENOMEM (with bytes needed, before any work), -EDOM (NaN: the text names the step),
 * -ENODEV (the device is lost: models on it are only good for omni_model_free; loading says it
 * too). On error no result holds pixels. */
int omni_generate(struct omni_model *m, const struct omni_request *requests, int count,
                  const struct omni_callbacks *callbacks, struct omni_result *results,
                  struct omni_timings *timings, struct err *e);

/* Networks that enlarge pictures: the parts upscaler/ and upscaler_x2/ (which may be missing) of a
 * checkpoint in the hub's layout. */
struct omni_upscaler;
int omni_upscaler_load(const char *path, const struct omni_load_options *options,
                       struct omni_upscaler **out, struct err *e);
void omni_upscaler_free(struct omni_upscaler *u);
struct omni_upscaler_info {
    uint64_t weight_bytes;
    char precision[8]; /* "bf16", "fp32" */
    char device[32];   /* "cpu", "cuda:0" */
    char sha256[65];   /* of the networks' files, as that of a model */
};
const struct omni_upscaler_info *omni_upscaler_info(const struct omni_upscaler *u);
/* How many times the networks should enlarge a picture that is wanted `times` as large: as often
 * as leaves a filter to enlarge the rest by at most a half, or to make it smaller. 1: not. */
int omni_upscaler_factor(const struct omni_upscaler *u, double times);
/* Peak bytes beyond the weights and the result. */
int omni_upscale_plan(const struct omni_upscaler *u, int width, int height, int factor,
                      uint64_t *bytes, struct err *e);
struct omni_upscale {
    const struct picture *in; /* borrowed */
    int factor;               /* as omni_upscaler_factor says */
    void *ctx;
    bool (*cancelled)(void *ctx); /* may be NULL */
    /* Takes frame `index`, enlarged, and valid until it returns; other than 0 ends the call. */
    int (*frame)(void *ctx, int index, const struct picture *large, struct err *e);
};
/* All frames of a clip, one after the other. -ECANCELED, -ENOMEM, -EINVAL (sizes). */
int omni_upscale(const struct omni_upscaler *u, const struct omni_upscale *job, struct err *e);

/* What a path holds, for `omnifs models`. JSON object (heap, caller frees): family, variant, parts
 * with found/missing, parameters, dtypes, unused tensors, bytes of weights in memory (all, by
 * turns, in blocks) and of work beside them at some sizes. Works for broken checkpoints as far as
 * they can be read. Of `options` (may be NULL) only the parts count.
 */
int omni_inspect(const char *path, const struct omni_load_options *options, char **json,
                 struct err *e);
/* Checks every tensor: present, shape, no NaN or infinity. 0, or a sentence about the first fault.
 * Without options a single file may lack parts that lie elsewhere. */
int omni_verify(const char *path, const struct omni_load_options *options, struct err *e);
/* Compares the sha256 of the checkpoint's files with what is known of them: a file NAME.sha256 or
 * SHA256SUMS beside them (or one folder above), or the names that the hub's cache gives to large
 * files. *json (heap, caller frees): {"checked": [{"file", "sha256", "source"} …], "unknown":
 * [files of which nothing is known …]}. -EDOM and a sentence with both sums about the first that
 * differs. */
int omni_verify_sums(const char *path, const struct omni_load_options *options, char **json,
                     struct err *e);

#define OMNI_MAX_DEVICES 16
struct omni_device {
    char name[32];                      /* "cpu", "cuda:0" */
    uint64_t memory_free, memory_total; /* bytes of its own, now; 0: it draws in the machine's */
};
/* The devices that `list` names: "cpu", "cuda:0, cuda:1", or "auto", every CUDA device that opens,
 * and the CPU where none does; NULL or "": OMNIFS_DEVICE, else auto. Each is opened for a moment;
 * no more than the first `max` are looked at. -EINVAL: an unknown word, or one twice; -ENODEV: a
 * named device that does not open, with the reason. */
int omni_device_list(const char *list, struct omni_device *out, int max, int *count, struct err *e);

/* One line about each usable device: "cpu: AMD EPYC, 2 threads, avx512_bf16" … JSON array, heap. */
int omni_devices(char **json, struct err *e);

#endif
