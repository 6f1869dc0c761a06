/* Sizes by swscale. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <libswscale/swscale.h>

#include "base/cleanup.h"
#include "media/media.h"
#include "media/video.h"

static const int flags[] = {
    [MEDIA_LANCZOS] = SWS_LANCZOS,
    [MEDIA_BICUBIC] = SWS_BICUBIC,
    [MEDIA_BILINEAR] = SWS_BILINEAR,
    [MEDIA_NEAREST] = SWS_POINT,
};

static struct SwsContext *open_scaler(const struct picture *in, int width, int height,
                                      enum media_scale how)
{
    return sws_getContext(in->width, in->height, AV_PIX_FMT_RGB24, width, height, AV_PIX_FMT_RGB24,
                          flags[how] | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP | SWS_FULL_CHR_H_INT |
                              SWS_BITEXACT,
                          NULL, NULL, NULL);
}

static int scale_frame(struct SwsContext *c, const uint8_t *from, const struct picture *in,
                       uint8_t *to, const struct picture *out, struct err *e)
{
    const uint8_t *source[4] = {from};
    uint8_t *target[4] = {to};
    int source_stride[4] = {in->width * 3}, target_stride[4] = {out->width * 3};
    if (sws_scale(c, source, source_stride, 0, in->height, target, target_stride) == out->height)
        return 0;
    return err_set(e, -EIO, "scaling %dx%d to %dx%d failed", in->width, in->height, out->width,
                   out->height);
}

int media_resize(const struct picture *in, int width, int height, enum media_scale how,
                 struct picture *out, struct err *e)
{
    *out = (struct picture){0};
    if ((unsigned)how > MEDIA_NEAREST)
        return err_set(e, -EINVAL, "scaling method %d is unknown", (int)how);
    if (!in->rgb || in->width <= 0 || in->height <= 0)
        return err_set(e, -EINVAL, "there are no pixels to resize");
    int r = picture_new(out, width, height, in->frames);
    if (r)
        return r == -ENOMEM ? err_nomem(e)
                            : err_set(e, r, "a picture cannot be made %dx%d pixels", width, height);
    media_av_quiet();
    AUTO_FREE uint8_t *from = malloc(picture_frame_bytes(in) + MEDIA_SWS_SLACK);
    struct SwsContext *c = open_scaler(in, width, height, how);
    if (!from)
        r = err_nomem(e);
    else if (!c)
        r = err_set(e, -EINVAL, "a picture of %dx%d cannot be made %dx%d", in->width, in->height,
                    width, height);
    for (int i = 0; i < in->frames && !r; i++) {
        memcpy(from, picture_frame(in, i), picture_frame_bytes(in));
        r = scale_frame(c, from, in, picture_frame(out, i), out, e);
    }
    sws_freeContext(c);
    if (r)
        picture_free(out);
    return r;
}
