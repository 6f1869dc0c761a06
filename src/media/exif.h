/* EXIF: the little of it that pictures need. Writes parameters where readers of A1111 files look
 * (UserComment, UTF-16), and reads the orientation. */
#ifndef OMNIFS_MEDIA_EXIF_H
#define OMNIFS_MEDIA_EXIF_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/* Appends a TIFF block ("MM", without the "Exif\0\0" of JPEG) that holds Software and UserComment;
 * either may be NULL, and when both are nothing is added. Texts are well-formed UTF-8. */
void exif_build(struct str *out, const char *software, const char *comment);

/* Orientation 1..8 of a TIFF block (with or without "Exif\0\0" before it), 1 when there is none or
 * the block is damaged: a wrong hint must not make a good picture unreadable. */
int exif_orientation(const uint8_t *data, size_t size);

#endif
