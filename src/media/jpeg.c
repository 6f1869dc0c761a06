/* JPEG by libjpeg-turbo: baseline with optimised tables out; gray, YCbCr, RGB, CMYK and YCCK in. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "media/codec.h"
#include "media/exif.h"

enum { MARKER_LIMIT = 65533, SCANS_LIMIT = 100 };

/* libjpeg's way out of an error is a longjmp; the manager comes first so that a pointer to it is a
 * pointer to this. */
struct jpeg_job {
    struct jpeg_error_mgr manager;
    jmp_buf out;
    const char *name; /* of the file that is read, NULL when writing */
    struct err *e;
    unsigned char *made; /* what was written, malloc'ed by libjpeg */
    unsigned long made_size;
};

static void on_error(j_common_ptr c)
{
    struct jpeg_job *job = (struct jpeg_job *)c->err;
    char message[JMSG_LENGTH_MAX];
    c->err->format_message(c, message);
    if (job->name)
        err_set(job->e, -EINVAL, "%s is not a whole JPEG file: %s", job->name, message);
    else
        err_set(job->e, -EIO, "JPEG: %s", message);
    longjmp(job->out, 1);
}

/* libjpeg goes on after a warning; those that mean lost pixels are errors here. */
static void on_message(j_common_ptr c, int level)
{
    static const int damage[] = {JWRN_JPEG_EOF, JWRN_HIT_MARKER, JWRN_HUFF_BAD_CODE,
                                 JWRN_BOGUS_PROGRESSION, JWRN_MUST_RESYNC};
    if (level >= 0)
        return;
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++)
        if (c->err->msg_code == damage[i])
            on_error(c);
}

static void job_init(struct jpeg_job *job, const char *name, struct err *e)
{
    *job = (struct jpeg_job){.name = name, .e = e};
    jpeg_std_error(&job->manager);
    job->manager.error_exit = on_error;
    job->manager.emit_message = on_message;
}

/* EXIF where it fits in one marker; a longer text goes into comments, a piece each. */
static void write_texts(struct jpeg_compress_struct *c, const struct media_options *o,
                        const struct str *exif)
{
    if (exif->len && exif->len <= MARKER_LIMIT) {
        jpeg_write_marker(c, JPEG_APP0 + 1, (const JOCTET *)exif->data, (unsigned)exif->len);
        return;
    }
    const char *text = o->parameters;
    for (size_t left = text ? strlen(text) : 0; left;) {
        size_t n = left < MARKER_LIMIT ? left : MARKER_LIMIT;
        jpeg_write_marker(c, JPEG_COM, (const JOCTET *)text, (unsigned)n);
        text += n;
        left -= n;
    }
}

static void compress_all(struct jpeg_compress_struct *c, const struct picture *p,
                         const struct media_options *o, const struct str *exif)
{
    c->image_width = (JDIMENSION)p->width;
    c->image_height = (JDIMENSION)p->height;
    c->input_components = 3;
    c->in_color_space = JCS_RGB;
    jpeg_set_defaults(c);
    jpeg_set_quality(c, o->quality, TRUE);
    c->optimize_coding = TRUE;
    if (o->quality >= 90) /* fine colour edges are worth their bytes here: 4:4:4 */
        c->comp_info[0].h_samp_factor = c->comp_info[0].v_samp_factor = 1;
    jpeg_start_compress(c, TRUE);
    write_texts(c, o, exif);
    while (c->next_scanline < c->image_height) {
        JSAMPROW row = p->rgb + (size_t)c->next_scanline * (size_t)p->width * 3;
        jpeg_write_scanlines(c, &row, 1);
    }
    jpeg_finish_compress(c);
}

/* Where libjpeg jumps to: apart, because a jump leaves the locals of its function undefined. */
static int try_compress(struct jpeg_job *job, struct jpeg_compress_struct *c,
                        const struct picture *p, const struct media_options *o,
                        const struct str *exif)
{
    if (setjmp(job->out))
        return -EIO;
    jpeg_create_compress(c);
    jpeg_mem_dest(c, &job->made, &job->made_size);
    compress_all(c, p, o, exif);
    return 0;
}

int media_jpeg_encode(const struct picture *p, const struct media_options *o, struct str *out,
                      struct err *e)
{
    AUTO_STR struct str exif = {0};
    if (o->parameters || o->software) {
        str_addn(&exif, "Exif\0\0", 6);
        exif_build(&exif, o->software, o->parameters);
    }
    if (exif.failed)
        return err_nomem(e);
    struct jpeg_compress_struct c = {0};
    struct jpeg_job job;
    job_init(&job, NULL, e);
    c.err = &job.manager;
    int r = try_compress(&job, &c, p, o, &exif);
    if (!r)
        str_addn(out, job.made, job.made_size);
    jpeg_destroy_compress(&c);
    free(job.made);
    return r;
}

/* A small file can claim hundreds of scans over a large picture, each as slow as a whole one. */
static void on_progress(j_common_ptr c)
{
    if (c->is_decompressor && ((j_decompress_ptr)c)->input_scan_number > SCANS_LIMIT)
        ERREXITS(c, JERR_BAD_PROGRESSION, "too many scans");
}

/* CMYK in place of RGBA: naive inks. Adobe's files hold them inverted. */
static void cmyk_to_rgba(uint8_t *px, size_t pixels, bool inverted)
{
    for (size_t i = 0; i < pixels; i++, px += 4) {
        int flip = inverted ? 0 : 255;
        int k = px[3] ^ flip;
        for (int ch = 0; ch < 3; ch++)
            px[ch] = (uint8_t)(((px[ch] ^ flip) * k + 127) / 255);
        px[3] = 255;
    }
}

static int find_orientation(const struct jpeg_decompress_struct *d)
{
    for (jpeg_saved_marker_ptr m = d->marker_list; m; m = m->next)
        if (m->marker == JPEG_APP0 + 1 && m->data_length > 6 && !memcmp(m->data, "Exif\0\0", 6))
            return exif_orientation(m->data, m->data_length);
    return 1;
}

static int decompress_all(struct jpeg_decompress_struct *d, const struct source *s,
                          struct raster *out, struct err *e)
{
    jpeg_mem_src(d, s->bytes, (unsigned long)s->size);
    jpeg_save_markers(d, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(d, TRUE);
    int r = media_raster_new(out, s, d->image_width, d->image_height, e);
    if (r)
        return r;
    bool inks = d->jpeg_color_space == JCS_CMYK || d->jpeg_color_space == JCS_YCCK;
    d->out_color_space = inks ? JCS_CMYK : JCS_EXT_RGBA;
    d->dct_method = JDCT_ISLOW;
    out->orientation = find_orientation(d);
    jpeg_start_decompress(d);
    while (d->output_scanline < d->output_height) {
        JSAMPROW row = out->rgba + (size_t)d->output_scanline * (size_t)out->width * 4;
        jpeg_read_scanlines(d, &row, 1);
    }
    if (inks)
        cmyk_to_rgba(out->rgba, (size_t)out->width * (size_t)out->height, d->saw_Adobe_marker);
    jpeg_finish_decompress(d);
    return 0;
}

static int try_decompress(struct jpeg_job *job, struct jpeg_decompress_struct *d,
                          struct jpeg_progress_mgr *progress, const struct source *s,
                          struct raster *out)
{
    if (setjmp(job->out))
        return -EINVAL;
    jpeg_create_decompress(d);
    d->progress = progress;
    return decompress_all(d, s, out, job->e);
}

int media_jpeg_decode(const struct source *s, struct raster *out, struct err *e)
{
    struct jpeg_decompress_struct d = {0};
    struct jpeg_progress_mgr progress = {.progress_monitor = on_progress};
    struct jpeg_job job;
    job_init(&job, s->name, e);
    d.err = &job.manager;
    int r = try_decompress(&job, &d, &progress, s, out);
    jpeg_destroy_decompress(&d);
    return r;
}
