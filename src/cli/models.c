/* omnifs models: what checkpoints there are, and are they whole? */
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/outline.h"
#include "cli/term.h"
#include "job/registry.h"

#define NAME "omnifs models"

static const struct cli_usage usage = {
    .name = NAME,
    .synopsis = "[list | inspect MODEL | verify MODEL] [OPTION]",
    .about = "Lists the checkpoints on the search path, says what one holds and needs, or checks\n"
             "every tensor of one. MODEL is a name on the search path or a path, of a folder or\n"
             "of a single .safetensors or .gguf file.",
    .more = "Models are searched in $OMNIFS_MODELS (':' between folders), in\n"
            "$XDG_DATA_HOME/omnifs/models, /usr/local/share/omnifs/models,\n"
            "/usr/share/omnifs/models.\n\n"
            "Exit codes: 0 fine, 1 something is wrong with the model, 2 usage.",
    .min_words = 0,
    .max_words = 2,
};

/* ---- list ---- */

/* {"name", "path", …what omni_inspect says, or "error"} for each folder with a model_index.json and
 * each single file. */
struct listing {
    json_t *models;
};

static json_t *describe(const char *name, const char *path)
{
    AUTO_FREE char *text = NULL;
    struct err e = {0};
    json_t *o = json_pack("{s:s, s:s}", "name", name, "path", path);
    if (omni_inspect(path, NULL, &text, &e)) {
        json_object_set_new(o, "error", json_string(e.text));
        return o;
    }
    json_t *details = json_loads(text, 0, NULL);
    json_object_update_missing(o, details);
    json_decref(details);
    return o;
}

static bool is_single_file(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && (!strcmp(dot, ".safetensors") || !strcmp(dot, ".gguf"));
}

static void list_folder(void *ctx, const char *folder)
{
    struct listing *l = ctx;
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        char path[PATH_MAX], index[PATH_MAX + 32];
        int n = snprintf(path, sizeof path, "%s/%s", folder, name);
        snprintf(index, sizeof index, "%s/model_index.json", path);
        if (name[0] != '.' && n < PATH_MAX && (access(index, F_OK) == 0 || is_single_file(name)))
            json_array_append_new(l->models, describe(name, path));
        free(entries[i]);
    }
    free(entries);
}

static const char *word_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

static void print_list(const json_t *models)
{
    static const struct table_column columns[] = {
        {"MODEL", TABLE_LEFT, false},       {"FAMILY", TABLE_LEFT, false},
        {"PARAMETERS", TABLE_RIGHT, false}, {"STATE", TABLE_LEFT, true},
        {"PATH", TABLE_LEFT, true},
    };
    AUTO_TABLE struct table t = TABLE(columns);
    size_t i;
    json_t *m;
    json_array_foreach(models, i, m)
    {
        char parameters[32] = "";
        const json_t *count = json_object_get(m, "parameters");
        if (json_is_integer(count))
            snprintf(parameters, sizeof parameters, "%.1f M",
                     (double)json_integer_value(count) / 1e6);
        const char *error = word_of(m, "error");
        table_row(&t, (const char *[]){word_of(m, "name"), word_of(m, "family"), parameters,
                                       error[0] ? error : "ok", word_of(m, "path")});
    }
    table_print(&t, stdout);
}

static int print_json(const json_t *value)
{
    AUTO_FREE char *text = json_dumps(value, JSON_INDENT(2));
    if (!text)
        return cli_fail(NAME, CLI_FAILED, "not enough memory");
    puts(text);
    return CLI_DONE;
}

static int list(bool json)
{
    struct listing l = {json_array()};
    model_search_path(list_folder, &l);
    int code = CLI_DONE;
    if (json)
        code = print_json(l.models);
    else if (json_array_size(l.models))
        print_list(l.models);
    else
        code =
            cli_fail(NAME, CLI_FAILED,
                     "there are no models on the search path; %s --help names its folders", NAME);
    json_decref(l.models);
    return code;
}

/* ---- inspect, verify ---- */

static int inspect(const char *path, const struct omni_load_options *o, bool json)
{
    AUTO_FREE char *text = NULL;
    struct err e = {0};
    if (omni_inspect(path, o, &text, &e))
        return cli_fail(NAME, CLI_FAILED, "%s", e.text);
    if (json) {
        puts(text);
        return CLI_DONE;
    }
    AUTO_STR struct str out = {0};
    json_t *value = json_loads(text, 0, NULL);
    outline(&out, value, 0);
    json_decref(value);
    fputs(str_cstr(&out), stdout);
    return CLI_DONE;
}

/* Which files were compared with a sum that is known, and with whose. */
static void print_sums(const json_t *sums)
{
    size_t i;
    json_t *row;
    const json_t *checked = json_object_get(sums, "checked");
    json_array_foreach(checked, i, row)
        printf("%s: sha256 as in %s\n", word_of(row, "file"), word_of(row, "source"));
    if (!json_array_size(checked))
        puts("no sha256 is known of its files (NAME.sha256, SHA256SUMS or the hub's cache would "
             "say)");
}

static int verify(const char *path, const struct omni_load_options *o, bool json)
{
    AUTO_FREE char *text = NULL;
    struct err e = {0};
    int rc = omni_verify(path, o, &e);
    if (rc == 0)
        rc = omni_verify_sums(path, o, &text, &e);
    json_t *sums = text ? json_loads(text, 0, NULL) : NULL;
    int code = CLI_DONE;
    if (json) {
        json_t *o = json_pack("{s:s, s:b, s:s?, s:O?}", "path", path, "ok", rc == 0, "error",
                              rc ? e.text : NULL, "sums", sums);
        print_json(o);
        json_decref(o);
        code = rc ? CLI_FAILED : CLI_DONE;
    } else if (rc)
        code = cli_fail(NAME, CLI_FAILED, "%s", e.text);
    else {
        printf("%s: every tensor is there, has its shape and is finite\n", path);
        print_sums(sums);
    }
    json_decref(sums);
    return code;
}

/* Parts as they were given, "vae=PATH", with what they point to. */
struct parts {
    struct profile profile;
    struct profile_places places;
};

static int read_parts(const struct cli_words *given, struct parts *p, struct err *e)
{
    for (int i = 0; i < given->count; i++) {
        const char *word = given->words[i], *equals = strchr(word, '=');
        size_t n = equals ? (size_t)(equals - word) : strlen(word);
        int part = 0;
        while (part < PROFILE_PARTS &&
               (strncmp(profile_part_names[part], word, n) != 0 || profile_part_names[part][n]))
            part++;
        if (part == PROFILE_PARTS || !equals || strlen(equals + 1) >= sizeof p->profile.parts[part])
            return err_set(e, -EINVAL,
                           "\"%.60s\" is not NAME=PATH with the NAME text_encoder, "
                           "text_encoder_2, vae, tokenizer or tokenizer_2",
                           word);
        strcpy(p->profile.parts[part], equals + 1);
    }
    strcpy(p->profile.name, "--part");
    return profile_places_find(&p->profile, &p->places, e);
}

static int look(const char *verb, const char *model, const struct cli_words *given, bool json)
{
    char path[REGISTRY_PATH_SIZE];
    struct err e = {0};
    struct parts parts = {0};
    if (read_parts(given, &parts, &e))
        return cli_fail(NAME, CLI_USAGE, "%s", e.text);
    if (model_find(model, path, &e))
        return cli_fail(NAME, CLI_FAILED, "%s", e.text);
    const struct omni_load_options o = {.parts = parts.places.list,
                                        .part_count = parts.places.count};
    if (!strcmp(verb, "inspect"))
        return inspect(path, &o, json);
    return verify(path, given->count ? &o : NULL, json);
}

int cmd_models(int argc, char **argv)
{
    bool json = false;
    AUTO_WORDS struct cli_words words, given = {0};
    const struct cli_option options[] = {
        {"json", 'j', CLI_FLAG, NULL, "print JSON", &json},
        {"part", 'p', CLI_MANY, "NAME=PATH", "a part that lies elsewhere (text_encoder, vae …)",
         &given},
        {0},
    };
    int code = cli_parse(&usage, options, argc, argv, &words);
    if (code != CLI_CONTINUE)
        return code;
    const char *verb = words.count ? words.words[0] : "list";
    if (!strcmp(verb, "list") && words.count < 2)
        return list(json);
    if (strcmp(verb, "inspect") != 0 && strcmp(verb, "verify") != 0) {
        const char *near = str_nearest(verb, (const char *[]){"list", "inspect", "verify", NULL});
        return cli_fail(NAME, CLI_USAGE, "unknown word %s; did you mean %s?", verb,
                        near ? near : "list, inspect or verify");
    }
    if (words.count < 2)
        return cli_fail(NAME, CLI_USAGE, "%s needs a model: %s %s MODEL", verb, NAME, verb);
    return look(verb, words.words[1], &given, json);
}
