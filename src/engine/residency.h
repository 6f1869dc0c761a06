/* Which of a model's weights are in memory. Prompts need the text encoders, steps and pixels the
 * rest; where memory is too short for both at once, one half sleeps while the other works: mapped
 * pages are given back, packed copies freed and made again from the files when they wake. */
#ifndef OMNI_RESIDENCY_H
#define OMNI_RESIDENCY_H

#include "engine/model.h"

enum residency { RESIDENT_ALL, RESIDENT_ENCODER /* text encoders */, RESIDENT_REST };

/* Wakes and puts to sleep what `want` asks for; -ENOMEM when packed copies cannot be made, and then
 * nothing may be drawn before another call succeeds. */
int residency_set(struct omni_model *m, enum residency want, struct err *e);
/* Bytes of weights when only that half is there. */
uint64_t residency_bytes(const struct omni_model *m, enum residency of);
/* Is there room for all weights and `planned` bytes within the memory stated when loading? */
bool residency_fits(const struct omni_model *m, uint64_t planned);

#endif
