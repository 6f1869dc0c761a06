#include "job/modes.h"

#define BIT(key) (UINT32_C(1) << (key))
#define CLIP     (BIT(KEY_FRAMES) | BIT(KEY_FPS) | BIT(KEY_SECONDS))
#define IMAGE    BIT(KEY_IMAGE)

const char *const job_mode_names[MODE_COUNT + 1] = {
    "text_to_image",  "image_to_image", "inpaint",      "outpaint", "upscale", "text_to_video",
    "image_to_video", "edit_video",     "video_to_gif", "loop",     NULL,
};

static const struct mode_info modes[MODE_COUNT] = {
    [MODE_TEXT_TO_IMAGE] = {MODALITY_IMAGE, true, false, false, OMNI_TEXT_TO_IMAGE, BIT(KEY_PROMPT),
                            BIT(KEY_COUNT)},
    [MODE_IMAGE_TO_IMAGE] = {MODALITY_IMAGE, true, false, false, OMNI_IMAGE_TO_IMAGE,
                             BIT(KEY_PROMPT) | IMAGE, BIT(KEY_STRENGTH) | BIT(KEY_COUNT)},
    [MODE_INPAINT] = {MODALITY_IMAGE, true, false, false, OMNI_INPAINT,
                      BIT(KEY_PROMPT) | IMAGE | BIT(KEY_MASK), BIT(KEY_STRENGTH) | BIT(KEY_COUNT)},
    [MODE_OUTPAINT] = {MODALITY_IMAGE, true, false, true, OMNI_INPAINT, IMAGE | BIT(KEY_EXPAND),
                       BIT(KEY_STRENGTH) | BIT(KEY_COUNT)},
    [MODE_UPSCALE] = {MODALITY_IMAGE, false, false, true, 0, IMAGE, BIT(KEY_SCALE)},
    [MODE_TEXT_TO_VIDEO] = {MODALITY_VIDEO, true, true, false, OMNI_TEXT_TO_VIDEO, BIT(KEY_PROMPT),
                            CLIP},
    [MODE_IMAGE_TO_VIDEO] = {MODALITY_VIDEO, true, true, false, OMNI_IMAGE_TO_VIDEO,
                             BIT(KEY_PROMPT) | IMAGE, CLIP | BIT(KEY_STRENGTH)},
    /* frame by frame, from one noise */
    [MODE_EDIT_VIDEO] = {MODALITY_VIDEO, true, true, true, OMNI_IMAGE_TO_IMAGE,
                         BIT(KEY_PROMPT) | BIT(KEY_VIDEO), CLIP | BIT(KEY_STRENGTH)},
    [MODE_VIDEO_TO_GIF] = {MODALITY_GIF, false, true, true, 0, BIT(KEY_VIDEO), CLIP},
    [MODE_LOOP] = {MODALITY_GIF, true, true, false, OMNI_TEXT_TO_VIDEO, BIT(KEY_PROMPT),
                   IMAGE | CLIP | BIT(KEY_STRENGTH)},
};

const struct mode_info *mode_info(enum job_mode m)
{
    return &modes[m];
}

bool job_mode_draws(enum job_mode m)
{
    return modes[m].draws;
}

uint32_t mode_special_keys(void)
{
    return CLIP | IMAGE | BIT(KEY_COUNT) | BIT(KEY_MASK) | BIT(KEY_VIDEO) | BIT(KEY_STRENGTH) |
           BIT(KEY_EXPAND) | BIT(KEY_SCALE);
}

/* Keys that only formats with a choice of them read. */
static uint32_t format_keys(enum media_format format)
{
    switch (format) {
    case MEDIA_PNG:
        return 0;
    case MEDIA_GIF:
        return BIT(KEY_PALETTE) | BIT(KEY_DITHER);
    default:
        return BIT(KEY_QUALITY);
    }
}

bool mode_reads_key(const struct request *r, enum request_key key, enum request_key *against)
{
    static const uint32_t drawing = BIT(KEY_PROMPT) | BIT(KEY_NEGATIVE_PROMPT) | BIT(KEY_STEPS) |
                                    BIT(KEY_GUIDANCE) | BIT(KEY_SEED) | BIT(KEY_SCHEDULER) |
                                    BIT(KEY_LORA) | BIT(KEY_WATERMARK);
    static const uint32_t encoding = BIT(KEY_QUALITY) | BIT(KEY_PALETTE) | BIT(KEY_DITHER);
    const struct mode_info *m = mode_info(r->mode);
    uint32_t bit = BIT(key);
    bool by_format = (encoding & bit) != 0;
    if (against)
        *against = by_format ? KEY_RETURN_FORMAT : KEY_MODE;
    if (by_format)
        return (format_keys(r->format) & bit) != 0;
    if (mode_special_keys() & bit)
        return ((m->needs | m->may) & bit) != 0;
    if (key == KEY_LOOP)
        return r->modality == MODALITY_GIF;
    return m->draws || !(drawing & bit);
}

enum job_mode mode_default(const struct request *r)
{
    static const struct {
        enum modality modality;
        uint32_t given;
        enum job_mode mode;
    } rules[] = {
        /* the first whose keys are all given */
        {MODALITY_IMAGE, BIT(KEY_MASK), MODE_INPAINT},
        {MODALITY_IMAGE, BIT(KEY_EXPAND), MODE_OUTPAINT},
        {MODALITY_IMAGE, BIT(KEY_SCALE), MODE_UPSCALE},
        {MODALITY_IMAGE, IMAGE, MODE_IMAGE_TO_IMAGE},
        {MODALITY_IMAGE, 0, MODE_TEXT_TO_IMAGE},
        {MODALITY_VIDEO, BIT(KEY_VIDEO), MODE_EDIT_VIDEO},
        {MODALITY_VIDEO, IMAGE, MODE_IMAGE_TO_VIDEO},
        {MODALITY_VIDEO, 0, MODE_TEXT_TO_VIDEO},
        {MODALITY_GIF, BIT(KEY_VIDEO), MODE_VIDEO_TO_GIF},
        {MODALITY_GIF, 0, MODE_LOOP},
    };
    uint32_t given = 0;
    for (int k = 0; k < REQUEST_KEYS; k++)
        if (r->line[k])
            given |= BIT(k);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].modality == r->modality && (given & rules[i].given) == rules[i].given)
            return rules[i].mode;
    return MODE_TEXT_TO_IMAGE;
}
