/* Where the LoRAs of a request lie.
 *
 * A prompt names them by name alone: `style` is style or style.safetensors in a folder of the
 * models' search path, else a file of that name in the job folder. What an operator writes into the
 * registry may also be an absolute path. */
#ifndef OMNIFS_JOB_LORAS_H
#define OMNIFS_JOB_LORAS_H

#include "job/registry.h"
#include "job/run.h"

/* May a request of this profile (NULL: any) ask for `name`? A plain name, or what the profile
 * itself names. */
bool lora_allowed(const struct profile *p, const char *name);
/* The file outside of the job folder; -ENOENT where there is none. */
int lora_find(const struct profile *p, const char *name, char path[REGISTRY_PATH_SIZE],
              struct err *e);
/* Fills r->loras from r->request, with files of r->in_fd where nothing else has the name. -ENOENT
 * with a sentence that names it. */
int run_find_loras(struct run *r, struct err *e);
void run_free_loras(struct run *r);
/* Do both ask the engine for the same files with the same weights? */
bool run_same_loras(const struct run *a, const struct run *b);

#endif
