/* The commands mount and umount: what they refuse, when they return, what a dead mount costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support/mounted.h"

static struct mounted m; /* its scratch folder; the daemon is started by commands */
static char registry[PATH_MAX / 2];

static int setup(void **state)
{
    (void)state;
    memset(&m, 0, sizeof m);
    if (mounted_start(&m, NULL) || mounted_end(&m, SIGTERM))
        return -1;
    snprintf(registry, sizeof registry, "%s/registry.ini", m.scratch);
    char command[2 * PATH_MAX];
    snprintf(command, sizeof command, "cp tests/e2e/registry.ini '%s'", registry);
    return system(command);
}

static int teardown(void **state)
{
    (void)state;
    char command[2 * PATH_MAX];
    snprintf(command, sizeof command, "'%s' umount '%s' >/dev/null 2>&1",
             test_program("omnifs_stub"), m.dir);
    if (system(command))
        errno = 0; /* most tests have unmounted already */
    mounted_free(&m);
    return 0;
}

/* `omnifs …` in the scratch folder; stdout and stderr into *said (a ring buffer). OMNIFS_STUB_LOG
 * and the registry are set. */
static int omnifs(const char **said, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int omnifs(const char **said, const char *fmt, ...)
{
    char arguments[2048], command[3 * PATH_MAX], out[PATH_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(arguments, sizeof arguments, fmt, ap);
    va_end(ap);
    snprintf(out, sizeof out, "%s/said", m.scratch);
    snprintf(command, sizeof command,
             "cd '%s' && OMNIFS_STUB_LOG='%s' OMNIFS_REGISTRY='%s' '%s' %s >said 2>&1", m.scratch,
             m.drawn, registry, test_program("omnifs_stub"), arguments);
    int status = system(command);
    *said = read_file(out);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* A daemon that has ended but was not yet reaped by init counts as gone. */
static bool alive(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    const char *stat = read_file(path), *state = strrchr(stat, ')');
    return state && state[2] != 'Z' && state[2] != 'X';
}

static void assert_says(const char *said, const char *word)
{
    if (!strstr(said, word))
        fail_msg("expected “%s” in: %s", word, said);
}

static void mount_returns_when_the_mount_answers_and_umount_when_the_daemon_is_gone(void **state)
{
    (void)state;
    const char *said;
    double begun = now();
    assert_int_equal(omnifs(&said, "mount store mnt -o debounce=30"), 0);
    print_message("mount took %.0f ms\n", (now() - begun) * 1000);
    assert_true(exists(mounted_path(&m, "image")));
    pid_t daemon = atoi(read_file(mounted_path(&m, ".omnifs/pid")));
    assert_true(alive(daemon));
    assert_int_equal(mounted_submit(&m, "image/a", "prompt = a\n"), 0);
    assert_string_equal(wait_for(&m, "image/a"), "done");
    assert_int_equal(omnifs(&said, "umount mnt"), 0);
    assert_false(alive(daemon));
    assert_false(exists(mounted_path(&m, "image")));
    /* The same store can be mounted at once. */
    for (int i = 0; i < 5; i++) {
        assert_int_equal(omnifs(&said, "mount store mnt"), 0);
        assert_true(exists(mounted_path(&m, "image/a/image.png")));
        assert_int_equal(omnifs(&said, "umount mnt"), 0);
    }
}

static void umount_lets_a_running_job_finish(void **state)
{
    (void)state;
    const char *said;
    assert_int_equal(omnifs(&said, "mount store mnt -o debounce=30,timeout=60"), 0);
    assert_int_equal(mounted_submit(&m, "image/b", "prompt = b sleep=2000\n"), 0);
    assert_true(runs(&m, "image/b"));
    assert_int_equal(omnifs(&said, "umount mnt"), 0);
    assert_int_equal(omnifs(&said, "mount store mnt"), 0);
    assert_true(exists(mounted_path(&m, "image/b/image.png")));
    assert_int_equal(times_drawn(&m, "b sleep"), 1);
}

static void mistakes_are_explained_in_one_sentence(void **state)
{
    (void)state;
    char full[PATH_MAX];
    snprintf(full, sizeof full, "%s/full", m.scratch);
    assert_int_equal(mkdir(full, 0755), 0);
    snprintf(full, sizeof full, "%s/full/file", m.scratch);
    assert_int_equal(write_file(full, "x"), 0);
    static const struct {
        const char *arguments;
        int code;
        const char *words;
    } mistakes[] = {
        {"mount", 2, "where to?"},
        {"mount a b c", 2, "too many"},
        {"mount store mnt -o debonce=5", 2, "did you mean debounce?"},
        {"mount store mnt -o debounce=soon", 2, "debounce=soon"},
        {"mount store mnt -o timeout=-1", 2, "timeout=-1"},
        {"mount store nowhere", 1, "mkdir"},
        {"mount store full", 1, "nonempty"},
        {"mount store full/file", 1, "not a folder"},
        {"mount store store", 1, "contain each other"},
        {"mount store mnt -o registry=said", 1, "said"},
        {"umount mnt", 1, "nothing is mounted"},
        {"umount /proc", 1, "proc"},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        const char *said;
        int code = omnifs(&said, "%s", mistakes[i].arguments);
        if (code != mistakes[i].code)
            fail_msg("%s: exit %d: %s", mistakes[i].arguments, code, said);
        assert_says(said, mistakes[i].words);
        assert_true(strchr(said, '\n') == said + strlen(said) - 1); /* one line */
    }
}

static void a_mount_in_use_is_refused_twice(void **state)
{
    (void)state;
    const char *said;
    assert_int_equal(omnifs(&said, "mount store mnt"), 0);
    assert_int_equal(omnifs(&said, "mount store mnt"), 1);
    assert_says(said, "already mounted");
    char other[PATH_MAX];
    snprintf(other, sizeof other, "%s/other", m.scratch);
    assert_int_equal(mkdir(other, 0755), 0);
    assert_int_equal(omnifs(&said, "mount store other"), 1); /* the store is taken */
    assert_says(said, "store");
}

/* The mount's daemon is gone. */
static bool dies(void)
{
    struct stat st;
    for (double end = now() + 60; now() < end; sleep_ms(10))
        if (stat(m.dir, &st))
            return errno == ENOTCONN;
    return false;
}

static void the_mount_of_a_killed_daemon_is_replaced(void **state)
{
    (void)state;
    const char *said;
    assert_int_equal(omnifs(&said, "mount store mnt"), 0);
    pid_t daemon = atoi(read_file(mounted_path(&m, ".omnifs/pid")));
    assert_int_equal(kill(daemon, SIGKILL), 0);
    assert_true(dies());
    assert_int_equal(omnifs(&said, "mount store mnt"), 0);
    assert_true(exists(mounted_path(&m, "image")));
    assert_int_equal(kill(atoi(read_file(mounted_path(&m, ".omnifs/pid"))), SIGKILL), 0);
    assert_true(dies());
    assert_int_equal(omnifs(&said, "umount mnt"), 0); /* and umount takes a dead one away */
    struct stat st;
    assert_int_equal(stat(m.dir, &st), 0);
}

static void fstab_options_are_accepted(void **state)
{
    (void)state;
    const char *said;
    assert_int_equal(omnifs(&said, "mount store mnt -o rw,nosuid,nodev,noexec,noatime,_netdev,"
                                   "nofail,x-systemd.automount,defaults,allow_other"),
                     0);
    char info[8192];
    int fd = open("/proc/self/mountinfo", O_RDONLY);
    bool found = false;
    FILE *f = fdopen(fd, "r");
    while (fgets(info, sizeof info, f))
        if (strstr(info, m.dir)) {
            found = true;
            assert_says(info, "noexec");
            assert_says(info, "fuse.omnifs");
            assert_says(info, m.store);
            assert_says(info, "default_permissions");
        }
    fclose(f);
    assert_true(found);
}

static void the_service_manager_is_told(void **state)
{
    (void)state;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%.90s/notify", m.scratch);
    int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof a), 0);
    setenv("NOTIFY_SOCKET", a.sun_path, 1);
    assert_int_equal(mounted_start(&m, NULL), 0);
    unsetenv("NOTIFY_SOCKET");
    char word[64] = "";
    struct pollfd p = {.fd = s, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 60000), 1);
    assert_true(read(s, word, sizeof word - 1) > 0);
    assert_string_equal(word, "READY=1");
    assert_int_equal(mounted_end(&m, SIGINT), 0);
    memset(word, 0, sizeof word);
    assert_int_equal(poll(&p, 1, 60000), 1);
    assert_true(read(s, word, sizeof word - 1) > 0);
    assert_string_equal(word, "STOPPING=1");
    close(s);
}

static bool profile_appears(const char *name)
{
    return shows(mounted_path(&m, ".omnifs/profiles"), name);
}

static void a_changed_registry_is_read_again_and_a_bad_one_refused(void **state)
{
    (void)state;
    const char *said;
    char command[3 * PATH_MAX];
    assert_int_equal(omnifs(&said, "mount store mnt -o debounce=30,registry=registry.ini"), 0);
    snprintf(command, sizeof command,
             "printf '[extra]\\nomni_model_id = omni-mini\\nmodality = image\\n' >>'%s'", registry);
    assert_int_equal(system(command), 0);
    assert_true(profile_appears("extra"));
    snprintf(command, sizeof command, "echo nonsense >>'%s'", registry);
    assert_int_equal(system(command), 0);
    sleep_ms(200);
    assert_true(profile_appears("extra")); /* the old one stays in force */
    assert_int_equal(mounted_submit(&m, "image/r", "prompt = r\nprofile = extra\nsize = 64x64\n"),
                     0);
    assert_string_equal(wait_for(&m, "image/r"), "done");
    /* An editor replaces the file. */
    snprintf(command, sizeof command,
             "sed -e '/nonsense/d' -e 's/extra/other/' '%s' >'%s.new' && mv '%s.new' '%s'",
             registry, registry, registry, registry);
    assert_int_equal(system(command), 0);
    assert_true(profile_appears("other"));
    assert_int_equal(kill(atoi(read_file(mounted_path(&m, ".omnifs/pid"))), SIGHUP), 0);
    sleep_ms(100);
    assert_true(profile_appears("other"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(mount_returns_when_the_mount_answers_and_umount_when_the_daemon_is_gone),
        TEST(umount_lets_a_running_job_finish),
        TEST(mistakes_are_explained_in_one_sentence),
        TEST(a_mount_in_use_is_refused_twice),
        TEST(the_mount_of_a_killed_daemon_is_replaced),
        TEST(fstab_options_are_accepted),
        TEST(the_service_manager_is_told),
        TEST(a_changed_registry_is_read_again_and_a_bad_one_refused),
    };
    const char *why = mounted_impossible();
    if (why) {
        printf("ok 1 - # SKIP %s\n", why);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
