#include <string.h>

#include "base/clock.h"
#include "cli/term.h"

/* Plain logs get a line when a stage begins, then one every few seconds. */
#define PLAIN_SECONDS 5.0
#define LIVE_SECONDS  0.1

void progress_begin(struct progress *p, FILE *to, bool quiet)
{
    *p = (struct progress){.to = to, .live = term_is(to), .quiet = quiet};
}

static void add_duration(struct str *out, double seconds)
{
    if (seconds < 10)
        str_addf(out, "%.1f s", seconds);
    else if (seconds < 120)
        str_addf(out, "%.0f s", seconds);
    else
        str_addf(out, "%d min %02d s", (int)(seconds / 60), (int)seconds % 60);
}

void progress_format(struct str *out, const char *label, int done, int total, double step_seconds,
                     double eta, int width)
{
    AUTO_STR struct str tail = {0};
    if (total > 0)
        str_addf(&tail, " %d/%d", done, total);
    if (step_seconds > 0)
        str_addf(&tail, step_seconds < 0.1 ? "  %.3f s/step" : "  %.2f s/step", step_seconds);
    if (eta >= 0 && done < total) {
        str_add(&tail, "  eta ");
        add_duration(&tail, eta);
    }
    int label_width = 12;
    int bar = width - label_width - term_columns(str_cstr(&tail)) - 4;
    bar = bar > 40 ? 40 : bar;
    AUTO_STR struct str line = {0};
    if (tail.len)
        str_addf(&line, "%-*s", label_width, label);
    else
        str_add(&line, label);
    if (bar >= 8 && total > 0) {
        int filled = (int)((int64_t)bar * (done < total ? done : total) / total);
        str_add(&line, " [");
        for (int i = 0; i < bar; i++)
            str_addc(&line, i < filled ? '#' : ' ');
        str_add(&line, "]");
    }
    str_add(&line, str_cstr(&tail));
    term_cut(out, str_cstr(&line), width);
}

static void show(struct progress *p, double now, double eta)
{
    AUTO_STR struct str line = {0};
    /* The last column stays free: writing it makes some terminals wrap. */
    progress_format(&line, p->label, p->done, p->total, p->step_seconds, eta,
                    p->live ? term_width(p->to) - 1 : 200);
    if (p->live)
        fprintf(p->to, "\r\033[K%s", str_cstr(&line));
    else
        fprintf(p->to, "%s\n", str_cstr(&line));
    fflush(p->to);
    p->shown = now;
}

void progress_set(struct progress *p, const char *label, int done, int total, double eta)
{
    if (p->quiet)
        return;
    double now = clock_seconds();
    bool fresh = strcmp(label, p->label) != 0;
    if (fresh) {
        snprintf(p->label, sizeof p->label, "%s", label);
        p->started = now;
        p->step_seconds = 0;
        p->first = p->done = done;
    } else if (done > p->done) {
        p->step_seconds = (now - p->started) / (done - p->first);
        p->done = done;
    }
    p->total = total;
    if (eta < 0 && p->step_seconds > 0)
        eta = p->step_seconds * (total - done);
    bool finished = done == total && total > 0 && !fresh;
    if (fresh || finished || now - p->shown >= (p->live ? LIVE_SECONDS : PLAIN_SECONDS))
        show(p, now, eta);
}

void progress_end(struct progress *p)
{
    if (!p->quiet && p->live && p->label[0])
        fputs("\r\033[K", p->to);
    if (p->to)
        fflush(p->to);
    p->label[0] = '\0';
}
