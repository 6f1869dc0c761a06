/* Time: monotonic for durations, wall clock for records (RFC 3339, UTC, milliseconds). */
#ifndef OMNIFS_BASE_CLOCK_H
#define OMNIFS_BASE_CLOCK_H

#include <stdint.h>

#define CLOCK_RFC3339_SIZE 32

double clock_seconds(void);  /* monotonic, seconds */
int64_t clock_wall_ms(void); /* milliseconds since 1970-01-01 UTC */
/* "2026-01-31T09:15:00.123Z" into out[CLOCK_RFC3339_SIZE]; returns out. */
char *clock_rfc3339(int64_t wall_ms, char *out);

#endif
