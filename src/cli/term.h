/* The terminal: is there one, how wide is it, may it be coloured; tables and a progress line.
 * Without a terminal (or with NO_COLOR, or TERM=dumb) no escape code is ever written. */
#ifndef OMNIFS_CLI_TERM_H
#define OMNIFS_CLI_TERM_H

#include <stdbool.h>
#include <stdio.h>

#include "base/str.h"

/* Columns of the terminal behind `f`; else $COLUMNS; else 80. At least 20. */
int term_width(FILE *f);
bool term_is(FILE *f);       /* a terminal that understands cursor movement */
bool term_coloured(FILE *f); /* … and the user wants colours */
/* Columns that UTF-8 text fills; control characters and broken bytes count as one. */
int term_columns(const char *text);
/* Adds `text` cut to `columns`, with '…' where something is missing and '?' for control characters.
 */
void term_cut(struct str *out, const char *text, int columns);

/* ---- tables ---- */

enum { TABLE_LEFT, TABLE_RIGHT };
struct table_column {
    const char *title;
    int align;    /* TABLE_LEFT or TABLE_RIGHT */
    bool stretch; /* gives way when the terminal is narrow */
};
struct table {
    const struct table_column *columns;
    int column_count, rows;
    char **cells; /* [rows, column_count], owned */
    bool failed;  /* out of memory */
};
#define TABLE(cols) ((struct table){.columns = (cols), .column_count = (int)ARRAY_LEN(cols)})
/* One row; `column_count` strings, copied; NULL is an empty cell. */
void table_row(struct table *t, const char *const *cells);
/* Formats with two spaces between columns, no line over `width` columns (0: no limit). */
void table_format(const struct table *t, int width, struct str *out);
void table_print(const struct table *t, FILE *to);
void table_free(struct table *t);
#define AUTO_TABLE __attribute__((cleanup(table_free)))

/* ---- progress ---- */

struct progress {
    FILE *to;
    bool live; /* one line that is drawn over; else a plain line now and then */
    bool quiet;
    char label[64];
    int first, done, total;
    double started, shown; /* monotonic seconds */
    double step_seconds;   /* mean of the steps so far, 0: unknown */
};
/* `quiet`: says nothing at all. */
void progress_begin(struct progress *p, FILE *to, bool quiet);
/* `done` of `total` in the stage `label`; a new label starts a new bar. `eta`: seconds or < 0. */
void progress_set(struct progress *p, const char *label, int done, int total, double eta);
/* Clears a live line, so that other text can follow. */
void progress_end(struct progress *p);
/* The line itself: "diffuse  [######      ] 12/24  0.31 s/step  eta 4 s" in at most `width`. */
void progress_format(struct str *out, const char *label, int done, int total, double step_seconds,
                     double eta, int width);

#endif
