/* What is said of the machine's GPUs: over a library that stands in for the driver's, without one,
 * and over one that fails. The library is opened once a process: every test is a process. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/gpus.h"

/* gpus_read in a process of its own; the answer is the code, then driver and devices or the error's
 * text. */
static void read_with(const char *library, const char *mood, char *said, size_t size)
{
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct gpus g;
        struct err e = {0};
        char line[512];
        setenv("OMNIFS_NVML", library, 1);
        setenv("FAKE_NVML", mood, 1);
        int rc = gpus_read(&g, &e);
        FILE *out = fdopen(pipes[1], "w");
        fprintf(out, "%d %s\n", rc, rc ? e.text : g.driver);
        for (int i = 0; i < g.count; i++) {
            gpu_describe(&g.list[i], line, sizeof(line));
            fprintf(out, "%s\n", line);
        }
        fclose(out);
        _exit(0);
    }
    close(pipes[1]);
    size_t n = 0;
    for (ssize_t got; (got = read(pipes[0], said + n, size - 1 - n)) > 0;)
        n += (size_t)got;
    said[n] = '\0';
    close(pipes[0]);
    waitpid(child, NULL, 0);
}

static void names_memory_and_load_are_the_drivers_and_a_silent_gpu_is_shown_too(void **state)
{
    char said[1024];
    (void)state;
    read_with(FAKE_NVML_LIBRARY, "", said, sizeof(said));
    assert_string_equal(said, "0 580.95.05\n"
                              "NVIDIA H200, 12.9 GB of 150 GB used, 37 % busy\n"
                              "a GPU that does not answer\n");
}

static void a_machine_without_a_driver_is_told_apart_from_one_whose_driver_fails(void **state)
{
    char said[1024], want[64];
    (void)state;
    read_with("libnone-of-the-kind.so.1", "", said, sizeof(said));
    snprintf(want, sizeof(want), "%d there is no NVIDIA driver that can be asked: libnone",
             -ENODEV);
    assert_memory_equal(said, want, strlen(want));
    read_with(FAKE_NVML_LIBRARY, "broken", said, sizeof(said));
    snprintf(want, sizeof(want), "%d the NVIDIA driver does not answer: Driver/library version",
             -EIO);
    assert_memory_equal(said, want, strlen(want));
    read_with(FAKE_NVML_LIBRARY, "uncounted", said, sizeof(said));
    snprintf(want, sizeof(want), "%d the NVIDIA driver does not count its GPUs: GPU is lost", -EIO);
    assert_memory_equal(said, want, strlen(want));
    read_with("libz.so.1", "", said, sizeof(said)); /* some library, of another kind */
    snprintf(want, sizeof(want), "%d libz.so.1 has no nvmlInit_v2", -EIO);
    assert_memory_equal(said, want, strlen(want));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_memory_and_load_are_the_drivers_and_a_silent_gpu_is_shown_too),
        cmocka_unit_test(a_machine_without_a_driver_is_told_apart_from_one_whose_driver_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
