/* Pictures and clips of strangers: whatever the bytes, decoding ends with pixels inside the limits
 * or with a sentence. The first byte chooses between picture, mask and clip. */
#include <stdlib.h>

#include "media/media.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct media_limits limits = {512, 512, 256 * 256, 1 << 20, 16, 1 << 20, 1 << 22};
    struct picture p = {0};
    struct err e = {0};
    double fps = 0;
    if (size == 0)
        return 0;
    int r = data[0] % 3 == 2
                ? media_decode_clip(data + 1, size - 1, "fuzz", &limits, &p, &fps, &e)
                : media_decode_image(data + 1, size - 1, "fuzz", &limits,
                                     data[0] % 3 ? MEDIA_READ_MASK : MEDIA_READ_RGB, &p, &e);
    if (r ? p.rgb || !e.text[0]
          : !p.rgb || (size_t)p.width * (size_t)p.height > 256 * 256 || p.frames > 16)
        abort();
    picture_free(&p);
    return 0;
}
