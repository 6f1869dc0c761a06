/* PNG by libpng: 8-bit RGB out, anything in. */
#include <errno.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "media/codec.h"
#include "media/exif.h"

/* How hard zlib works: runs only, over Paeth-filtered rows. Measured at 1024 x 1024 on smooth
 * pictures (drawings, photographs enlarged from 256 x 256): 14 to 36 ms, and files up to a tenth
 * smaller than libpng's defaults make in 50 to 260 ms, because what the filter leaves of such
 * pictures is small numbers and runs, which a search for longer matches only spoils. */
enum { COMPRESSION_LEVEL = 1, COMPRESSION_STRATEGY = Z_RLE, FILTER = PNG_FILTER_PAETH };
/* Bounds on what a hostile file can make libpng hold besides pixels. */
enum { CHUNK_LIMIT = 16 << 20, CHUNKS_LIMIT = 1000 };

/* libpng's way out of an error is a longjmp to the frame that called setjmp; the sentence waits
 * here. */
struct png_job {
    const char *name;
    const uint8_t *bytes;
    size_t size, at;
    struct str *out;
    struct err *e;
};

static void on_error(png_structp png, png_const_charp message)
{
    struct png_job *job = png_get_error_ptr(png);
    if (job->bytes)
        err_set(job->e, -EINVAL, "%s is not a whole PNG file: %s", job->name, message);
    else
        err_set(job->e, -EIO, "PNG: %s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void write_bytes(png_structp png, png_bytep data, size_t n)
{
    struct png_job *job = png_get_io_ptr(png);
    str_addn(job->out, data, n);
}

static void flush_bytes(png_structp png)
{
    (void)png;
}

static void read_bytes(png_structp png, png_bytep data, size_t n)
{
    struct png_job *job = png_get_io_ptr(png);
    if (n > job->size - job->at)
        png_error(png, "it ends too early");
    memcpy(data, job->bytes + job->at, n);
    job->at += n;
}

static bool is_ascii(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s >= 0x80)
            return false;
    return true;
}

/* tEXt where it can hold the text, since every reader knows it; else iTXt, which is UTF-8. */
static void add_text(png_structp png, png_infop info, const char *key, const char *value)
{
    if (!value)
        return;
    png_text text = {
        .compression = is_ascii(value) ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE,
        .key = (png_charp)key,
        .text = (png_charp)value,
        .text_length = strlen(value),
    };
    png_set_text(png, info, &text, 1);
}

/* Where libpng jumps to: apart, because a jump leaves the locals of its function undefined. */
static int try_write(png_structp png, png_infop info, const struct picture *p,
                     const struct media_options *o)
{
    if (setjmp(png_jmpbuf(png)))
        return -EIO;
    png_set_user_limits(png, 65536, 65536);
    png_set_compression_level(png, COMPRESSION_LEVEL);
    png_set_compression_strategy(png, COMPRESSION_STRATEGY);
    png_set_filter(png, 0, FILTER);
    png_set_IHDR(png, info, (png_uint_32)p->width, (png_uint_32)p->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_sRGB(png, info, PNG_sRGB_INTENT_PERCEPTUAL);
    add_text(png, info, "parameters", o->parameters);
    add_text(png, info, "Software", o->software);
    png_write_info(png, info);
    for (int y = 0; y < p->height; y++)
        png_write_row(png, p->rgb + (size_t)y * (size_t)p->width * 3);
    png_write_end(png, info);
    return 0;
}

int media_png_encode(const struct picture *p, const struct media_options *o, struct str *out,
                     struct err *e)
{
    struct png_job job = {.out = out, .e = e};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        return err_nomem(e);
    }
    png_set_write_fn(png, &job, write_bytes, flush_bytes);
    int r = try_write(png, info, p, o);
    png_destroy_write_struct(&png, &info);
    return r;
}

/* Whatever the file has becomes 8-bit RGBA. */
static void ask_for_rgba(png_structp png, png_infop info)
{
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_gray_to_rgb(png);
    png_set_add_alpha(png, 0xFF, PNG_FILLER_AFTER);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
}

static void read_rows(png_structp png, png_infop info, const struct raster *r)
{
    int passes = png_get_interlace_type(png, info) == PNG_INTERLACE_NONE ? 1 : 7;
    size_t stride = (size_t)r->width * 4;
    if (png_get_rowbytes(png, info) != stride)
        png_error(png, "its rows have an unknown layout");
    while (passes--)
        for (int y = 0; y < r->height; y++)
            png_read_row(png, r->rgba + (size_t)y * stride, NULL);
    png_read_end(png, info);
}

static int read_orientation(png_structp png, png_infop info)
{
    png_bytep exif = NULL;
    png_uint_32 size = 0;
    return png_get_eXIf_1(png, info, &size, &exif) ? exif_orientation(exif, size) : 1;
}

static int try_read(png_structp png, png_infop info, const struct source *s, struct raster *out,
                    struct err *e)
{
    if (setjmp(png_jmpbuf(png)))
        return -EINVAL;
    png_set_user_limits(png, 0x7fffffff, 0x7fffffff); /* media_check_size says it better */
    png_set_chunk_malloc_max(png, CHUNK_LIMIT);
    png_set_chunk_cache_max(png, CHUNKS_LIMIT);
    png_read_info(png, info);
    int r = media_raster_new(out, s, png_get_image_width(png, info),
                             png_get_image_height(png, info), e);
    if (r)
        return r;
    ask_for_rgba(png, info);
    read_rows(png, info, out);
    out->orientation = read_orientation(png, info);
    return 0;
}

int media_png_decode(const struct source *s, struct raster *out, struct err *e)
{
    struct png_job job = {.name = s->name, .bytes = s->bytes, .size = s->size, .e = e};
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_read_struct(&png, NULL, NULL);
        return err_nomem(e);
    }
    png_set_read_fn(png, &job, read_bytes);
    int r = try_read(png, info, s, out, e);
    png_destroy_read_struct(&png, &info, NULL);
    return r;
}
