/* How much memory this process may use. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "job/models.h"

/* The number in a control file; UINT64_MAX for "max", a missing file, or no limit. */
static uint64_t read_limit(const char *path)
{
    char line[64];
    uint64_t v;
    AUTO_FILE FILE *f = fopen(path, "re");
    if (!f || !fgets(line, sizeof line, f) || parse_u64(str_trim(line), &v))
        return UINT64_MAX;
    return v;
}

/* The least limit of our control group and those above it (version 2, then version 1). */
static uint64_t group_limit(void)
{
    uint64_t least = read_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    char line[1024], path[1200];
    AUTO_FILE FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::/", 4))
            continue;
        char *group = str_trim(line + 3);
        for (;;) {
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
            uint64_t v = read_limit(path);
            least = v < least ? v : least;
            char *slash = strrchr(group, '/');
            if (!slash || (slash == group && !group[1]))
                break;
            slash[slash == group] = '\0';
        }
    }
    uint64_t v = read_limit("/sys/fs/cgroup/memory.max"); /* inside a container: our own group */
    return v < least ? v : least;
}

uint64_t memory_total(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    uint64_t ram = pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : UINT64_MAX;
    uint64_t group = group_limit();
    return group < ram ? group : ram;
}

/* MemAvailable of the machine. */
static uint64_t machine_available(void)
{
    char line[128];
    unsigned long long kilobytes;
    AUTO_FILE FILE *f = fopen("/proc/meminfo", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kilobytes) == 1)
            return kilobytes * 1024;
    return UINT64_MAX;
}

uint64_t memory_available(void)
{
    uint64_t machine = machine_available(), total = memory_total(), used = memory_resident();
    uint64_t own = total > used ? total - used : 0;
    return machine < own ? machine : own;
}

uint64_t memory_resident(void)
{
    unsigned long long total, resident = 0;
    AUTO_FILE FILE *f = fopen("/proc/self/statm", "re");
    if (!f || fscanf(f, "%llu %llu", &total, &resident) != 2)
        return 0;
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}
