/* One forward pass of the FLUX.2 transformer: which tokens there are, where they stand, and which
 * of them see each other.
 *
 * The text stands at (0, 0, 0, i), frames at (time, row, column, 0), pictures that are read beside
 * the drawing at times far from it. The frames of a clip are one sequence, or each is one of its
 * own with the text and the pictures, so that the work grows with their number and not with its
 * square. */
#ifndef OMNI_FLUX2_PASS_H
#define OMNI_FLUX2_PASS_H

#include "engine/models/family.h"
#include "engine/models/flux2_transformer.h"

struct flux2_layout {
    int text;          /* tokens */
    bool own_frames;   /* each frame sees only itself, the text and the pictures */
    int motion_period; /* P: times begin anew after it, and a loop of F frames, about k periods, has
                          the times 0, kP/F, 2kP/F …; 0: 0, 1, 2 … always */
    int reference_time; /* of the first picture beside the drawing; of the next as much later */
};

/* Fills pass->kept from pass->conditions[0], the text. */
void flux2_pass_prepare(const struct flux2_transformer *t, const struct flux2_layout *l,
                        struct ops *o, struct pass *pass);
/* x [batch, frames, h, w, channels] → the prediction, same shape. */
struct tensor *flux2_pass_predict(const struct flux2_transformer *t, const struct flux2_layout *l,
                                  struct ops *o, const struct pass *pass, const struct tensor *x,
                                  float timestep);

#endif
