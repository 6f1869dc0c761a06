/* Single files of strangers: whatever tensors are in them, recognising, renaming and finding out
 * configs ends with tensors that lie inside of the file, or with a sentence. The input is a list of
 * tensors (a name from those that are published, a number for its blocks, a type, a shape), from
 * which a GGUF file is put together. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/infer.h"
#include "engine/single_file.h"
#include "engine/weights/naming.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECORD = 6, MOST_TENSORS = 256, MOST_ROWS = 15, ALIGNMENT = 32 };

static const char *const names[] = {
    /* `*`: a number. Signs of models come first. */
    "double_stream_modulation_img.lin.weight",
    "single_blocks.*.linear1.weight",
    "noise_refiner.*.attention_norm1.weight",
    "x_embedder.weight",
    "cap_embedder.1.weight",
    "model.diffusion_model.label_emb.0.0.weight",
    "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight",
    "conditioner.embedders.1.model.ln_final.weight",
    "model.diffusion_model.input_blocks.*.0.weight",
    "cond_stage_model.transformer.text_model.final_layer_norm.weight",
    "img_in.weight",
    "txt_in.weight",
    "final_layer.linear.weight",
    "final_layer.adaLN_modulation.1.weight",
    "time_in.in_layer.weight",
    "double_blocks.*.img_attn.qkv.weight",
    "double_blocks.*.txt_attn.qkv.weight",
    "single_blocks.*.linear2.weight",
    "single_blocks.*.norm.query_norm.scale",
    "layers.*.attention.qkv.weight",
    "layers.*.attention.q_norm.weight",
    "layers.*.attention.to_q.weight",
    "cap_embedder.0.weight",
    "x_pad_token",
    "norm_final.weight",
    "model.diffusion_model.input_blocks.*.0.in_layers.2.weight",
    "model.diffusion_model.input_blocks.*.1.transformer_blocks.0.attn1.to_q.weight",
    "model.diffusion_model.output_blocks.*.1.conv.weight",
    "model.diffusion_model.middle_block.1.proj_in.weight",
    "model.diffusion_model.out.2.weight",
    "first_stage_model.encoder.down.*.block.0.conv1.weight",
    "first_stage_model.decoder.up.*.block.0.norm1.weight",
    "first_stage_model.decoder.conv_in.weight",
    "first_stage_model.encoder.mid.attn_1.q.weight",
    "conditioner.embedders.1.model.text_projection",
    "conditioner.embedders.1.model.positional_embedding",
    "conditioner.embedders.1.model.token_embedding.weight",
    "conditioner.embedders.1.model.transformer.resblocks.*.attn.in_proj_weight",
    "conditioner.embedders.1.model.transformer.resblocks.*.attn.in_proj_bias",
    "conditioner.embedders.1.model.transformer.resblocks.*.mlp.c_fc.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "v_pred",
    "cond_stage_model.model.ln_final.weight",
    "cond_stage_model.model.transformer.resblocks.*.mlp.c_fc.weight",
    "global_step",
};

static void put(struct str *s, uint64_t value, size_t bytes)
{
    str_addn(s, &value, bytes);
}

/* One tensor's info; returns the bytes of its data. */
static size_t add_tensor(struct str *s, const uint8_t r[RECORD], size_t offset)
{
    static const struct {
        uint32_t id, block, bytes;
    } types[] = {{0, 1, 4}, {1, 1, 2}, {8, 32, 34}, {27, 1, 8}};
    int rank = r[2] % 5;
    uint64_t elements = 1, dims[4];
    unsigned type = r[3] % 4;
    AUTO_STR struct str name = {0};
    for (const char *c = names[r[0] % ARRAY_LEN(names)]; *c; c++)
        if (*c == '*')
            str_addf(&name, "%d", r[1] % 16);
        else
            str_addc(&name, *c);
    for (int i = 0; i < rank; i++) {
        dims[i] = r[4 + i / 2] >> 4 * (i % 2) & MOST_ROWS;
        dims[i] *= i == 0 ? types[type].block : 1; /* innermost */
        elements *= dims[i];
    }
    if (rank == 0)
        type = 0;
    put(s, name.len, 8);
    str_addn(s, name.data, name.len);
    put(s, (uint64_t)rank, 4);
    for (int i = 0; i < rank; i++)
        put(s, dims[i], 8);
    put(s, types[type].id, 4);
    put(s, offset, 8);
    size_t bytes = (size_t)elements / types[type].block * types[type].bytes;
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static int make_file(const uint8_t *data, size_t size)
{
    AUTO_STR struct str s = {0};
    size_t count = size / RECORD < MOST_TENSORS ? size / RECORD : MOST_TENSORS, offset = 0;
    str_add(&s, "GGUF");
    put(&s, 3, 4);
    put(&s, count, 8);
    put(&s, 0, 8);
    for (size_t i = 0; i < count; i++)
        offset += add_tensor(&s, data + i * RECORD, offset);
    while (s.len % ALIGNMENT)
        str_addc(&s, '\0');
    int fd = memfd_create("single", MFD_CLOEXEC);
    if (fd < 0 || s.failed || write(fd, s.data, s.len) != (ssize_t)s.len ||
        ftruncate(fd, (off_t)(s.len + offset)) != 0)
        exit(1); /* the machine's fault, not the input's */
    return fd;
}

/* Every byte that an entry claims can be read. */
static void touch(const struct weights *w)
{
    for (size_t i = 0; i < weights_count(w); i++) {
        const struct weights_entry *t = weights_at(w, i);
        volatile uint8_t touched = 0;
        int64_t n = 1;
        for (int a = 0; a < t->rank; a++)
            n *= t->dims[a];
        for (size_t k = 0; k < t->bytes; k++)
            touched = ((const uint8_t *)t->data)[k];
        (void)touched;
        if (t->usable && !t->expand && t->bytes != (size_t)n * dtype_size(t->dtype))
            abort();
        float *values = t->expand ? malloc((size_t)n * sizeof *values + 1) : NULL;
        if (values)
            t->expand(t->data, n, values);
        free(values);
    }
}

static void check_part(const struct single_file *f, const char *name)
{
    struct config *config = NULL;
    struct weights *w = NULL;
    struct err e = {0};
    if (!single_file_has(f, name))
        return;
    int code = single_file_part(f, name, &config, &w, &e);
    if (code ? !e.text[0] : !config || !w)
        abort();
    if (w)
        touch(w);
    weights_close(w);
    config_close(config);
}

static void check_file(const struct single_file *f)
{
    static const char *const parts[] = {"transformer", "unet", "vae", "text_encoder",
                                        "text_encoder_2"};
    struct config *index = NULL, *scheduler = NULL;
    struct err e = {0};
    if (single_file_index(f, &index, &e) || single_file_scheduler(f, &scheduler, &e))
        abort();
    config_close(index);
    config_close(scheduler);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        check_part(f, parts[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    struct single_file *f = NULL;
    struct err e = {0};
    int fd = make_file(data, size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int code = single_file_open(path, &f, &e);
    if (code ? !e.text[0] : !f)
        abort();
    if (f)
        check_file(f);
    single_file_close(f);
    close(fd);
    return 0;
}
