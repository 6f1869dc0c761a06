/* A checkpoint: a folder in the hub's layout, that is model_index.json and one folder a part
 * (transformer/, vae/, text_encoder/ …), each with config.json and weights; or a single file
 * (single_file.h), whose other parts lie beside it or elsewhere.
 *
 * Parts are opened as families ask for them and stay mapped until checkpoint_close(); the tensors
 * that a part's loader made are freed with it. */
#ifndef OMNI_CHECKPOINT_H
#define OMNI_CHECKPOINT_H

#include <stdbool.h>

#include "base/err.h"
#include "engine/config.h"
#include "engine/omni.h"
#include "engine/ops.h"
#include "engine/single_file.h"
#include "engine/weights/weights.h"

#define CHECKPOINT_MAX_PARTS 8

struct part {
    char name[40]; /* "text_encoder" */
    const char
        *class_name; /* "AutoencoderTiny": _class_name, else architectures[0]; "" where none */
    struct config *config; /* config.json */
    struct weights *weights;
    struct weight_loader loader;
};

struct checkpoint {
    char *path;                              /* as it was given */
    char *folder;                            /* where parts are looked for */
    const struct synthetic_model *synthetic; /* configs and weights without files, or NULL */
    struct single_file *file;                /* NULL: all parts are in folders */
    const struct omni_part
        *elsewhere; /* parts that lie elsewhere, borrowed while parts are opened */
    int elsewhere_count;
    char missing[40];        /* the first part of a single file that was asked for in vain, or "" */
    struct config *index;    /* model_index.json */
    const char *class_name;  /* "Flux2KleinPipeline" */
    struct backend *backend; /* where weights go, borrowed */
    enum dtype compute;      /* type of products */
    bool fp8;                /* large products in e4m3 (weights.h: weight_linear) */
    bool shapes_only;        /* tensors without data, for inspection */
    bool asleep;             /* tensors without data until they are woken (residency.h) */
    struct part parts[CHECKPOINT_MAX_PARTS];
    int part_count;
};

/* Reads `path`/model_index.json; or recognises the file `path`, or the only weights in the folder
 * `path` where it holds no parts. elsewhere, backend, compute, fp8, shapes_only and asleep are the
 * caller's to set before parts are opened. */
int checkpoint_open(struct checkpoint *c, const char *path, struct err *e);
void checkpoint_close(struct checkpoint *c);
/* Where `name` ("tokenizer", "scheduler/scheduler_config.json") is or should be (heap, caller
 * frees): where its part lies, else beside the parts that lie elsewhere. NULL without memory. */
char *checkpoint_file(const struct checkpoint *c, const char *name);
/* The same for the folder of a part; a missing one is a sentence that says what to do. */
int checkpoint_folder(struct checkpoint *c, const char *name, char **out, struct err *e);
/* scheduler/scheduler_config.json, or what the single file's family has. */
int checkpoint_scheduler(const struct checkpoint *c, struct config **out, struct err *e);
/* Opens part `name` and its weights, `stem`.safetensors or shards of it. A missing folder or file
 * is one sentence that names it. The part belongs to the checkpoint. */
int checkpoint_part(struct checkpoint *c, const char *name, const char *stem, struct part **out,
                    struct err *e);
/* The same for a part that the caller closes: for a look at it. */
int checkpoint_peek(struct checkpoint *c, const char *name, const char *stem, struct part *out,
                    struct err *e);
/* Opens a part without model_index.json around it, as tools and tests do. */
int part_open(struct part *p, const char *folder, const char *name, const char *stem,
              struct err *e);
void part_close(struct part *p);

#endif
