/* Known sums: where they are looked for, what they are compared with, and what is no sum. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "engine/sums.h"
#include "../support/scratch.h"

/* Of "abc", and of nothing. */
#define ABC     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define NOTHING "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/* FOLDER/name; good until the third next call. */
static const char *in(void **state, const char *name)
{
    static char paths[3][160];
    static int turn;
    turn = (turn + 1) % 3;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", (char *)*state, name);
    return paths[turn];
}

/* sum_known and sum_check together: 1 when known and right, 0 when unknown, else the fault. */
static int outcome(const char *path, struct err *e)
{
    struct known_sum known;
    *e = (struct err){0};
    int code = sum_known(path, &known, e);
    if (code == 1)
        code = sum_check(path, &known, e) ? e->code : 1;
    free(known.source);
    return code;
}

static void assert_faulty(const char *path, int code, const char *sentence)
{
    struct err e;
    assert_int_equal(outcome(path, &e), code);
    if (!strstr(e.text, sentence))
        fail_msg("expected '%s' in: %s", sentence, e.text);
}

static void a_sum_is_found_beside_its_file(void **state)
{
    struct err e;
    scratch_write(in(state, "a"), "abc");
    assert_int_equal(outcome(in(state, "a"), &e), 0);
    scratch_write(in(state, "a.sha256"), ABC "\n");
    assert_int_equal(outcome(in(state, "a"), &e), 1);
    scratch_write(in(state, "a.sha256"), ABC "  a\n");
    assert_int_equal(outcome(in(state, "a"), &e), 1);
    scratch_write(in(state, "a.sha256"), ABC "  another\n");
    assert_int_equal(outcome(in(state, "a"), &e), 0);
}

static void a_list_in_the_folder_or_above_is_read_by_name(void **state)
{
    struct err e;
    assert_int_equal(mkdir(in(state, "vae"), 0700), 0);
    scratch_write(in(state, "vae/b"), "abc");
    scratch_write(in(state, "c"), "");
    scratch_write(in(state, "SHA256SUMS"),
                  "# comment\n\n" NOTHING " *c\n" ABC "  ./vae/b\n" NOTHING "  b\n");
    assert_int_equal(outcome(in(state, "vae/b"), &e), 1);
    assert_int_equal(outcome(in(state, "c"), &e), 1);
    scratch_write(in(state, "vae/SHA256SUMS"), NOTHING "  b\n"); /* the nearer one counts */
    assert_faulty(in(state, "vae/b"), -EDOM, "vae/SHA256SUMS");
    assert_faulty(in(state, "vae/b"), -EDOM, "has the sha256 " ABC ", but expected is " NOTHING);
}

static void the_hub_s_cache_names_large_files_by_their_sum(void **state)
{
    struct err e;
    assert_int_equal(mkdir(in(state, "blobs"), 0700), 0);
    assert_int_equal(mkdir(in(state, "snapshots"), 0700), 0);
    scratch_write(in(state, "blobs/" ABC), "abc");
    scratch_write(in(state, "blobs/a9993e364706816aba3e25717850c26c9cd0d89d"), "abc");
    assert_int_equal(symlink("../blobs/" ABC, in(state, "snapshots/large")), 0);
    assert_int_equal(
        symlink("../blobs/a9993e364706816aba3e25717850c26c9cd0d89d", in(state, "snapshots/small")),
        0);
    assert_int_equal(outcome(in(state, "snapshots/large"), &e), 1);
    assert_int_equal(outcome(in(state, "snapshots/small"), &e), 0); /* git's, another hash */
    scratch_write(in(state, "blobs/" ABC), "abd");
    assert_faulty(in(state, "snapshots/large"), -EDOM, "fetch it again");
}

static void what_is_no_list_of_sums_is_named_with_its_line(void **state)
{
    scratch_write(in(state, "d"), "abc");
    scratch_write(in(state, "d.sha256"), "\nhello\n");
    assert_faulty(in(state, "d"), -EINVAL, "d.sha256:2: 'hello' is not a sha256");
    scratch_write(in(state, "d.sha256"), ABC "00  d\n");
    assert_faulty(in(state, "d"), -EINVAL, "is not a sha256");
}

int main(void)
{
#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_sum_is_found_beside_its_file),
        IN_FOLDER(a_list_in_the_folder_or_above_is_read_by_name),
        IN_FOLDER(the_hub_s_cache_names_large_files_by_their_sum),
        IN_FOLDER(what_is_no_list_of_sums_is_named_with_its_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
