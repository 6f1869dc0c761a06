/* Sizes by swscale. */
#include <errno.h>

#include <libswscale/swscale.h>

#include "media/media.h"
#include "media/video.h"

static const int flags[] = {
    [MEDIA_LANCZOS] = SWS_LANCZOS,
    [MEDIA_BICUBIC] = SWS_BICUBIC,
    [MEDIA_BILINEAR] = SWS_BILINEAR,
    [MEDIA_NEAREST] = SWS_POINT,
};

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
    struct SwsContext *c = sws_getContext(
        in->width, in->height, AV_PIX_FMT_RGB24, width, height, AV_PIX_FMT_RGB24,
        flags[how] | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP | SWS_FULL_CHR_H_INT | SWS_BITEXACT,
        NULL, NULL, NULL);
    if (!c) {
        picture_free(out);
        return err_set(e, -EINVAL, "a picture of %dx%d cannot be made %dx%d", in->width, in->height,
                       width, height);
    }
    for (int i = 0; i < in->frames && !r; i++) {
        const uint8_t *from[4] = {picture_frame(in, i)};
        uint8_t *to[4] = {picture_frame(out, i)};
        int from_stride[4] = {in->width * 3}, to_stride[4] = {width * 3};
        if (sws_scale(c, from, from_stride, 0, in->height, to, to_stride) != height)
            r = err_set(e, -EIO, "scaling %dx%d to %dx%d failed", in->width, in->height, width,
                        height);
    }
    sws_freeContext(c);
    if (r)
        picture_free(out);
    return r;
}
