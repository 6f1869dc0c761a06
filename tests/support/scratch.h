/* Scratch folders of tests. tests/run gives every program a $TMPDIR of its own, sees that nothing
 * is left in it, and removes what a failed test left. */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#define SCRATCH_SIZE 64

/* "$TMPDIR/PATTERN" into out, for mkdtemp and mkstemp; returns out. /tmp without a (short) $TMPDIR.
 */
char *scratch_name(char out[SCRATCH_SIZE], const char *pattern);
/* One for a group: made in its setup, removed in its teardown. *state becomes the folder's path. */
int scratch_setup(void **state);
int scratch_teardown(void **state);
/* Writes a text file; fails the test on an error. */
void scratch_write(const char *path, const char *text);

#endif
