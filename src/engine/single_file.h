/* A checkpoint in one file (.safetensors or .gguf) as people publish them: a transformer alone, or
 * a UNet with its autoencoder and text encoders. What the hub's layout says in folders and JSON is
 * found out from the names and shapes of the tensors. */
#ifndef OMNI_SINGLE_FILE_H
#define OMNI_SINGLE_FILE_H

#include <stdbool.h>

#include "base/err.h"
#include "engine/config.h"
#include "engine/weights/weights.h"

struct single_file;

/* Recognises what is in `path`. -EINVAL says what was found instead, and what is known. */
int single_file_open(const char *path, struct single_file **out, struct err *e);
void single_file_close(struct single_file *f);
const char *single_file_path(const struct single_file *f);
/* For people: "the transformer of FLUX.2 [klein]". */
const char *single_file_what(const struct single_file *f);
/* "Flux2KleinPipeline" */
const char *single_file_class(const struct single_file *f);
/* What model_index.json and scheduler/scheduler_config.json would say. */
int single_file_index(const struct single_file *f, struct config **out, struct err *e);
int single_file_scheduler(const struct single_file *f, struct config **out, struct err *e);
/* Is the part `name` in the file? Opens it under the names of the hub's layout; what is in *config
 * and *weights after a failure is still to be closed. */
bool single_file_has(const struct single_file *f, const char *name);
int single_file_part(const struct single_file *f, const char *name, struct config **config,
                     struct weights **weights, struct err *e);

#endif
