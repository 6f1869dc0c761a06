#include "kl_part.h"

#include <stdio.h>

#include "engine/ops.h"

enum { LEVELS = 2 };
static const int width[LEVELS] = {8, 16};

static void add_pair(struct det_part *p, int rank, const int64_t *dims, const char *name)
{
    det_part_add(p, rank, dims, "%s.weight", name);
    det_part_add(p, 1, dims, "%s.bias", name);
}

static void add_resnet(struct det_part *p, int in, int out, const char *at)
{
    char name[128];
    snprintf(name, sizeof name, "%s.norm1", at);
    add_pair(p, SHAPE(in), name);
    snprintf(name, sizeof name, "%s.conv1", at);
    add_pair(p, SHAPE(out, in, 3, 3), name);
    snprintf(name, sizeof name, "%s.norm2", at);
    add_pair(p, SHAPE(out), name);
    snprintf(name, sizeof name, "%s.conv2", at);
    add_pair(p, SHAPE(out, out, 3, 3), name);
    snprintf(name, sizeof name, "%s.conv_shortcut", at);
    if (in != out)
        add_pair(p, SHAPE(out, in, 1, 1), name);
}

static void add_middle(struct det_part *p, const char *half, int c, const char *const names[4])
{
    char name[128];
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s.mid_block.resnets.%d", half, i);
        add_resnet(p, c, c, name);
    }
    snprintf(name, sizeof name, "%s.mid_block.attentions.0.group_norm", half);
    add_pair(p, SHAPE(c), name);
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s.mid_block.attentions.0.%s", half, names[i]);
        add_pair(p, SHAPE(c, c), name);
    }
}

static void add_encoder(struct det_part *p, int layers, const char *const names[4])
{
    char name[128];
    add_pair(p, SHAPE(width[0], 3, 3, 3), "encoder.conv_in");
    for (int i = 0; i < LEVELS; i++)
        for (int j = 0; j < layers; j++) {
            snprintf(name, sizeof name, "encoder.down_blocks.%d.resnets.%d", i, j);
            add_resnet(p, j || !i ? width[i] : width[i - 1], width[i], name);
        }
    add_pair(p, SHAPE(width[0], width[0], 3, 3), "encoder.down_blocks.0.downsamplers.0.conv");
    add_middle(p, "encoder", width[1], names);
    add_pair(p, SHAPE(width[1]), "encoder.conv_norm_out");
    add_pair(p, SHAPE(2 * KL_LATENT, width[1], 3, 3), "encoder.conv_out");
    add_pair(p, SHAPE(2 * KL_LATENT, 2 * KL_LATENT, 1, 1), "quant_conv");
}

void kl_add_decoder(struct det_part *p, int layers, const char *const names[4])
{
    char name[128];
    add_pair(p, SHAPE(KL_LATENT, KL_LATENT, 1, 1), "post_quant_conv");
    add_pair(p, SHAPE(width[1], KL_LATENT, 3, 3), "decoder.conv_in");
    add_middle(p, "decoder", width[1], names);
    for (int i = 0; i < LEVELS; i++)
        for (int j = 0; j < layers + 1; j++) {
            snprintf(name, sizeof name, "decoder.up_blocks.%d.resnets.%d", i, j);
            add_resnet(p, j || !i ? width[1 - i] : width[1], width[1 - i], name);
        }
    add_pair(p, SHAPE(width[1], width[1], 3, 3), "decoder.up_blocks.0.upsamplers.0.conv");
    add_pair(p, SHAPE(width[0]), "decoder.conv_norm_out");
    add_pair(p, SHAPE(3, width[0], 3, 3), "decoder.conv_out");
}

static const char *const new_names[4] = {"to_q", "to_k", "to_v", "to_out.0"};

struct det_part *kl_part(int layers)
{
    struct det_part *p = det_part_new();
    add_encoder(p, layers, new_names);
    kl_add_decoder(p, layers, new_names);
    return p;
}
