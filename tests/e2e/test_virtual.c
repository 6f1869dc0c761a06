/* The virtual files of a job folder and of .omnifs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support/mounted.h"

static struct mounted m;

static int setup(void **state)
{
    (void)state;
    return mounted_start(&m, "debounce=30");
}

static int teardown(void **state)
{
    (void)state;
    int r = mounted_end(&m, SIGTERM);
    mounted_free(&m);
    return r;
}

static bool listed(const char *folder, const char *name)
{
    DIR *d = opendir(mounted_path(&m, "%s", folder));
    assert_non_null(d);
    bool found = false;
    for (struct dirent *e; (e = readdir(d));)
        found |= !strcmp(e->d_name, name);
    closedir(d);
    return found;
}

static void status_log_and_json_are_listed_wait_and_cancel_are_not(void **state)
{
    (void)state;
    assert_int_equal(mkdir(mounted_path(&m, "image/list"), 0755), 0);
    static const char *const shown[] = {"status", "status.json", "log"};
    static const char *const hidden[] = {"wait", "cancel"};
    for (int i = 0; i < 3; i++)
        assert_true(listed("image/list", shown[i]));
    for (int i = 0; i < 2; i++) {
        assert_false(listed("image/list", hidden[i]));
        assert_true(exists(mounted_path(&m, "image/list/%s", hidden[i])));
    }
    assert_false(exists(mounted_path(&m, "image/status")));
    assert_false(exists(mounted_path(&m, "image/list/statuses")));
}

static void sizes_are_true(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/size", "prompt = size\n"), 0);
    assert_string_equal(wait_for(&m, "image/size"), "done");
    static const char *const names[] = {
        "image/size/status", "image/size/status.json", "image/size/log", "image/size/wait",
        "README.txt",        ".omnifs/queue",          ".omnifs/limits", ".omnifs/profiles"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct stat st;
        assert_int_equal(stat(mounted_path(&m, "%s", names[i]), &st), 0);
        const char *text = read_file(mounted_path(&m, "%s", names[i]));
        if ((size_t)st.st_size != strlen(text))
            fail_msg("%s: stat says %lld, there are %zu bytes", names[i], (long long)st.st_size,
                     strlen(text));
    }
    assert_string_equal(read_file(mounted_path(&m, "image/size/status")), "done\n");
}

static void common_tools_read_wait(void **state)
{
    (void)state;
    static const char *const tools[] = {
        "test \"$(cat image/T/wait)\" = done",
        "test \"$(head -n1 image/T/wait)\" = done",
        "test \"$(tail -n1 image/T/wait)\" = done",
        "grep -q '^done$' image/T/wait",
        "read line <image/T/wait; test \"$line\" = done",
        "test \"$(dd if=image/T/wait bs=1 count=4 status=none)\" = done",
        "test \"$(python3 -c \"print(open('image/T/wait').read(), end='')\")\" = done",
        "cp image/T/wait ../copy && test \"$(cat ../copy)\" = done",
    };
    for (size_t i = 0; i < sizeof tools / sizeof *tools; i++) {
        char folder[32], command[256];
        snprintf(folder, sizeof folder, "image/wait%zu", i);
        assert_int_equal(mounted_submit(&m, folder, "prompt = wait sleep=150\n"), 0);
        const char *t = strstr(tools[i], "image/T");
        snprintf(command, sizeof command, "%.*s%s%s", (int)(t - tools[i]), tools[i], folder,
                 t + strlen("image/T"));
        if (shell(&m, "%s", command))
            fail_msg("while the job runs: %s", command);
        if (shell(&m, "%s", command))
            fail_msg("after the job: %s", command);
    }
}

static void *reader(void *arg)
{
    *(const char **)arg = NULL;
    const char *line = wait_for(&m, "image/many");
    return strcmp(line, "done") ? (void *)1 : NULL;
}

static void many_readers_of_wait_are_all_answered(void **state)
{
    (void)state;
    pthread_t threads[64];
    const char *lines[64];
    assert_int_equal(mounted_submit(&m, "image/many", "prompt = many sleep=500\n"), 0);
    struct watchdog *w = watchdog_begin(&m, 60);
    for (int i = 0; i < 64; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reader, &lines[i]), 0);
    /* The mount answers others meanwhile. */
    assert_int_equal(shell(&m, "ls -l image/many >/dev/null && cat image/many/status >/dev/null"),
                     0);
    for (int i = 0; i < 64; i++) {
        void *wrong = NULL;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    assert_true(watchdog_end(w));
}

static void a_signal_interrupts_wait(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/int", "prompt = int sleep=300000\n"), 0);
    /* timeout(1) exits with 124 when the time was over. */
    assert_int_equal(shell(&m, "timeout -s INT 0.3 cat image/int/wait"), 124);
    assert_int_equal(shell(&m, "timeout -s TERM 0.3 cat image/int/wait"), 124);
    assert_int_equal(shell(&m, "echo >image/int/cancel"), 0);
    assert_string_equal(wait_for(&m, "image/int"), "cancelled");
}

static void cancel_ends_a_running_job(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/cancel", "prompt = c sleep=300000\n"), 0);
    assert_true(runs(&m, "image/cancel"));
    /* Opening alone does nothing. */
    close(open(mounted_path(&m, "image/cancel/cancel"), O_WRONLY | O_TRUNC));
    sleep_ms(100);
    assert_memory_equal(read_file(mounted_path(&m, "image/cancel/status")), "running", 7);
    assert_int_equal(write_file(mounted_path(&m, "image/cancel/cancel"), "x"), 0);
    assert_string_equal(wait_for(&m, "image/cancel"), "cancelled");
    assert_non_null(strstr(read_file(mounted_path(&m, "image/cancel/metadata.json")), "cancelled"));
    assert_false(exists(mounted_path(&m, "image/cancel/image.png")));
}

static void cancel_right_after_saving_cancels(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/early", "prompt = early sleep=300000\n"), 0);
    assert_int_equal(write_file(mounted_path(&m, "image/early/cancel"), "x"), 0);
    assert_string_equal(wait_for(&m, "image/early"), "cancelled");
}

static void copying_tools_neither_block_nor_fail(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/src", "prompt = src\n"), 0);
    assert_string_equal(wait_for(&m, "image/src"), "done");
    /* A copy is a job of its own, whose results may appear while the tool still writes there: it is
     * made under a hidden name, and the job has ended before its folder is used. */
    assert_int_equal(shell(&m, "timeout 60 cp -rp image/src image/.dst && mv image/.dst image/dst"),
                     0);
    assert_string_equal(wait_for(&m, "image/dst"), "done");
    static const char *const commands[] = {
        "timeout 60 cp -r image/src ../out && test -s ../out/status",
        "timeout 60 grep -r src image/src >/dev/null",
        "timeout 60 tar -C image -cf ../x.tar src && timeout 60 tar -C image/dst -xf ../x.tar "
        "--strip-components=1",
        "timeout 60 rsync -a image/src/ ../out/ && timeout 60 rsync -a ../out/ image/dst/",
        "timeout 60 cat image/dst/wait >/dev/null",
        "timeout 60 find image -name status -exec stat {} + >/dev/null",
        "echo x >image/src/status && test \"$(cat image/src/status)\" = done",
        "rm image/src/status && test -e image/src/status",
        "rm -r image/dst && test ! -e image/dst",
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (shell(&m, "%s", commands[i]))
            fail_msg("%s", commands[i]);
}

static void status_tells_editing_then_the_jobs_states(void **state)
{
    (void)state;
    assert_int_equal(mkdir(mounted_path(&m, "image/s"), 0755), 0);
    char status[PATH_MAX];
    snprintf(status, sizeof status, "%s", mounted_path(&m, "image/s/status"));
    assert_string_equal(read_file(status), "editing\n");
    int fd = open(mounted_path(&m, "image/s/prompt.ini"), O_WRONLY | O_CREAT, 0644);
    assert_int_equal(write(fd, "prompt = s sleep=2000\n", 22), 22);
    assert_string_equal(read_file(status), "editing\n");
    assert_int_equal(close(fd), 0);
    char last[64] = "";
    bool ran = false;
    for (double end = now() + 60; now() < end && strcmp(last, "done\n"); sleep_ms(5)) {
        snprintf(last, sizeof last, "%.60s", read_file(status));
        ran |= !strncmp(last, "running ", 8);
    }
    assert_string_equal(last, "done\n");
    assert_true(ran);
    assert_non_null(strstr(read_file(mounted_path(&m, "image/s/status.json")), "done"));
}

static void poll_wakes_at_changes_and_reading_again_shows_them(void **state)
{
    (void)state;
    assert_int_equal(mkdir(mounted_path(&m, "image/poll"), 0755), 0);
    int fd = open(mounted_path(&m, "image/poll/status"), O_RDONLY | O_CLOEXEC);
    char text[256] = "";
    assert_true(pread(fd, text, sizeof text - 1, 0) > 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_int_equal(mounted_submit(&m, "image/poll", "prompt = poll sleep=2000\n"), 0);
    int wakes = 0;
    for (double end = now() + 60; now() < end && strncmp(text, "done", 4);) {
        wakes += poll(&p, 1, 10000) > 0;
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        assert_true(n > 0);
        text[n] = '\0';
    }
    close(fd);
    assert_memory_equal(text, "done", 4);
    assert_true(wakes >= 2);

    fd = open(mounted_path(&m, "image/poll/wait"), O_RDONLY | O_CLOEXEC);
    p.fd = fd;
    assert_int_equal(poll(&p, 1, 60000), 1);
    close(fd);
}

static void log_grows_under_tail(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/log", "prompt = log sleep=600\n"), 0);
    assert_int_equal(shell(&m, "(timeout 60 tail -n +1 -s 0.1 -f image/log/log >../log.txt & "
                               "cat image/log/wait >/dev/null; i=0; "
                               "until cmp -s ../log.txt image/log/log || [ $((i += 1)) -gt 500 ]; "
                               "do sleep 0.1; done; kill $!; wait $! 2>/dev/null; true)"),
                     0);
    char seen[4096];
    snprintf(seen, sizeof seen, "%s/log.txt", m.scratch);
    assert_string_equal(read_file(seen), read_file(mounted_path(&m, "image/log/log")));
    assert_true(strlen(read_file(seen)) > 0);
}

static void reports_and_readme_are_read_only(void **state)
{
    (void)state;
    assert_int_equal(open(mounted_path(&m, "README.txt"), O_WRONLY), -1);
    assert_int_equal(open(mounted_path(&m, ".omnifs/queue"), O_WRONLY), -1);
    assert_int_equal(mkdir(mounted_path(&m, ".omnifs/x"), 0755), -1);
    assert_int_equal(unlink(mounted_path(&m, "README.txt")), -1);
    assert_int_equal(atoi(read_file(mounted_path(&m, ".omnifs/pid"))), m.daemon);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_log_and_json_are_listed_wait_and_cancel_are_not),
        cmocka_unit_test(sizes_are_true),
        cmocka_unit_test(common_tools_read_wait),
        cmocka_unit_test(many_readers_of_wait_are_all_answered),
        cmocka_unit_test(a_signal_interrupts_wait),
        cmocka_unit_test(cancel_ends_a_running_job),
        cmocka_unit_test(cancel_right_after_saving_cancels),
        cmocka_unit_test(copying_tools_neither_block_nor_fail),
        cmocka_unit_test(status_tells_editing_then_the_jobs_states),
        cmocka_unit_test(poll_wakes_at_changes_and_reading_again_shows_them),
        cmocka_unit_test(log_grows_under_tail),
        cmocka_unit_test(reports_and_readme_are_read_only),
    };
    const char *why = mounted_impossible();
    if (why) {
        printf("ok 1 - # SKIP %s\n", why);
        return 0;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
