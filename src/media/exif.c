#include "media/exif.h"

#include <string.h>

/* EXIF 2.32, tables 4 and 7; TIFF 6.0, section 2. */
enum { TAG_ORIENTATION = 0x0112, TAG_SOFTWARE = 0x0131, TAG_EXIF_IFD = 0x8769 };
enum { TAG_USER_COMMENT = 0x9286 };
enum { TYPE_ASCII = 2, TYPE_SHORT = 3, TYPE_LONG = 4, TYPE_UNDEFINED = 7 };
enum { HEADER_SIZE = 8, ENTRY_SIZE = 12 };

static void add16(struct str *s, unsigned v)
{
    str_addn(s, (uint8_t[]){(uint8_t)(v >> 8), (uint8_t)v}, 2);
}

static void add32(struct str *s, size_t v)
{
    add16(s, (unsigned)(v >> 16));
    add16(s, (unsigned)v);
}

static void add_entry(struct str *s, unsigned tag, unsigned type, size_t count, size_t value)
{
    add16(s, tag);
    add16(s, type);
    add32(s, count);
    add32(s, value);
}

/* One code point of well-formed UTF-8 at *p, which moves past it. */
static uint32_t next_code_point(const uint8_t **p)
{
    const uint8_t *s = *p;
    int more = s[0] < 0x80 ? 0 : s[0] < 0xE0 ? 1 : s[0] < 0xF0 ? 2 : 3;
    uint32_t c = more == 0 ? s[0] : s[0] & (0x3Fu >> more);
    for (int i = 1; i <= more; i++)
        c = c << 6 | (s[i] & 0x3F);
    *p = s + more + 1;
    return c;
}

static void add_utf16be(struct str *out, const char *text)
{
    for (const uint8_t *p = (const uint8_t *)text; *p;) {
        uint32_t c = next_code_point(&p);
        if (c >= 0x10000) {
            c -= 0x10000;
            add16(out, 0xD800 | c >> 10);
            c = 0xDC00 | (c & 0x3FF);
        }
        add16(out, c);
    }
}

/* Layout: header, IFD0 with its Software text, then the EXIF IFD with its UserComment. */
void exif_build(struct str *out, const char *software, const char *comment)
{
    if (!software && !comment)
        return;
    AUTO_STR struct str value = {0};
    if (comment) {
        str_addn(&value, "UNICODE\0", 8);
        add_utf16be(&value, comment);
    }
    size_t entries = (software != NULL) + (comment != NULL);
    size_t text_at = HEADER_SIZE + 2 + entries * ENTRY_SIZE + 4;
    size_t text_size = software ? strlen(software) + 1 : 0;
    bool inlined = text_size <= 4; /* values of up to four bytes sit in the entry itself */
    size_t exif_at = text_at + (inlined ? 0 : (text_size + 1) / 2 * 2);

    str_addn(out, "MM\0*\0\0\0\10", HEADER_SIZE);
    add16(out, (unsigned)entries);
    if (software && !inlined) {
        add_entry(out, TAG_SOFTWARE, TYPE_ASCII, text_size, text_at);
    } else if (software) {
        char four[4] = {0};
        memcpy(four, software, text_size);
        add16(out, TAG_SOFTWARE);
        add16(out, TYPE_ASCII);
        add32(out, text_size);
        str_addn(out, four, sizeof four);
    }
    if (comment)
        add_entry(out, TAG_EXIF_IFD, TYPE_LONG, 1, exif_at);
    add32(out, 0);
    if (!inlined)
        str_addn(out, software, text_size);
    if (!inlined && text_size % 2)
        str_addc(out, '\0');
    if (comment) {
        add16(out, 1);
        add_entry(out, TAG_USER_COMMENT, TYPE_UNDEFINED, value.len, exif_at + 2 + ENTRY_SIZE + 4);
        add32(out, 0);
        str_addn(out, value.data, value.len);
    }
    out->failed |= value.failed;
}

static uint32_t get(const uint8_t *p, int bytes, bool big)
{
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | p[big ? i : bytes - 1 - i];
    return v;
}

int exif_orientation(const uint8_t *data, size_t size)
{
    if (size >= 6 && !memcmp(data, "Exif\0\0", 6)) {
        data += 6;
        size -= 6;
    }
    if (size < HEADER_SIZE || (memcmp(data, "MM\0*", 4) && memcmp(data, "II*\0", 4)))
        return 1;
    bool big = data[0] == 'M';
    size_t at = get(data + 4, 4, big);
    if (at > size || size - at < 2)
        return 1;
    size_t entries = get(data + at, 2, big);
    for (at += 2; entries-- && size - at >= ENTRY_SIZE; at += ENTRY_SIZE) {
        if (get(data + at, 2, big) != TAG_ORIENTATION || get(data + at + 2, 2, big) != TYPE_SHORT)
            continue;
        uint32_t v = get(data + at + 8, 2, big);
        return v >= 1 && v <= 8 ? (int)v : 1;
    }
    return 1;
}
