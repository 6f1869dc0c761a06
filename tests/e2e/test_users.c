/* Several users on one mount: private folders stay private, results belong to who asked, nobody
 * removes another's job or sees it in the queue. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support/mounted.h"

#define ANNE 12001
#define BERT 12002

static struct mounted m;

static int setup(void **state)
{
    (void)state;
    umask(022);
    return mounted_start(&m, "debounce=30,allow_other");
}

static int teardown(void **state)
{
    (void)state;
    int r = mounted_end(&m, SIGTERM);
    mounted_free(&m);
    return r;
}

/* Runs a shell command in the mount's root as that user; its exit status. */
static int as(uid_t uid, const char *command)
{
    pid_t child = fork();
    if (child == 0) {
        if (setgroups(0, NULL) || setgid(uid) || setuid(uid) || chdir(m.dir))
            _exit(126);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void results_in_a_private_folder_belong_to_its_user_alone(void **state)
{
    (void)state;
    assert_int_equal(as(ANNE, "umask 077; mkdir image/anne; "
                              "echo prompt = secret >image/anne/prompt.ini; "
                              "test \"$(cat image/anne/wait)\" = done"),
                     0);
    struct stat st;
    assert_int_equal(stat(mounted_path(&m, "image/anne/image.png"), &st), 0);
    assert_int_equal(st.st_uid, ANNE);
    assert_int_equal(st.st_gid, ANNE);
    assert_int_equal(st.st_mode & 07777, 0400); /* stays private when it is moved */
    assert_int_equal(as(ANNE, "cat image/anne/image.png >/dev/null"), 0);
    static const char *const forbidden[] = {
        "ls image/anne",          "cat image/anne/status",     "cat image/anne/image.png",
        "cat image/anne/log",     "echo x >image/anne/cancel", "rm -rf image/anne",
        "mv image/anne image/b2",
    };
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
        char command[128];
        snprintf(command, sizeof command, "%s >/dev/null 2>&1", forbidden[i]);
        if (as(BERT, command) == 0)
            fail_msg("another user may: %s", forbidden[i]);
    }
    assert_true(exists(mounted_path(&m, "image/anne/image.png")));
}

static void a_readable_folder_can_be_watched_but_not_cancelled(void **state)
{
    (void)state;
    assert_int_equal(
        as(ANNE, "mkdir image/open; echo 'prompt = o sleep=3000' >image/open/prompt.ini"), 0);
    assert_true(runs(&m, "image/open"));
    assert_int_equal(as(BERT, "cat image/open/status >/dev/null"), 0);
    assert_int_equal(as(BERT, "echo x 2>/dev/null >image/open/cancel") == 0, false);
    assert_int_equal(as(BERT, "test \"$(cat image/open/wait)\" = done"), 0);
}

static void the_queue_shows_only_ones_own_jobs(void **state)
{
    (void)state;
    assert_int_equal(
        as(ANNE, "mkdir image/anneq; echo 'prompt = q sleep=300000' >image/anneq/prompt.ini"), 0);
    assert_true(runs(&m, "image/anneq")); /* the next one is no part of its batch and waits */
    assert_int_equal(
        as(BERT, "mkdir image/bertq; printf 'prompt = r\\nsteps = 3\\n' >image/bertq/prompt.ini"),
        0);
    assert_true(shows(mounted_path(&m, ".omnifs/queue"), "anneq"));
    assert_true(shows(mounted_path(&m, ".omnifs/queue"), "bertq"));
    assert_int_equal(as(ANNE, "grep -q anneq .omnifs/queue"), 0);
    assert_int_equal(as(BERT, "grep -q anneq .omnifs/queue"), 1);
    assert_int_equal(as(BERT, "grep -q bertq .omnifs/queue"), 0);
    assert_int_equal(as(0, "grep -q anneq .omnifs/queue && grep -q bertq .omnifs/queue"), 0);
    /* Sizes are true for each of them. */
    assert_int_equal(as(BERT, "test $(stat -c %s .omnifs/queue) = $(cat .omnifs/queue | wc -c)"),
                     0);
    assert_int_equal(as(ANNE, "echo >image/anneq/cancel; cat image/anneq/wait >/dev/null"), 0);
    assert_int_equal(as(BERT, "cat image/bertq/wait >/dev/null"), 0);
}

static void a_prompt_cannot_show_another_users_private_file(void **state)
{
    (void)state;
    assert_int_equal(as(ANNE, "mkdir -m 777 image/shared; cat image/anne/image.png "
                              ">image/shared/private.png; chmod 600 image/shared/private.png"),
                     0);
    assert_int_equal(as(BERT, "printf 'prompt = peek\\nimage = private.png\\n' "
                              ">image/shared/prompt.ini; cat image/shared/wait | grep -q failed"),
                     0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_in_a_private_folder_belong_to_its_user_alone),
        cmocka_unit_test(a_readable_folder_can_be_watched_but_not_cancelled),
        cmocka_unit_test(the_queue_shows_only_ones_own_jobs),
        cmocka_unit_test(a_prompt_cannot_show_another_users_private_file),
    };
    const char *why = mounted_impossible();
    if (why) {
        printf("ok 1 - # SKIP %s\n", why);
        return 0;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
