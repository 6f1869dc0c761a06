#include "cli/show.h"

#include <chafa.h>
#include <errno.h>
#include <stdlib.h>

#include "cli/term.h"

/* How wide a character cell is for each unit of height. */
#define CELL_RATIO 0.5f

struct abilities {
    ChafaTermInfo *terminal;
    ChafaCanvasMode colours;
    ChafaPixelMode pixels;
};

/* What $TERM and friends say; the terminal itself is not asked, as the answer could hang. */
static struct abilities detect(FILE *to, bool pixels)
{
    static const struct {
        ChafaTermSeq needs;
        ChafaCanvasMode mode;
    } colours[] = {
        {CHAFA_TERM_SEQ_SET_COLOR_FGBG_DIRECT, CHAFA_CANVAS_MODE_TRUECOLOR},
        {CHAFA_TERM_SEQ_SET_COLOR_FGBG_256, CHAFA_CANVAS_MODE_INDEXED_240},
        {CHAFA_TERM_SEQ_SET_COLOR_FGBG_16, CHAFA_CANVAS_MODE_INDEXED_16},
    };
    static const struct {
        ChafaTermSeq needs;
        ChafaPixelMode mode;
    } graphics[] = {
        {CHAFA_TERM_SEQ_BEGIN_KITTY_IMMEDIATE_IMAGE_V1, CHAFA_PIXEL_MODE_KITTY},
        {CHAFA_TERM_SEQ_BEGIN_ITERM2_IMAGE, CHAFA_PIXEL_MODE_ITERM2},
        {CHAFA_TERM_SEQ_BEGIN_SIXELS, CHAFA_PIXEL_MODE_SIXELS},
    };
    gchar **environment = g_get_environ();
    struct abilities a = {
        .terminal = chafa_term_db_detect(chafa_term_db_get_default(), environment),
        .colours = CHAFA_CANVAS_MODE_FGBG,
        .pixels = CHAFA_PIXEL_MODE_SYMBOLS,
    };
    g_strfreev(environment);
    bool coloured = term_coloured(to);
    for (size_t i = G_N_ELEMENTS(colours); coloured && i-- > 0;)
        if (chafa_term_info_have_seq(a.terminal, colours[i].needs))
            a.colours = colours[i].mode;
    for (size_t i = G_N_ELEMENTS(graphics); pixels && coloured && i-- > 0;)
        if (chafa_term_info_have_seq(a.terminal, graphics[i].needs))
            a.pixels = graphics[i].mode;
    return a;
}

static ChafaCanvas *new_canvas(const struct abilities *a, int columns, int rows)
{
    ChafaSymbolMap *symbols = chafa_symbol_map_new();
    chafa_symbol_map_add_by_tags(symbols, CHAFA_SYMBOL_TAG_BLOCK | CHAFA_SYMBOL_TAG_SPACE);
    ChafaCanvasConfig *config = chafa_canvas_config_new();
    chafa_canvas_config_set_geometry(config, columns, rows);
    chafa_canvas_config_set_canvas_mode(config, a->colours);
    chafa_canvas_config_set_pixel_mode(config, a->pixels);
    chafa_canvas_config_set_symbol_map(config, symbols);
    ChafaCanvas *canvas = chafa_canvas_new(config);
    chafa_canvas_config_unref(config);
    chafa_symbol_map_unref(symbols);
    return canvas;
}

int show_picture(FILE *to, const struct picture *p, int max_rows, bool pixels, struct err *e)
{
    if (!term_is(to))
        return err_set(e, -ENOTTY, "a picture can only be shown on a terminal");
    struct abilities a = detect(to, pixels);
    gint columns = term_width(to) - 1, rows = max_rows;
    chafa_calc_canvas_geometry(p->width, p->height, &columns, &rows, CELL_RATIO, TRUE, FALSE);
    ChafaCanvas *canvas = new_canvas(&a, columns, rows);
    chafa_canvas_draw_all_pixels(canvas, CHAFA_PIXEL_RGB8, p->rgb, p->width, p->height,
                                 p->width * 3);
    GString *text = chafa_canvas_print(canvas, a.terminal);
    fwrite(text->str, 1, text->len, to);
    fputc('\n', to);
    fflush(to);
    g_string_free(text, TRUE);
    chafa_canvas_unref(canvas);
    chafa_term_info_unref(a.terminal);
    return rows;
}

void show_erase(FILE *to, int rows)
{
    if (rows > 0)
        fprintf(to, "\033[%dA\r\033[J", rows);
}
