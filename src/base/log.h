/* Log: one line an event, to stderr in the foreground and to syslog as a daemon; `OMNIFS_LOG`
 * (error, warn, info, debug) sets the level. Lines about a request carry its id. */
#ifndef OMNIFS_BASE_LOG_H
#define OMNIFS_BASE_LOG_H

#include "base/err.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Chooses level (from OMNIFS_LOG when set, else `level`) and destination. Call once from main. */
void log_open(enum log_level level, int to_syslog);
enum log_level log_threshold(void);

void log_write(enum log_level level, const char *request_id, const char *fmt, ...) ERR_PRINTF(3, 4);

#define log_error(...) log_write(LOG_LEVEL_ERROR, NULL, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, NULL, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, NULL, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, NULL, __VA_ARGS__)

#endif
