#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/term.h"

#define GAP         2
#define MAX_COLUMNS 16

void table_row(struct table *t, const char *const *cells)
{
    size_t have = (size_t)t->rows * (size_t)t->column_count, more = (size_t)t->column_count;
    char **grown = t->failed ? NULL : realloc(t->cells, (have + more) * sizeof *grown);
    if (!grown) {
        t->failed = true;
        return;
    }
    t->cells = grown;
    for (size_t i = 0; i < more; i++) {
        grown[have + i] = strdup(cells[i] ? cells[i] : "");
        t->failed = t->failed || !grown[have + i];
    }
    t->rows++;
}

void table_free(struct table *t)
{
    for (int i = 0; i < t->rows * t->column_count; i++)
        free(t->cells[i]);
    free(t->cells);
    t->cells = NULL;
    t->rows = 0;
}

static const char *cell(const struct table *t, int row, int column)
{
    const char *text =
        row < 0 ? t->columns[column].title : t->cells[row * t->column_count + column];
    return text ? text : "";
}

/* Natural widths, then the stretching columns give way until the row fits. */
static void measure(const struct table *t, int width, int *widths)
{
    int sum = GAP * (t->column_count - 1), stretching = 0;
    for (int c = 0; c < t->column_count; c++) {
        widths[c] = 0;
        for (int r = -1; r < t->rows; r++) {
            int n = term_columns(cell(t, r, c));
            widths[c] = n > widths[c] ? n : widths[c];
        }
        sum += widths[c];
        stretching += t->columns[c].stretch;
    }
    while (width > 0 && sum > width && stretching > 0) {
        int widest = -1;
        for (int c = 0; c < t->column_count; c++)
            if (t->columns[c].stretch && (widest < 0 || widths[c] > widths[widest]))
                widest = c;
        if (widths[widest] <= 8)
            break;
        widths[widest]--;
        sum--;
    }
}

static void add_row(const struct table *t, int row, const int *widths, struct str *out)
{
    size_t start = out->len;
    for (int c = 0; c < t->column_count; c++) {
        const char *text = cell(t, row, c);
        int pad = widths[c] - term_columns(text);
        for (int i = 0; t->columns[c].align == TABLE_RIGHT && i < pad; i++)
            str_addc(out, ' ');
        term_cut(out, text, widths[c]);
        for (int i = 0; t->columns[c].align == TABLE_LEFT && i < pad; i++)
            str_addc(out, ' ');
        for (int i = 0; c + 1 < t->column_count && i < GAP; i++)
            str_addc(out, ' ');
    }
    while (!out->failed && out->len > start && out->data[out->len - 1] == ' ')
        out->data[--out->len] = '\0';
    str_addc(out, '\n');
}

void table_format(const struct table *t, int width, struct str *out)
{
    int widths[MAX_COLUMNS];
    if (t->failed || t->column_count > MAX_COLUMNS) {
        out->failed = true;
        return;
    }
    measure(t, width, widths);
    for (int r = -1; r < t->rows; r++)
        add_row(t, r, widths, out);
}

void table_print(const struct table *t, FILE *to)
{
    AUTO_STR struct str out = {0};
    /* A pipe gets whole cells: programs cut columns better than we do. */
    table_format(t, term_is(to) ? term_width(to) : 0, &out);
    fputs(str_cstr(&out), to);
}
