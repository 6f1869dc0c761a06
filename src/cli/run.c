/* omnifs run: a prompt file's way through the six stages without a mount. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/show.h"
#include "cli/term.h"
#include "job/modes.h"
#include "job/run.h"

#define NAME           "omnifs run"
#define METADATA_LIMIT (1u << 20)
#define PREVIEW_EVERY  4 /* steps */
#define PREVIEW_ROWS   16
#define RESULT_ROWS    32

static const struct cli_usage usage = {
    .name = NAME,
    .synopsis = "FILE.ini|metadata.json [OPTION ...]",
    .about =
        "Draws what FILE.ini asks for, without a mount. Files it refers to lie beside it. Given a\n"
        "metadata.json, draws the same again. Prints the paths of the results.",
    .more =
        "The modality follows from the file's mode, profile or return_format, then from the\n"
        "folder it lies in (image/, video/ or gif/), then from keys that only clips have (video,\n"
        "frames, fps, seconds), else it is image.\n\n"
        "Exit codes: 0 done, 1 failed, 2 usage, 3 blocked, 130 cancelled.",
    .min_words = 1,
    .max_words = 1,
};

struct options {
    const char *output, *modality;
    struct cli_words settings;
    bool json, show, quiet;
};

/* Set by SIGINT and SIGTERM; a handler can reach nothing else. */
static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

/* The first signal asks the run to end cleanly, the second one ends the program. */
static void watch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

/* ---- what the run tells us ---- */

struct watch {
    struct progress progress;
    int preview_rows; /* drawn and not yet erased */
};

static void clear_preview(struct watch *w)
{
    progress_end(&w->progress);
    show_erase(stderr, w->preview_rows);
    w->preview_rows = 0;
}

static void on_progress(void *ctx, struct run *r, enum job_stage stage, int done, int total,
                        double eta)
{
    (void)r;
    struct watch *w = ctx;
    progress_set(&w->progress, job_stage_names[stage], done, total, eta);
}

static bool on_cancelled(void *ctx, struct run *r)
{
    (void)ctx, (void)r;
    return interrupted;
}

static void on_preview(void *ctx, struct run *r, const struct picture *p)
{
    (void)r;
    struct watch *w = ctx;
    clear_preview(w);
    int rows = show_picture(stderr, p, PREVIEW_ROWS, false, NULL);
    w->preview_rows = rows > 0 ? rows : 0;
}

static void on_note(void *ctx, struct run *r, const char *sentence)
{
    (void)r;
    struct watch *w = ctx;
    clear_preview(w);
    if (!w->progress.quiet)
        fprintf(stderr, NAME ": %s\n", sentence);
}

/* ---- reading the request ---- */

static bool is_metadata(const char *text)
{
    return text[strspn(text, " \t\r\n")] == '{';
}

static bool has_key(const struct request *r, const enum request_key *keys, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (r->line[keys[i]])
            return true;
    return false;
}

/* What the request says about the modality, or -1. */
static int modality_of_request(const struct request *r, const struct registry *registry)
{
    static const enum request_key of_gifs[] = {KEY_LOOP, KEY_PALETTE, KEY_DITHER};
    if (r->line[KEY_MODE])
        return (int)mode_info(r->mode)->modality;
    if (r->line[KEY_RETURN_FORMAT] && r->format == MEDIA_GIF)
        return MODALITY_GIF;
    if (r->line[KEY_RETURN_FORMAT] && (r->format == MEDIA_MP4 || r->format == MEDIA_WEBM))
        return MODALITY_VIDEO;
    if (has_key(r, of_gifs, ARRAY_LEN(of_gifs)))
        return MODALITY_GIF;
    const struct profile *p = r->profile[0] ? registry_profile(registry, r->profile) : NULL;
    return p ? (int)p->modality : -1;
}

/* What keys that pictures do not have make likely. */
static enum modality modality_of_keys(const struct request *r)
{
    static const enum request_key of_clips[] = {KEY_FRAMES, KEY_FPS, KEY_SECONDS};
    if (r->line[KEY_VIDEO]) /* drawn over, or only converted */
        return r->line[KEY_PROMPT] ? MODALITY_VIDEO : MODALITY_GIF;
    return has_key(r, of_clips, ARRAY_LEN(of_clips)) ? MODALITY_VIDEO : MODALITY_IMAGE;
}

/* MODALITY/JOB/prompt.ini, as in a mount. */
static int modality_of_path(const char *path)
{
    char real[PATH_MAX];
    if (!realpath(path, real))
        return -1;
    const char *above = basename(dirname(dirname(real)));
    for (int m = 0; m < MODALITY_COUNT; m++)
        if (!strcmp(above, modality_names[m]))
            return m;
    return -1;
}

static int apply_settings(struct request *r, const struct options *o, struct err *e)
{
    int rc = 0;
    for (int i = 0; !rc && i < o->settings.count; i++) {
        AUTO_FREE char *setting = strdup(o->settings.words[i]);
        char *equals = setting ? strchr(setting, '=') : NULL;
        if (!equals)
            return err_set(e, -EINVAL, "-s %s: expected key=value", o->settings.words[i]);
        *equals = '\0';
        rc = request_set(r, str_trim(setting), str_trim(equals + 1), "-s", e);
    }
    return rc;
}

/* As --modality says, else the request, else the place of its file. */
static int choose_modality(struct run *r, const char *path, const char *text, size_t size,
                           const struct options *o, struct err *e)
{
    int m = -1;
    for (int i = 0; o->modality && i < MODALITY_COUNT; i++)
        if (!strcmp(o->modality, modality_names[i]))
            m = i;
    if (o->modality && m < 0)
        return err_set(e, -EINVAL, "--modality %s is none of image, video, gif", o->modality);
    if (m < 0) {
        int rc = request_parse(text, size, path, MODALITY_IMAGE, &r->request, e);
        if (!rc)
            rc = apply_settings(&r->request, o, e);
        if (rc)
            return rc;
        m = modality_of_request(&r->request, r->registry);
        m = m >= 0 ? m : modality_of_path(path);
        m = m >= 0 ? m : (int)modality_of_keys(&r->request);
        request_free(&r->request);
    }
    r->modality = (enum modality)m;
    return 0;
}

static int read_request(struct run *r, const char *path, const struct options *o, struct err *e)
{
    AUTO_FREE char *text = NULL;
    size_t size;
    int rc = file_read(AT_FDCWD, path, METADATA_LIMIT, &text, &size, e);
    if (rc)
        return rc;
    if (is_metadata(text)) {
        rc = request_from_json(text, size, path, &r->request, e);
        r->modality = r->request.modality;
    } else {
        rc = choose_modality(r, path, text, size, o, e);
        if (!rc)
            rc = request_parse(text, size, path, r->modality, &r->request, e);
    }
    return rc ? rc : apply_settings(&r->request, o, e);
}

/* ---- the result ---- */

static void show_output(const struct run *r, const struct run_output *o)
{
    struct picture p = {0};
    struct media_limits limits;
    struct err e = {0};
    double fps;
    media_limits_init(&limits);
    int rc = o->frames > 1 ? media_read_clip(r->out_fd, o->name, &limits, &p, &fps, &e)
                           : media_read_image(r->out_fd, o->name, &limits, MEDIA_READ_RGB, &p, &e);
    if (rc == 0)
        rc = show_picture(stderr, &p, RESULT_ROWS, true, &e);
    if (rc < 0)
        fprintf(stderr, NAME ": --show: %s\n", e.text);
    picture_free(&p);
}

static int report(const struct run *r, const char *folder, const struct options *o)
{
    if (o->json) {
        AUTO_FREE char *text = run_metadata(r);
        puts(text ? text : "{}");
    }
    for (int i = 0; r->state == JOB_DONE && i < r->output_count; i++) {
        if (o->show)
            show_output(r, &r->outputs[i]);
        if (!o->json && !o->quiet)
            printf("%s/%s\n", folder, r->outputs[i].name);
    }
    switch (r->state) {
    case JOB_DONE:
        return CLI_DONE;
    case JOB_CANCELLED:
        return cli_fail(NAME, CLI_CANCELLED, "cancelled");
    case JOB_BLOCKED:
        return cli_fail(NAME, CLI_BLOCKED, "blocked: %s", r->error.text);
    default:
        return cli_fail(NAME, CLI_FAILED, "%s", r->error.text);
    }
}

/* mkdir -p as a shell does it: the umask decides who may look. */
static int make_folders(const char *path, struct err *e)
{
    AUTO_FREE char *copy = strdup(path);
    if (!copy)
        return err_nomem(e);
    for (char *slash = copy; (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        mkdir(copy, 0777);
        *slash = '/';
    }
    if (mkdir(copy, 0777) && errno != EEXIST)
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    return 0;
}

static int open_folders(struct run *r, const char *path, const char *output, struct err *e)
{
    AUTO_FREE char *copy = strdup(path);
    const char *folder = copy ? dirname(copy) : ".";
    r->in_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->in_fd < 0)
        return err_set(e, -errno, "%s: %s", folder, strerror(errno));
    if (make_folders(output, e))
        return e->code;
    r->out_fd = open(output, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->out_fd < 0)
        return err_set(e, -errno, "%s: %s", output, strerror(errno));
    return 0;
}

/* Opens what a run needs, runs it, and closes everything; what could not be opened is a usage
 * error when it is the user's word or file. */
static int run_with(struct run *r, struct watch *w, const char *path, const struct options *o,
                    struct err *e)
{
    struct registry *registry = NULL;
    struct models *models = NULL;
    int code = CLI_USAGE;
    if (registry_load(NULL, &registry, e))
        return code;
    r->registry = registry;
    if (read_request(r, path, o, e) == 0 && open_folders(r, path, o->output, e) == 0) {
        struct omni_device device;
        int found;
        code = CLI_FAILED;
        if (devices_find(&generator_omni, &registry->devices, &device, 1, &found, e) == 0 &&
            models_new(&generator_omni, &device, registry->devices.memory,
                       registry->devices.threads, &models, e) == 0) {
            r->models = models;
            run_batch((struct run *[]){r}, 1);
            clear_preview(w);
            code = report(r, o->output, o);
        }
    }
    models_free(models);
    registry_unref(registry);
    return code;
}

static int run_file(const char *path, const struct options *o)
{
    struct err e = {0};
    struct run r;
    char id[ID_SIZE];
    id_new(id);
    run_init(&r, id, path, MODALITY_IMAGE);
    r.in_fd = r.out_fd = -1;
    r.created_ms = clock_wall_ms();

    struct watch w = {0};
    progress_begin(&w.progress, stderr, o->quiet);
    const struct run_hooks hooks = {.ctx = &w,
                                    .progress = on_progress,
                                    .cancelled = on_cancelled,
                                    .preview = o->show ? on_preview : NULL,
                                    .note = on_note,
                                    .preview_every = o->show ? PREVIEW_EVERY : 0};
    r.hooks = &hooks;

    int code = run_with(&r, &w, path, o, &e);
    if (e.code)
        cli_fail(NAME, code, "%s", e.text);
    if (r.in_fd >= 0)
        close(r.in_fd);
    if (r.out_fd >= 0)
        close(r.out_fd);
    run_free(&r);
    return code;
}

int cmd_run(int argc, char **argv)
{
    struct options o = {.output = "."};
    const struct cli_option options[] = {
        {"output", 'o', CLI_TEXT, "DIR", "where results go; made when missing (default: .)",
         &o.output},
        {"set", 's', CLI_MANY, "KEY=VALUE", "set a key of prompt.ini; may be repeated",
         &o.settings},
        {"modality", 'm', CLI_TEXT, "WORD", "image, video or gif", &o.modality},
        {"json", 'j', CLI_FLAG, NULL, "print metadata.json instead of paths", &o.json},
        {"show", 0, CLI_FLAG, NULL, "draw previews and results in the terminal", &o.show},
        {"quiet", 'q', CLI_FLAG, NULL, "say nothing but errors", &o.quiet},
        {0},
    };
    AUTO_WORDS struct cli_words words;
    int code = cli_parse(&usage, options, argc, argv, &words);
    if (code == CLI_CONTINUE && o.show && !term_is(stderr))
        code = cli_fail(NAME, CLI_USAGE, "--show needs a terminal on stderr");
    if (code == CLI_CONTINUE) {
        watch_signals();
        code = run_file(words.words[0], &o);
    }
    cli_words_free(&o.settings);
    return code;
}
