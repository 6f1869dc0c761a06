/* A mount of its own for a test: the stub daemon, a scratch store, and helpers that act like users.
 * Paths of helpers are relative to the mount ("image/cat/prompt.ini"). A watchdog keeps a hang from
 * hanging the test: after its time it aborts the FUSE connection and says so. */
#ifndef TESTS_MOUNTED_H
#define TESTS_MOUNTED_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct mounted {
    char scratch[PATH_MAX / 4];
    char store[PATH_MAX / 2], dir[PATH_MAX / 2], drawn[PATH_MAX / 2];
    pid_t daemon; /* 0: not running */
};

/* Why mounting is impossible here, or NULL. Tests then skip. */
const char *mounted_impossible(void);

/* Starts in the foreground, with `options` ("debounce=50", may be NULL), and waits until the mount
 * answers. 0 or -1 (with a line on stderr). The scratch folder is made by the first start. */
int mounted_start(struct mounted *m, const char *options);
/* Sends `signal`, waits a minute at most for the daemon's end; its exit status, or -1. */
int mounted_end(struct mounted *m, int signal);
/* kill -9 and lazy unmount. */
void mounted_kill(struct mounted *m);
/* Kills with `signal`; true when the daemon is gone within a minute. The dead mount stays. */
bool mounted_crash(struct mounted *m, int signal);
void mounted_free(struct mounted *m); /* whatever state it is in */

const char *mounted_path(const struct mounted *m, const char *fmt, ...)
    __attribute__((format(printf, 2, 3))); /* in a ring of buffers */
/* mkdir image/NAME and prompt.ini in it, as `mkdir; echo > prompt.ini` does. 0 or -errno. */
int mounted_submit(const struct mounted *m, const char *folder, const char *text);
int write_file(const char *path, const char *text);
/* The file's text ("" when it cannot be read), in a ring of buffers of 4 KiB. */
const char *read_file(const char *path);
bool exists(const char *path);
/* Waits until the file exists, for as long as a busy machine may need. */
bool appears(const char *path);
/* … until its text holds `word`. */
bool shows(const char *path, const char *word);
/* … until FOLDER's job runs. */
bool runs(const struct mounted *m, const char *folder);
/* Reads FOLDER/wait: the final status line. */
const char *wait_for(const struct mounted *m, const char *folder);
/* How often the stub has drawn a prompt that holds `word`. */
int times_drawn(const struct mounted *m, const char *word);
/* Runs a shell command in the mount's root; its exit status. */
int shell(const struct mounted *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sleep_ms(int ms);
double now(void);
/* The built program NAME beside this test ("omnifs_stub"), or its folder's neighbour. */
const char *test_program(const char *name);

/* Aborts the FUSE connection of `m` if watchdog_end() is not called in time. */
struct watchdog;
struct watchdog *watchdog_begin(const struct mounted *m, double seconds);
/* True when it was in time. */
bool watchdog_end(struct watchdog *w);

/* inotify on one folder: "CREATE image.png, OPEN image.png, CLOSE_WRITE image.png". Reading, and
 * previews (which come when they can), are left out. */
struct events {
    int fd;
    char text[16384];
    size_t len;
};
int events_begin(struct events *e, const char *folder);
/* What has come until `last` ("CLOSE_WRITE x") came and then nothing for `quiet_ms`. */
const char *events_end(struct events *e, const char *last, int quiet_ms);

#endif
