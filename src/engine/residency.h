/* Which of a model's weights are in memory. Prompts need the text encoders, steps and pixels the
 * rest; each is prepared when it is needed first. Where memory is too short for both at once, one
 * half sleeps while the other works: its mapped pages are given back and its copies freed, and both
 * are read or made again from the files. */
#ifndef OMNI_RESIDENCY_H
#define OMNI_RESIDENCY_H

#include "engine/model.h"

enum residency { RESIDENT_ENCODER /* text encoders */, RESIDENT_REST };

/* Wakes that half; `alone`: puts the other to sleep before. `cb` is asked whether to stop. -ENOMEM,
 * -ECANCELED, or what is wrong with a LoRA; then nothing may be drawn before another call succeeds.
 */
int residency_set(struct omni_model *m, enum residency want, bool alone,
                  const struct omni_callbacks *cb, struct err *e);
/* Keeps quantized matrices in their blocks, or not; those that change their form are asleep. */
int residency_keep_blocks(struct omni_model *m, bool keep, struct err *e);
/* Can residency_keep_blocks make a difference? */
bool residency_has_blocks(const struct omni_model *m);
/* Writes the sums of m->info anew: after anything that changes what weights are. */
void residency_count(struct omni_model *m);
/* Is there room for all weights, or for the larger half, and `planned` bytes within the memory
 * stated when loading? */
bool residency_fits(const struct omni_model *m, uint64_t planned);
bool residency_fits_by_turns(const struct omni_model *m, uint64_t planned);

#endif
