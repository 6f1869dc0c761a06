/* omnifs bench: tables of what this machine does, each beside its floor. */
#include "cli/bench.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/term.h"
#include "job/models.h"
#include "job/registry.h"

#define NAME "omnifs bench"

static const struct cli_usage usage = {
    .name = NAME,
    .synopsis = "[PROFILE ...] [OPTION ...]",
    .about = "Measures this machine: what a plain matrix product and copy reach; requests of the\n"
             "profiles by stage; the engine's operations; files through a mount of its own.\n"
             "Every figure is the median of several warm runs.",
    .more = "Exit codes: 0 measured, 1 a part could not be measured, 2 usage.",
    .min_words = 0,
    .max_words = -1,
};

static const struct section {
    const char *name, *title;
    int (*measure)(struct bench *b, json_t *rows, struct err *e);
    bool synthetic; /* only with --synthetic, and then alone */
} sections[] = {
    {"machine", "The machine's floor", bench_machine, false},
    {"drawing", "One picture of a model without files, seconds", bench_drawing, true},
    {"products", "What it is made of, the longest first", bench_products, true},
    {"whole", "The picture beside its products, seconds", bench_whole, true},
    {"stages", "Requests by stage, seconds", bench_stages, false},
    {"work", "One request of the first profile's model, by kind of operation", bench_work, false},
    {"operations", "Operations by shape", bench_operations, false},
    {"files", "Files, beside the same calls on the disk below", bench_files, false},
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* ---- printing ---- */

#define MAX_COLUMNS 12

static void format_cell(const json_t *value, char *out, size_t size)
{
    if (json_is_string(value))
        snprintf(out, size, "%s", json_string_value(value));
    else if (json_is_integer(value))
        snprintf(out, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_number_value(value) >= 1000)
        snprintf(out, size, "%.0f", json_number_value(value));
    else
        snprintf(out, size, "%.3g", json_number_value(value));
}

static void print_rows(const json_t *rows)
{
    struct table_column columns[MAX_COLUMNS] = {0};
    int count = 0;
    const char *key;
    json_t *value, *row;
    size_t i;
    json_object_foreach(json_array_get(rows, 0), key, value)
    {
        if (count == MAX_COLUMNS)
            break;
        columns[count] = (struct table_column){
            key, json_is_string(value) ? TABLE_LEFT : TABLE_RIGHT, count == 0};
        count++;
    }
    AUTO_TABLE struct table t = {.columns = columns, .column_count = count};
    json_array_foreach(rows, i, row)
    {
        char text[MAX_COLUMNS][96];
        const char *cells[MAX_COLUMNS];
        for (int c = 0; c < count; c++) {
            format_cell(json_object_get(row, columns[c].title), text[c], sizeof text[c]);
            cells[c] = text[c];
        }
        table_row(&t, cells);
    }
    table_print(&t, stdout);
}

/* Was the section asked for (or none at all)? The machine's peak is what others refer to; those of
 * --synthetic need the ones before them. */
static bool wanted(const struct bench *b, const struct cli_words *chosen, size_t section)
{
    bool synthetic = b->synthetic != NULL;
    if (section && sections[section].synthetic != synthetic)
        return false;
    for (int i = 0; i < chosen->count; i++)
        for (size_t k = section; k < (synthetic ? ARRAY_LEN(sections) : section + 1); k++)
            if (sections[k].synthetic == sections[section].synthetic &&
                !strcmp(chosen->words[i], sections[k].name))
                return true;
    return !chosen->count || !section;
}

static int check_chosen(const struct cli_words *chosen)
{
    const char *names[ARRAY_LEN(sections) + 1] = {0};
    for (size_t i = 0; i < ARRAY_LEN(sections); i++)
        names[i] = sections[i].name;
    for (int i = 0; i < chosen->count; i++) {
        const char *near = str_nearest(chosen->words[i], names);
        if (!near || strcmp(near, chosen->words[i]) != 0)
            return cli_fail(
                NAME, CLI_USAGE, "unknown section %s; did you mean %s?", chosen->words[i],
                near ? near
                     : "machine, stages, work, operations, files, drawing, products or whole");
    }
    return CLI_CONTINUE;
}

static int measure_all(struct bench *b, const struct cli_words *chosen, bool json)
{
    json_t *report = json_object();
    int code = CLI_DONE;
    for (size_t i = 0; i < ARRAY_LEN(sections); i++) {
        struct err e = {0};
        if (!wanted(b, chosen, i))
            continue;
        json_t *rows = json_array();
        if (sections[i].measure(b, rows, &e))
            code = cli_fail(NAME, CLI_FAILED, "%s: %s", sections[i].name, e.text);
        if (!json && json_array_size(rows)) {
            printf("%s%s\n", i ? "\n" : "", sections[i].title);
            print_rows(rows);
            fflush(stdout);
        }
        json_object_set_new(report, sections[i].name, rows);
    }
    if (json) {
        AUTO_FREE char *text = json_dumps(report, JSON_INDENT(2));
        puts(text ? text : "{}");
    }
    json_decref(report);
    return code;
}

/* --size, --steps and --precision. */
static int read_picture(struct bench *b, const char *size, const char *steps, const char *precision)
{
    char end;
    if (size && (sscanf(size, "%dx%d%c", &b->width, &b->height, &end) != 2 || b->width < 1 ||
                 b->height < 1))
        return cli_fail(NAME, CLI_USAGE, "--size is %s, expected WIDTHxHEIGHT", size);
    if (steps && (sscanf(steps, "%d%c", &b->steps, &end) != 1 || b->steps < 1))
        return cli_fail(NAME, CLI_USAGE, "--steps is %s, expected a number from 1", steps);
    if (precision && omni_precision_parse(precision, &b->precision) != 0)
        return cli_fail(NAME, CLI_USAGE, "--precision is %s, expected auto, fp32, bf16 or fp8",
                        precision);
    if ((size || steps || precision || b->device) && !b->synthetic)
        return cli_fail(NAME, CLI_USAGE,
                        "--size, --steps, --precision and --device belong to --synthetic");
    return CLI_CONTINUE;
}

/* Before anything is measured. */
static int check_profiles(const struct bench *b)
{
    AUTO_STR struct str list = {0};
    for (int i = 0; i < b->registry->profile_count; i++)
        str_addf(&list, "%s%s", i ? ", " : "", b->registry->profiles[i].name);
    for (int i = 0; i < b->profiles->count; i++)
        if (!registry_profile(b->registry, b->profiles->words[i]))
            return cli_fail(NAME, CLI_USAGE, "there is no profile %s; there are %s",
                            b->profiles->words[i], str_cstr(&list));
    return CLI_CONTINUE;
}

int cmd_bench(int argc, char **argv)
{
    bool json = false;
    const char *synthetic = NULL, *size = NULL, *steps = NULL, *device = NULL;
    const char *precision = NULL;
    struct cli_words chosen __attribute__((cleanup(cli_words_free))) = {0};
    const struct cli_option options[] = {
        {"json", 'j', CLI_FLAG, NULL, "print JSON", &json},
        {"section", 's', CLI_MANY, "NAME",
         "only machine, stages, work, operations or files; drawing, products or whole", &chosen},
        {"synthetic", 0, CLI_TEXT, "MODEL",
         "measure klein-4b, zimage, sdxl or sd15 with weights made up on the spot", &synthetic},
        {"size", 0, CLI_TEXT, "WxH", "of the synthetic model's picture", &size},
        {"steps", 0, CLI_TEXT, "N", "of the synthetic model's picture", &steps},
        {"device", 0, CLI_TEXT, "DEVICE", "cpu or cuda:N, for the synthetic model's picture",
         &device},
        {"precision", 0, CLI_TEXT, "WORD", "auto, fp32, bf16 or fp8, of its products", &precision},
        {0},
    };
    AUTO_WORDS struct cli_words words;
    int code = cli_parse(&usage, options, argc, argv, &words);
    if (code == CLI_CONTINUE)
        code = check_chosen(&chosen);
    if (code != CLI_CONTINUE)
        return code;
    struct bench b = {.profiles = &words, .synthetic = synthetic, .device = device};
    if ((code = read_picture(&b, size, steps, precision)) != CLI_CONTINUE)
        return code;
    struct err e = {0};
    struct registry *registry = NULL;
    struct models *models = NULL;
    struct omni_device first;
    int found;
    if (registry_load(NULL, &registry, &e) ||
        devices_find(&generator_omni, &registry->devices, &first, 1, &found, &e) ||
        models_new(&generator_omni, &first, registry->devices.memory, registry->devices.threads,
                   &models, &e)) {
        code = cli_fail(NAME, CLI_FAILED, "%s", e.text);
    } else {
        b.registry = registry;
        b.models = models;
        code = check_profiles(&b);
        if (code == CLI_CONTINUE)
            code = measure_all(&b, &chosen, json);
    }
    json_decref(b.products);
    models_free(models);
    registry_unref(registry);
    return code;
}
