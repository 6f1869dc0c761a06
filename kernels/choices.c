#include "kernels/choices.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CHOICES 4096
#define MAX_STAMP   160

struct choice {
    uint64_t key;
    uint8_t value[CHOICE_SIZE];
};

struct choices {
    char path[PATH_MAX], stamp[MAX_STAMP];
    struct choice *list;
    int count, room;
};

static bool remember(struct choices *c, uint64_t key, const uint8_t *value)
{
    if (c->count == MAX_CHOICES)
        return false;
    if (c->count == c->room) {
        int room = c->room ? 2 * c->room : 64;
        struct choice *list = realloc(c->list, (size_t)room * sizeof(*list));
        if (!list)
            return false;
        c->list = list;
        c->room = room;
    }
    c->list[c->count].key = key;
    memcpy(c->list[c->count++].value, value, CHOICE_SIZE);
    return true;
}

/* `KEY VALUE\n` after the stamp and a blank. */
static void read_line(struct choices *c, const char *line)
{
    size_t n = strlen(c->stamp);
    uint8_t value[CHOICE_SIZE];
    if (strncmp(line, c->stamp, n) != 0 || strlen(line + n) != 1 + 16 + 1 + 2 * CHOICE_SIZE + 1 ||
        line[n] != ' ' || line[n + 17] != ' ')
        return;
    char *end;
    uint64_t key = strtoull(line + n + 1, &end, 16);
    if (end != line + n + 17)
        return;
    for (int i = 0; i < CHOICE_SIZE; i++) {
        unsigned byte;
        if (sscanf(line + n + 18 + 2 * i, "%2x", &byte) != 1)
            return;
        value[i] = (uint8_t)byte;
    }
    remember(c, key, value);
}

struct choices *choices_open(const char *path, const char *stamp)
{
    struct choices *c = calloc(1, sizeof(*c));
    char line[MAX_STAMP + 32 + 2 * CHOICE_SIZE];
    if (!c)
        return NULL;
    snprintf(c->path, sizeof(c->path), "%s", path);
    snprintf(c->stamp, sizeof(c->stamp), "%s", stamp);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        read_line(c, line);
    if (f)
        fclose(f);
    return c;
}

void choices_free(struct choices *c)
{
    if (c)
        free(c->list);
    free(c);
}

bool choices_find(const struct choices *c, uint64_t key, uint8_t value[CHOICE_SIZE])
{
    for (int i = 0; i < c->count; i++)
        if (c->list[i].key == key) {
            memcpy(value, c->list[i].value, CHOICE_SIZE);
            return true;
        }
    return false;
}

bool choices_add(struct choices *c, uint64_t key, const uint8_t value[CHOICE_SIZE])
{
    char line[MAX_STAMP + 32 + 2 * CHOICE_SIZE];
    int n = snprintf(line, sizeof(line), "%s %016" PRIx64 " ", c->stamp, key);
    for (int i = 0; i < CHOICE_SIZE; i++)
        n += snprintf(line + n, sizeof(line) - (size_t)n, "%02x", value[i]);
    snprintf(line + n, sizeof(line) - (size_t)n, "\n");
    bool kept = remember(c, key, value);
    FILE *f = fopen(c->path, "ae");
    if (!f)
        return false;
    kept = fputs(line, f) >= 0 && kept;
    return fclose(f) == 0 && kept;
}
