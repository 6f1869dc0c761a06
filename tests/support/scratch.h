/* A scratch folder for a test: made in the group's setup, removed in its teardown. */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

/* *state becomes the folder's path. */
int scratch_setup(void **state);
int scratch_teardown(void **state);
/* Writes a text file; fails the test on an error. */
void scratch_write(const char *path, const char *text);

#endif
