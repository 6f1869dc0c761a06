#include "engine/weights/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine/weights/gguf.h"
#include "engine/weights/safetensors.h"

int weights_file_open(const char *path, struct weights_file *out, struct err *e)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st))
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(e, -EINVAL, "%s is not a regular file", path);
    size_t size = (size_t)st.st_size;
    if (size == 0)
        return err_set(e, -EINVAL, "%s is empty", path);
    void *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return err_set(e, -errno, "%s: cannot be mapped: %s", path, strerror(errno));
    int code = gguf_is(map, size) ? gguf_parse(path, map, size, out, e)
                                  : safetensors_parse(path, map, size, out, e);
    if (code) {
        munmap(map, size);
        return code;
    }
    out->map = map;
    out->map_size = size;
    return 0;
}

void weights_file_close(struct weights_file *f)
{
    for (size_t i = 0; i < f->count; i++)
        free((char *)f->entries[i].name);
    for (size_t i = 0; i < f->copy_count; i++)
        free(f->copies[i]);
    free(f->entries);
    free(f->copies);
    free(f->path);
    if (f->map)
        munmap(f->map, f->map_size);
    *f = (struct weights_file){0};
}
