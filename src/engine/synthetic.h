/* Checkpoints without files, to measure: the configs of published models as data, and synthetic
 * weights (weights/synthetic.h). Their path is "synthetic:NAME". */
#ifndef OMNI_SYNTHETIC_H
#define OMNI_SYNTHETIC_H

#define SYNTHETIC_PREFIX "synthetic:"
#define SYNTHETIC_PARTS  4

struct synthetic_model {
    const char *name;      /* "klein-4b" */
    const char *tokenizer; /* which kind its prompts need: "qwen" or "clip" */
    const char *index;     /* model_index.json */
    const char *scheduler; /* scheduler_config.json */
    struct synthetic_part {
        const char *name;   /* "transformer"; NULL behind the last */
        const char *config; /* config.json */
    } parts[SYNTHETIC_PARTS];
};

/* By name; NULL when unknown. */
const struct synthetic_model *synthetic_find(const char *name);
/* All of them, ended by NULL name. */
extern const struct synthetic_model synthetic_models[];

#endif
