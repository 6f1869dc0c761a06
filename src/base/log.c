#include "base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <syslog.h>

#include "base/clock.h"

static atomic_int threshold = LOG_LEVEL_INFO; /* the log's own context: set once by main */
static atomic_int use_syslog = 0;

static const char *const names[] = {"error", "warn", "info", "debug"};
static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

void log_open(enum log_level level, int to_syslog)
{
    const char *wish = getenv("OMNIFS_LOG");
    int known = !wish || !*wish;
    for (int i = 0; !known && i < 4; i++)
        if (!strcasecmp(wish, names[i])) {
            level = (enum log_level)i;
            known = 1;
        }
    threshold = (int)level;
    use_syslog = to_syslog;
    if (to_syslog)
        openlog("omnifs", LOG_PID, LOG_DAEMON);
    if (!known)
        log_warn("OMNIFS_LOG is \"%s\", expected error, warn, info or debug", wish);
}

enum log_level log_threshold(void)
{
    return (enum log_level)threshold;
}

void log_write(enum log_level level, const char *request_id, const char *fmt, ...)
{
    if ((int)level > threshold)
        return;
    char text[1024], stamp[CLOCK_RFC3339_SIZE];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const char *id = request_id ? request_id : "-";
    if (use_syslog) {
        syslog(priorities[level], "%s %s", id, text);
        return;
    }
    clock_rfc3339(clock_wall_ms(), stamp);
    fprintf(stderr, "%s %-5s %s %s\n", stamp, names[level], id, text);
}
