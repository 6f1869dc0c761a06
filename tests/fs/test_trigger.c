/* The trigger alone, over a tree and jobs of a few lines, with short times: which events submit,
 * when, and how often. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../support/mounted.h"
#include "base/clock.h"
#include "fs/fs.h"

#define DEBOUNCE 60 /* ms */
#define GRACE    300
#define PATIENCE 60000 /* ms that a busy machine may need */
#define FOLDER   (TREE_FIRST_ID + 1)
#define PROMPT   (TREE_FIRST_ID + 2)

/* ---- the world as the trigger sees it ---- */

static struct {
    pthread_mutex_t lock;
    char prompt[256]; /* "" and no file when absent */
    bool no_prompt, gone, moved_out;
    enum submit_result answer;
    int error; /* of jobs_submit */
    int submissions, finals, cancels, forgets, changes;
    double last_submission;
    int64_t last_folder;
    int wait_until_final;                      /* answer SUBMIT_WAIT until asked finally */
    int64_t prompt_changed_ms, job_created_ms; /* 0: no job */
} world = {.lock = PTHREAD_MUTEX_INITIALIZER};

int tree_get(struct tree *t, int64_t id, struct node *out)
{
    (void)t;
    pthread_mutex_lock(&world.lock);
    *out = (struct node){.id = id, .parent = world.moved_out ? TREE_FIRST_ID : TREE_IMAGE};
    out->st.st_mode = S_IFDIR | 0755;
    strcpy(out->name, "job");
    bool gone = world.gone;
    pthread_mutex_unlock(&world.lock);
    return gone ? -ESTALE : 0;
}

int tree_lookup(struct tree *t, int64_t parent, const char *name, struct node *out)
{
    (void)t;
    assert_string_equal(name, "prompt.ini");
    pthread_mutex_lock(&world.lock);
    *out = (struct node){.id = PROMPT, .parent = parent};
    out->st.st_mode = S_IFREG | 0644;
    out->st.st_size = (off_t)strlen(world.prompt);
    out->st.st_ctim.tv_sec = world.prompt_changed_ms / 1000;
    bool none = world.no_prompt;
    pthread_mutex_unlock(&world.lock);
    return none ? -ENOENT : 0;
}

int tree_open_data(struct tree *t, int64_t id, int flags)
{
    (void)t;
    (void)flags;
    assert_int_equal(id, PROMPT);
    int fd = memfd_create("prompt", MFD_CLOEXEC);
    pthread_mutex_lock(&world.lock);
    assert_int_equal(pwrite(fd, world.prompt, strlen(world.prompt), 0), strlen(world.prompt));
    pthread_mutex_unlock(&world.lock);
    return fd;
}

int tree_list(struct tree *t, int64_t parent, int64_t after,
              bool (*each)(void *ctx, const struct node *n), void *ctx)
{
    (void)after;
    struct node n;
    if (parent == TREE_IMAGE && !tree_get(t, FOLDER, &n))
        each(ctx, &n);
    return 0;
}

int jobs_submit(struct jobs *j, const struct job_submission *s, enum submit_result *result,
                struct err *e)
{
    (void)j;
    pthread_mutex_lock(&world.lock);
    assert_int_equal(s->size, strlen(world.prompt));
    assert_string_equal(s->text, world.prompt);
    world.submissions++;
    world.finals += s->final;
    world.last_submission = clock_seconds();
    world.last_folder = s->folder;
    *result = !s->size                              ? SUBMIT_EMPTY
              : world.wait_until_final && !s->final ? SUBMIT_WAIT
                                                    : world.answer;
    int r = world.error;
    pthread_mutex_unlock(&world.lock);
    return r ? err_set(e, r, "the store fails") : 0;
}

int jobs_view(struct jobs *j, int64_t folder, struct job_view *out)
{
    (void)j;
    memset(out, 0, sizeof *out);
    out->folder = folder;
    pthread_mutex_lock(&world.lock);
    out->created_ms = world.job_created_ms;
    pthread_mutex_unlock(&world.lock);
    return out->created_ms ? 0 : -ENOENT;
}
bool job_state_final(enum job_state s)
{
    return s >= JOB_DONE;
}
static void count(int *n)
{
    pthread_mutex_lock(&world.lock);
    ++*n;
    pthread_mutex_unlock(&world.lock);
}
void jobs_cancel(struct jobs *j, int64_t folder)
{
    (void)j;
    (void)folder;
    count(&world.cancels);
}
void jobs_forget(struct jobs *j, int64_t folder)
{
    (void)j;
    (void)folder;
    count(&world.forgets);
}
void virtual_changed(struct fs *fs, int64_t folder)
{
    (void)fs;
    (void)folder;
    count(&world.changes);
}

static int get(const int *n)
{
    pthread_mutex_lock(&world.lock);
    int v = *n;
    pthread_mutex_unlock(&world.lock);
    return v;
}

#define SET(field, value)                                                                          \
    do {                                                                                           \
        pthread_mutex_lock(&world.lock);                                                           \
        world.field = value;                                                                       \
        pthread_mutex_unlock(&world.lock);                                                         \
    } while (0)

/* ---- fixture ---- */

static struct fs fs;

/* Starts the trigger anew, with other times. */
static void begin_with(int debounce, int grace)
{
    trigger_free(&fs);
    fs.options = (struct fs_options){.debounce_ms = debounce, .grace_ms = grace};
    assert_int_equal(trigger_new(&fs), 0);
}

static int setup(void **state)
{
    (void)state;
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    memset(&world, 0, sizeof world);
    world.lock = lock;
    strcpy(world.prompt, "prompt = a cat");
    world.job_created_ms = 2000; /* nothing to catch up with at the start */
    world.prompt_changed_ms = 1000;
    memset(&fs, 0, sizeof fs);
    fs.options = (struct fs_options){.debounce_ms = DEBOUNCE, .grace_ms = GRACE};
    return trigger_new(&fs);
}

static int teardown(void **state)
{
    (void)state;
    trigger_free(&fs);
    return 0;
}

static void event(enum trigger_event ev)
{
    trigger_event(&fs, FOLDER, ev);
}

/* As the mount tells it when a program saves prompt.ini. */
static void save(void)
{
    event(TRIGGER_WRITE_OPEN);
    event(TRIGGER_DIRTY);
    event(TRIGGER_ARMED);
    event(TRIGGER_WRITE_CLOSED);
}

/* Waits until *n reaches `want`; what it is then. */
static int reaches(const int *n, int want, int ms)
{
    for (double end = now() + ms / 1000.0; now() < end && get(n) < want; sleep_ms(2))
        ;
    return get(n);
}

/* Waits until nothing is pending any more. */
static bool settles(void)
{
    bool armed;
    for (double end = now() + PATIENCE / 1000.0; now() < end; sleep_ms(2))
        if (!trigger_pending(&fs, FOLDER, &armed))
            return true;
    return false;
}

/* ---- tests ---- */

static void a_saved_prompt_is_submitted_once_after_the_quiet_time(void **state)
{
    (void)state;
    double saved = clock_seconds();
    save();
    assert_int_equal(reaches(&world.submissions, 1, PATIENCE), 1);
    assert_true(world.last_submission - saved >= DEBOUNCE / 1000.0 - 0.001);
    assert_int_equal(world.last_folder, FOLDER);
    sleep_ms(3 * DEBOUNCE);
    assert_int_equal(get(&world.submissions), 1);
    assert_true(settles());
}

static void writing_is_editing_and_closed_is_armed(void **state)
{
    (void)state;
    bool armed = true;
    begin_with(DEBOUNCE, 100 * GRACE);
    assert_false(trigger_pending(&fs, FOLDER, &armed));
    event(TRIGGER_WRITE_OPEN);
    assert_false(trigger_pending(&fs, FOLDER, &armed));
    event(TRIGGER_DIRTY);
    assert_true(trigger_pending(&fs, FOLDER, &armed));
    assert_false(armed);
    event(TRIGGER_ARMED);
    assert_true(trigger_pending(&fs, FOLDER, &armed));
    assert_true(armed);
    sleep_ms(2 * DEBOUNCE); /* still open: nothing is submitted */
    assert_int_equal(get(&world.submissions), 0);
    event(TRIGGER_WRITE_CLOSED);
    assert_int_equal(reaches(&world.submissions, 1, PATIENCE), 1);
}

static void references_that_follow_the_prompt_restart_the_quiet_time(void **state)
{
    (void)state;
    enum { QUIET = 1500 }; /* a busy machine must not be late by so much */
    begin_with(QUIET, 20 * QUIET);
    save();
    for (int i = 0; i < 8; i++) { /* cp -r of a prepared folder */
        sleep_ms(QUIET / 6);
        event(TRIGGER_WRITE_OPEN);
        event(TRIGGER_TOUCHED);
        event(TRIGGER_WRITE_CLOSED);
    }
    double touched = clock_seconds();
    assert_int_equal(reaches(&world.submissions, 1, PATIENCE), 1);
    assert_true(world.last_submission - touched >= QUIET / 1000.0 - 0.5);
}

static void a_file_left_open_holds_the_job_back_only_for_the_grace_time(void **state)
{
    (void)state;
    event(TRIGGER_WRITE_OPEN); /* > job/result.txt */
    save();
    double saved = clock_seconds();
    assert_int_equal(reaches(&world.submissions, 1, PATIENCE), 1);
    assert_true(world.last_submission - saved >= GRACE / 1000.0 - 0.001);
    assert_true(settles()); /* reading `wait` waits for the job only */
}

static void fsync_submits_although_a_writer_is_open(void **state)
{
    (void)state;
    event(TRIGGER_WRITE_OPEN);
    event(TRIGGER_DIRTY);
    event(TRIGGER_SYNCED); /* an NFS server keeps the file open for seconds */
    assert_int_equal(reaches(&world.submissions, 1, PATIENCE), 1);
    event(TRIGGER_ARMED);
    event(TRIGGER_WRITE_CLOSED);
    assert_int_equal(reaches(&world.submissions, 2, PATIENCE), 2); /* told apart by its content */
}

static void opening_and_touching_submit_nothing(void **state)
{
    (void)state;
    event(TRIGGER_TOUCHED);
    event(TRIGGER_WRITE_OPEN);
    event(TRIGGER_TOUCHED);
    event(TRIGGER_WRITE_CLOSED);
    event(TRIGGER_WRITE_CLOSED); /* one too many */
    sleep_ms(3 * DEBOUNCE);
    assert_int_equal(get(&world.submissions), 0);
}

static void a_folder_moved_into_place_is_submitted(void **state)
{
    (void)state;
    event(TRIGGER_MOVED_IN);
    assert_int_equal(reaches(&world.submissions, 1, PATIENCE), 1);
}

static void a_folder_without_prompt_is_no_job(void **state)
{
    (void)state;
    SET(no_prompt, true);
    event(TRIGGER_MOVED_IN);
    assert_int_equal(reaches(&world.changes, 1, PATIENCE),
                     1); /* looked at, and parked readers told */
    assert_int_equal(get(&world.submissions), 0);
}

static void missing_references_are_asked_for_until_the_grace_time_ends(void **state)
{
    (void)state;
    SET(wait_until_final, 1);
    double saved = clock_seconds();
    save();
    assert_int_equal(reaches(&world.finals, 1, PATIENCE), 1);
    assert_true(clock_seconds() - saved >= GRACE / 1000.0);
    assert_true(get(&world.submissions) > 1);
    assert_true(settles());
}

static void a_failing_store_is_tried_again(void **state)
{
    (void)state;
    SET(error, -ENOSPC);
    save();
    assert_true(reaches(&world.submissions, 2, PATIENCE) >= 2);
    SET(error, 0);
    int n = get(&world.submissions);
    assert_int_equal(reaches(&world.submissions, n + 1, PATIENCE), n + 1);
    assert_true(settles());
}

static void cancelling_before_submission_cancels_the_job_that_comes(void **state)
{
    (void)state;
    save();
    event(TRIGGER_CANCELLED);
    assert_int_equal(reaches(&world.cancels, 1, PATIENCE), 1);
    assert_int_equal(get(&world.submissions), 1);
    save(); /* the next one runs */
    assert_int_equal(reaches(&world.submissions, 2, PATIENCE), 2);
    sleep_ms(20);
    assert_int_equal(get(&world.cancels), 1);
}

static void a_removed_folder_is_forgotten_and_not_submitted(void **state)
{
    (void)state;
    enum { QUIET = 1500 }; /* enough to be gone in time on a busy machine */
    begin_with(QUIET, GRACE);
    save();
    SET(gone, true);
    event(TRIGGER_GONE);
    assert_int_equal(reaches(&world.forgets, 1, PATIENCE), 1);
    sleep_ms(QUIET + 2 * DEBOUNCE);
    assert_int_equal(get(&world.submissions), 0);
}

static void an_ended_job_of_a_folder_that_is_moved_away_stays_known(void **state)
{
    (void)state;
    SET(moved_out, true);
    SET(job_created_ms, 0); /* jobs_view knows none: as good as ended */
    event(TRIGGER_GONE);
    assert_int_equal(reaches(&world.changes, 1, PATIENCE), 1);
    assert_int_equal(get(&world.forgets), 0);
}

static void prompts_closed_before_a_crash_are_submitted_at_the_start(void **state)
{
    (void)state;
    trigger_free(&fs);
    SET(prompt_changed_ms, 3000); /* after the job was made */
    assert_int_equal(trigger_new(&fs), 0);
    assert_int_equal(reaches(&world.submissions, 1, PATIENCE), 1);
    trigger_free(&fs);
    SET(prompt_changed_ms, 1000);
    SET(job_created_ms, 0); /* no job at all */
    assert_int_equal(trigger_new(&fs), 0);
    assert_int_equal(reaches(&world.submissions, 2, PATIENCE), 2);
}

static void thousands_of_folders_at_once_are_all_submitted_soon(void **state)
{
    (void)state;
    double begun = now();
    for (int i = 0; i < 10000; i++) {
        trigger_event(&fs, FOLDER + 10 + i, TRIGGER_WRITE_OPEN);
        trigger_event(&fs, FOLDER + 10 + i, TRIGGER_DIRTY);
        trigger_event(&fs, FOLDER + 10 + i, TRIGGER_ARMED);
        trigger_event(&fs, FOLDER + 10 + i, TRIGGER_WRITE_CLOSED);
    }
    assert_int_equal(reaches(&world.submissions, 10000, PATIENCE), 10000);
    print_message("10000 folders in %.2f s\n", now() - begun);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_saved_prompt_is_submitted_once_after_the_quiet_time),
        TEST(writing_is_editing_and_closed_is_armed),
        TEST(references_that_follow_the_prompt_restart_the_quiet_time),
        TEST(a_file_left_open_holds_the_job_back_only_for_the_grace_time),
        TEST(fsync_submits_although_a_writer_is_open),
        TEST(opening_and_touching_submit_nothing),
        TEST(a_folder_moved_into_place_is_submitted),
        TEST(a_folder_without_prompt_is_no_job),
        TEST(missing_references_are_asked_for_until_the_grace_time_ends),
        TEST(a_failing_store_is_tried_again),
        TEST(cancelling_before_submission_cancels_the_job_that_comes),
        TEST(a_removed_folder_is_forgotten_and_not_submitted),
        TEST(an_ended_job_of_a_folder_that_is_moved_away_stays_known),
        TEST(prompts_closed_before_a_crash_are_submitted_at_the_start),
        TEST(thousands_of_folders_at_once_are_all_submitted_soon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
