/* What the tests of POSIX behaviour share: one mount a group, a folder of its own a test (its name
 * begins with a dot, so it is no job), system calls that answer with the errno, and other users. */
#ifndef TESTS_POSIX_H
#define TESTS_POSIX_H

#include <errno.h>

#include "mounted.h"

/* Group fixture: starts the stub daemon in *state (a struct mounted) with allow_other. Fails, does
 * not skip, where mounting is impossible: these tests are of no use without. */
int posix_setup(void **state);
int posix_teardown(void **state);

/* Test fixture: makes MNT/image/.test and enters it; leaves and removes it, and fails when that is
 * not possible. */
int posix_enter(void **state);
int posix_leave(void **state);

/* Back to where the program was started, out of the mount. */
int posix_go_home(void);

#define POSIX_TEST(name) cmocka_unit_test_setup_teardown(name, posix_enter, posix_leave)

/* 0 or the errno of a call that returns -1. */
#define ERR(call) ((call) < 0 ? errno : 0)

/* Runs `act` as user and group `uid` in a child; what it returns (an errno). */
int as_user(uid_t uid, int (*act)(void *arg), void *arg);

int touch(const char *path); /* creates an empty file; 0 or errno */

#endif
