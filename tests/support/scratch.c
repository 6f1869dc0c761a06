#include "scratch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

int scratch_setup(void **state)
{
    char pattern[] = "/tmp/omnifs-test-XXXXXX";
    if (!mkdtemp(pattern))
        return -1;
    *state = strdup(pattern);
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
