#include "cli/term.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

int term_width(FILE *f)
{
    struct winsize w = {0};
    int64_t columns = 80;
    if (ioctl(fileno(f), TIOCGWINSZ, &w) == 0 && w.ws_col > 0)
        columns = w.ws_col;
    else if (getenv("COLUMNS") && parse_i64(getenv("COLUMNS"), &columns))
        columns = 80;
    return columns < 20 ? 20 : columns > 1000 ? 1000 : (int)columns;
}

bool term_is(FILE *f)
{
    const char *kind = getenv("TERM");
    return isatty(fileno(f)) && kind && strcmp(kind, "dumb") != 0;
}

bool term_coloured(FILE *f)
{
    const char *refused = getenv("NO_COLOR");
    return term_is(f) && !(refused && *refused);
}

/* One character of `text`: its length in bytes and its columns; broken bytes are one '?'. */
static size_t next_character(const char *text, int *columns, bool *printable)
{
    utf8proc_int32_t code = -1;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text, -1, &code);
    *printable = n > 0 && code >= 32 && !(code >= 127 && code < 160);
    *columns = *printable ? utf8proc_charwidth(code) : 1;
    return n > 0 ? (size_t)n : 1;
}

int term_columns(const char *text)
{
    int sum = 0, columns;
    bool printable;
    for (; *text; sum += columns)
        text += next_character(text, &columns, &printable);
    return sum;
}

void term_cut(struct str *out, const char *text, int columns)
{
    bool whole = term_columns(text) <= columns;
    int left = whole ? columns : columns - 1; /* room for the ellipsis */
    while (*text) {
        int wide;
        bool printable;
        size_t n = next_character(text, &wide, &printable);
        if (wide > left)
            break;
        if (printable)
            str_addn(out, text, n);
        else
            str_addc(out, '?');
        left -= wide;
        text += n;
    }
    if (!whole && columns > 0)
        str_add(out, "…");
}
