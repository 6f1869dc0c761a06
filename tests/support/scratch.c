#include "scratch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

char *scratch_name(char out[SCRATCH_SIZE], const char *pattern)
{
    const char *place = getenv("TMPDIR");
    if (!place || strlen(place) + 1 + strlen(pattern) >= SCRATCH_SIZE)
        place = "/tmp";
    snprintf(out, SCRATCH_SIZE, "%s/%s", place, pattern);
    return out;
}

int scratch_setup(void **state)
{
    char folder[SCRATCH_SIZE];
    if (!mkdtemp(scratch_name(folder, "omnifs-test-XXXXXX")))
        return -1;
    *state = strdup(folder);
    return *state ? 0 : -1;
}

int scratch_teardown(void **state)
{
    int code = file_remove_tree(AT_FDCWD, *state);
    free(*state);
    *state = NULL;
    return code;
}

void scratch_write(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f)) {
        perror(path);
        abort();
    }
}
