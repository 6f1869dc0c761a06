/* Every way in which people and programs save a prompt submits it exactly once, and what is no
 * change submits nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../support/mounted.h"

#define DEBOUNCE 250 /* ms */

static struct mounted m;

static int setup(void **state)
{
    (void)state;
    char options[32];
    snprintf(options, sizeof options, "debounce=%d,grace=6000", DEBOUNCE);
    return mounted_start(&m, options);
}

static int teardown(void **state)
{
    (void)state;
    int r = mounted_end(&m, SIGTERM);
    mounted_free(&m);
    return r;
}

/* One way: the command runs in the mount's root, with W for a word that is in the prompt and names
 * the folder image/W. */
struct way {
    const char *name, *needs, *command;
};
static const struct way ways[] = {
    {"echo >", NULL, "mkdir image/W; echo prompt = W >image/W/prompt.ini"},
    {"several commands into one redirection", NULL,
     "mkdir image/W; { echo '# W'; sleep 0.1; echo prompt = W; } >image/W/prompt.ini"},
    {"a slow writer", NULL,
     "mkdir image/W; { echo prompt = W; sleep 0.4; echo ' more'; } >image/W/prompt.ini"},
    {"echo >> twice", NULL,
     "mkdir image/W; echo 'seed = 1' >>image/W/prompt.ini; echo prompt = W >>image/W/prompt.ini"},
    {"cp", NULL, "mkdir image/W; echo prompt = W >../W; cp ../W image/W/prompt.ini"},
    {"cp -r of a prepared folder", NULL,
     "mkdir ../W; echo prompt = W >../W/prompt.ini; head -c 3000000 /dev/zero >../W/ref.bin; "
     "cp -r ../W image/"},
    {"mv of a folder from another filesystem", NULL,
     "mkdir ../W; echo prompt = W >../W/prompt.ini; echo x >../W/ref.txt; mv ../W image/"},
    {"mv of a file from another filesystem", NULL,
     "mkdir image/W; echo prompt = W >../W; mv ../W image/W/prompt.ini"},
    {"mv of a prepared folder inside the mount", NULL,
     "mkdir image/.W; echo prompt = W >image/.W/prompt.ini; mv image/.W image/W"},
    {"a temporary file renamed onto the prompt", NULL,
     "mkdir image/W; echo prompt = W >image/W/.tmp; mv image/W/.tmp image/W/prompt.ini"},
    {"sed -i of a copied template", NULL,
     "mkdir image/W; echo prompt = TEXT >../W; cp ../W image/W/p; sed -i s/TEXT/W/ image/W/p; "
     "mv image/W/p image/W/prompt.ini"},
    {"tee", NULL, "mkdir image/W; echo prompt = W | tee image/W/prompt.ini >/dev/null"},
    {"dd with fsync", NULL,
     "mkdir image/W; echo prompt = W | dd of=image/W/prompt.ini conv=fsync status=none"},
    {"install", NULL,
     "mkdir image/W; echo prompt = W >../W; install -m644 ../W image/W/prompt.ini"},
    {"vim", "vim",
     "mkdir image/W; vim -u NONE -i NONE -es -c 'normal iprompt = W' -c wq image/W/prompt.ini"},
    {"rsync -a", "rsync", "mkdir ../W; echo prompt = W >../W/prompt.ini; rsync -a ../W image/"},
    {"tar x", "tar",
     "mkdir ../W; echo prompt = W >../W/prompt.ini; tar -C .. -c W | tar -C image -x"},
    {"python", "python3",
     "python3 -c \"import os; os.mkdir('image/W'); f = open('image/W/prompt.ini', 'w'); "
     "f.write('prompt = W'); f.flush(); os.fsync(f.fileno()); f.close()\""},
    {"two writers at once", NULL,
     "mkdir image/W; { echo prompt = W; sleep 0.1; } >image/W/prompt.ini & "
     "{ sleep 0.05; echo >>image/W/prompt.ini; sleep 0.2; }; wait"},
    {"mmap", "python3",
     "python3 -c \"import os, mmap; os.mkdir('image/W'); f = open('image/W/prompt.ini', 'w+b'); "
     "f.truncate(10 + len('W')); p = mmap.mmap(f.fileno(), 0); p[:] = b'prompt = W\\n'; p.flush(); "
     "p.close(); f.close()\""},
};

/* W is replaced by `word` where it stands alone. */
static void fill(const char *command, const char *word, char *out, size_t size)
{
    size_t n = 0;
    for (const char *s = command; *s && n + strlen(word) + 1 < size; s++)
        if (*s == 'W')
            n += (size_t)sprintf(out + n, "%s", word);
        else
            out[n++] = *s;
    out[n] = '\0';
}

static bool installed(const char *program)
{
    return !program || shell(&m, "command -v %s >/dev/null", program) == 0;
}

static void every_way_of_saving_submits_exactly_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char word[16], command[1024];
        snprintf(word, sizeof word, "way%02zu", i);
        if (!installed(ways[i].needs)) {
            print_message("%s is not installed\n", ways[i].needs);
            continue;
        }
        fill(ways[i].command, word, command, sizeof command);
        if (shell(&m, "%s", command))
            fail_msg("%s: the command failed: %s", ways[i].name, command);
        char folder[64];
        snprintf(folder, sizeof folder, "image/%s", word);
        const char *status = wait_for(&m, folder);
        if (strcmp(status, "done"))
            fail_msg("%s: %s", ways[i].name, status);
        sleep_ms(3 * DEBOUNCE);
        if (times_drawn(&m, word) != 1)
            fail_msg("%s: drawn %d times", ways[i].name, times_drawn(&m, word));
        assert_true(exists(mounted_path(&m, "%s/image.png", folder)));
    }
}

static void what_is_no_change_submits_nothing(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/same", "prompt = same\n"), 0);
    assert_string_equal(wait_for(&m, "image/same"), "done");
    static const char *const commands[] = {
        "touch image/same/prompt.ini",
        "echo prompt = same >image/same/prompt.ini",
        "chmod 600 image/same/prompt.ini",
        "cp image/same/prompt.ini ../p; cp ../p image/same/prompt.ini",
        "cat image/same/prompt.ini image/same/status image/same/log >/dev/null",
        "mv image/same image/same2; mv image/same2 image/same",
        "mv image/same/prompt.ini image/same/p; mv image/same/p image/same/prompt.ini",
        "mv image/same image/.same; mv image/.same image/same",
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        assert_int_equal(shell(&m, "%s", commands[i]), 0);
        sleep_ms(3 * DEBOUNCE);
        assert_string_equal(wait_for(&m, "image/same"), "done");
        if (times_drawn(&m, "same") != 1)
            fail_msg("drawn again after: %s", commands[i]);
    }
}

static void an_empty_prompt_is_no_job(void **state)
{
    (void)state;
    assert_int_equal(shell(&m, "mkdir image/empty; : >image/empty/prompt.ini"), 0);
    sleep_ms(4 * DEBOUNCE);
    assert_string_equal(read_file(mounted_path(&m, "image/empty/status")), "editing\n");
    assert_memory_equal(wait_for(&m, "image/empty"), "no job", 6);
    assert_false(exists(mounted_path(&m, "image/empty/metadata.json")));
}

static void a_hidden_folder_is_no_job(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/.hidden", "prompt = hidden\n"), 0);
    sleep_ms(4 * DEBOUNCE);
    assert_false(exists(mounted_path(&m, "image/.hidden/status")));
    assert_int_equal(times_drawn(&m, "hidden"), 0);
}

static void an_edit_runs_again_by_whatever_editor(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/edit", "prompt = first\n"), 0);
    assert_string_equal(wait_for(&m, "image/edit"), "done");
    static const struct {
        const char *word, *needs, *command;
    } edits[] = {
        {"second", NULL, "sed -i s/first/second/ image/edit/prompt.ini"},
        {"third", "vim", "vim -u NONE -i NONE -es -c s/second/third/ -c wq image/edit/prompt.ini"},
        {"fourth", NULL, "printf 'prompt = fourth' >image/edit/prompt.ini"},
        {"fifth", NULL, "truncate -s 9 image/edit/prompt.ini; echo fifth >>image/edit/prompt.ini"},
    };
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        if (!installed(edits[i].needs))
            continue;
        assert_int_equal(shell(&m, "%s", edits[i].command), 0);
        assert_string_equal(wait_for(&m, "image/edit"), "done");
        sleep_ms(3 * DEBOUNCE);
        if (times_drawn(&m, edits[i].word) != 1)
            fail_msg("drawn %d times: %s", times_drawn(&m, edits[i].word), edits[i].command);
    }
}

static void a_reference_that_comes_late_is_waited_for(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/ref", "prompt = late\nimage = in.png\n"), 0);
    assert_int_equal(mounted_submit(&m, "image/source", "prompt = source\n"), 0);
    assert_string_equal(wait_for(&m, "image/source"), "done");
    sleep_ms(3 * DEBOUNCE);
    assert_int_equal(shell(&m, "cp image/source/image.png image/ref/in.png"), 0);
    assert_string_equal(wait_for(&m, "image/ref"), "done");
    assert_int_equal(times_drawn(&m, "late"), 1);
}

static void a_reference_that_never_comes_fails_the_job(void **state)
{
    (void)state;
    assert_int_equal(mounted_submit(&m, "image/noref", "prompt = never\nimage = in.png\n"), 0);
    assert_memory_equal(wait_for(&m, "image/noref"), "failed: ", 8);
    assert_non_null(strstr(read_file(mounted_path(&m, "image/noref/error.txt")), "in.png"));
}

/* The shell opens result.txt in the folder before it starts cat: it must not wait for itself. */
static void waiting_with_output_into_the_same_folder_works(void **state)
{
    (void)state;
    assert_int_equal(mkdir(mounted_path(&m, "image/self"), 0755), 0);
    assert_int_equal(shell(&m, "cd image/self && (echo prompt = self >prompt.ini; "
                               "timeout 60 cat wait) >result.txt"),
                     0);
    assert_string_equal(read_file(mounted_path(&m, "image/self/result.txt")), "done\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_of_saving_submits_exactly_once),
        cmocka_unit_test(what_is_no_change_submits_nothing),
        cmocka_unit_test(an_empty_prompt_is_no_job),
        cmocka_unit_test(a_hidden_folder_is_no_job),
        cmocka_unit_test(an_edit_runs_again_by_whatever_editor),
        cmocka_unit_test(a_reference_that_comes_late_is_waited_for),
        cmocka_unit_test(a_reference_that_never_comes_fails_the_job),
        cmocka_unit_test(waiting_with_output_into_the_same_folder_works),
    };
    const char *why = mounted_impossible();
    if (why) {
        printf("ok 1 - # SKIP %s\n", why);
        return 0;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
