/* What config.json of a UNet2DConditionModel says, checked: options that would change the numbers
 * and are not implemented are refused by name. */
#ifndef OMNI_UNET_CONFIG_H
#define OMNI_UNET_CONFIG_H

#include <stdbool.h>

#include "base/err.h"
#include "engine/config.h"

#define UNET_MAX_LEVELS 8
#define UNET_MAX_LAYERS 8 /* residual blocks of a level on the way down; one more on the way up */

struct unet_level_config {
    int width;
    int layers;                        /* residual blocks on the way down */
    bool down, up;                     /* attends to the text on the way down, up */
    int transformers[UNET_MAX_LAYERS]; /* blocks in each attention on the way down */
    int up_transformers[UNET_MAX_LAYERS + 1];
    int heads;
    int text_width;
};

/* What the deepest level goes through: two residual blocks with attention between, one residual
 * block, or nothing. */
enum unet_middle { UNET_MIDDLE_ATTENDS, UNET_MIDDLE_PLAIN, UNET_MIDDLE_NONE };

struct unet_config {
    int in_channels, out_channels;
    int count; /* levels, the finest first */
    struct unet_level_config level[UNET_MAX_LEVELS];
    enum unet_middle middle;
    int middle_transformers;
    bool linear_projection; /* proj_in and proj_out are matrices, not 1x1 convolutions */
    int groups;
    float norm_eps;
    int time_width;     /* of the embedding that residual blocks read */
    int guidance_width; /* of the sinusoid of the guidance; 0: not told */
    int added_number;   /* width of each time id's sinusoid; 0: no added vector */
    int added_width;    /* pooled text and time ids together */
    bool cos_first;
    int frequency_shift;
};

int unet_config_read(struct config *c, struct unet_config *out, struct err *e);

#endif
