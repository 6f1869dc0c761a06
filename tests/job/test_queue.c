/* The queue's rows: order and fairness, batches, superseding, and what a crash leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "job/queue.h"
#include "../support/scratch.h"

static struct db *open_queue(const char *store)
{
    struct db *d;
    struct err e;
    if (db_open(store, &d, &e) || queue_open(d, &e))
        fail_msg("%s", e.text);
    return d;
}

struct fixture {
    char *store;
    struct db *db;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    void *folder;
    if (!f || scratch_setup(&folder))
        return -1;
    f->store = folder;
    f->db = open_queue(f->store);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    void *folder = f->store;
    if (f->db)
        db_close(f->db);
    free(f);
    return scratch_teardown(&folder);
}

/* A job named `id` in a folder of its own number. */
static void add(struct db *d, const char *id, uid_t uid, int64_t folder, const char *key,
                int priority, int pictures)
{
    struct queue_job j = {.folder = folder, .uid = uid, .priority = priority, .pictures = pictures};
    snprintf(j.id, sizeof j.id, "%s", id);
    snprintf(j.key, sizeof j.key, "%s", key);
    snprintf(j.folder_name, sizeof j.folder_name, "f%d", (int)folder);
    snprintf(j.digest, sizeof j.digest, "digest of %s", id);
    j.text = (char *)(uintptr_t) "prompt = a";
    j.size = 10;
    j.created_ms = clock_wall_ms();
    assert_int_equal(queue_insert(d, &j), 0);
}

/* Claims batches until there are none: "a b | c ", and finishes them. */
static void claim_all(struct db *d, int pictures, struct str *out)
{
    struct queue_job jobs[8];
    int n;
    while ((n = queue_claim(d, pictures, jobs, 8)) > 0) {
        str_add(out, out->len ? "| " : "");
        for (int i = 0; i < n; i++) {
            str_addf(out, "%s ", jobs[i].id);
            assert_string_equal(jobs[i].text, "prompt = a");
            assert_int_equal(jobs[i].attempts, 1);
            assert_int_equal(queue_finish(d, jobs[i].id, JOB_DONE, "", NULL, 0), 0);
            queue_job_free(&jobs[i]);
        }
    }
    assert_int_equal(n, 0);
}

static void users_take_turns_and_each_keeps_his_order(void **state)
{
    struct fixture *f = *state;
    AUTO_STR struct str order = {0};
    add(f->db, "a1", 1, 1, "", 0, 1);
    add(f->db, "a2", 1, 2, "", 0, 1);
    add(f->db, "a3", 1, 3, "", 0, 1);
    add(f->db, "b1", 2, 4, "", 0, 1);
    add(f->db, "c1", 3, 5, "", 0, 1);
    add(f->db, "b2", 2, 6, "", 0, 1);
    claim_all(f->db, 4, &order);
    assert_string_equal(order.data, "a1 | b1 | c1 | a2 | b2 | a3 ");
}

static void positions_say_the_order_of_service(void **state)
{
    struct fixture *f = *state;
    static const char *const ids[] = {"a1", "a2", "a3", "b1", "c1", "b2", "h1"};
    static const int uids[] = {1, 1, 1, 2, 3, 2, 1};
    struct queue_job j;
    int position;
    for (int i = 0; i < 6; i++)
        add(f->db, ids[i], (uid_t)uids[i], i + 1, "", 0, 1);
    /* who was served once comes after those who never were */
    assert_int_equal(queue_claim(f->db, 1, &j, 1), 1);
    assert_string_equal(j.id, "a1");
    queue_job_free(&j);
    add(f->db, "h1", 1, 7, "", 5, 1); /* a higher priority comes first */
    static const char *const order[] = {"h1", "b1", "c1", "a2", "b2", "a3"};
    for (int i = 0; i < 6; i++) {
        char id[ID_SIZE];
        snprintf(id, sizeof id, "%s", order[i]);
        assert_int_equal(queue_get(f->db, id, &j), 0);
        assert_int_equal(queue_position(f->db, &j, &position), 0);
        assert_int_equal(position, i + 1);
    }
}

static void a_higher_priority_goes_first(void **state)
{
    struct fixture *f = *state;
    AUTO_STR struct str order = {0};
    add(f->db, "low", 1, 1, "", -1, 1);
    add(f->db, "normal", 1, 2, "", 0, 1);
    add(f->db, "high", 1, 3, "", 1, 1);
    claim_all(f->db, 4, &order);
    assert_string_equal(order.data, "high | normal | low ");
}

static void equal_requests_are_claimed_together_up_to_the_batch(void **state)
{
    struct fixture *f = *state;
    AUTO_STR struct str order = {0};
    add(f->db, "a1", 1, 1, "small", 0, 1);
    add(f->db, "a2", 1, 2, "large", 0, 1);
    add(f->db, "a3", 1, 3, "small", 0, 2);
    add(f->db, "b1", 2, 4, "small", 0, 1);
    add(f->db, "b2", 2, 5, "small", 0, 1);
    add(f->db, "b3", 2, 6, "", 0, 1);
    add(f->db, "b4", 2, 7, "", 0, 1); /* without a key: always alone */
    claim_all(f->db, 4, &order);
    assert_string_equal(order.data, "a1 b1 b2 | a2 | b3 | a3 | b4 ");
}

static void a_new_prompt_supersedes_what_waits_and_what_runs(void **state)
{
    struct fixture *f = *state;
    struct queue_job j;
    add(f->db, "first", 1, 1, "", 0, 1);
    add(f->db, "second", 1, 1, "", 0, 1);
    assert_int_equal(queue_get(f->db, "first", &j), -ENOENT);
    assert_int_equal(queue_claim(f->db, 1, &j, 1), 1);
    assert_string_equal(j.id, "second");
    queue_job_free(&j);
    add(f->db, "third", 1, 1, "", 0, 1);
    assert_int_equal(queue_get(f->db, "second", &j), 0);
    assert_true(j.gone);
    assert_int_equal(queue_latest(f->db, 1, &j), 0);
    assert_string_equal(j.id, "third");
    /* the superseded run ends: nothing of it is published */
    assert_int_equal(queue_finish(f->db, "second", JOB_DONE, "", NULL, 0), -ENOENT);
    assert_int_equal(queue_get(f->db, "second", &j), -ENOENT);
    assert_int_equal(queue_publishable(f->db, 0, &j), -ENOENT);
}

static void finished_jobs_are_publishable_once_and_in_order(void **state)
{
    struct fixture *f = *state;
    static const char names[][64] = {"image.png", "metadata.json"};
    struct queue_job j;
    char(*files)[64], (*stale)[64];
    int count, stale_count;
    add(f->db, "old", 1, 1, "", 0, 1);
    add(f->db, "new", 1, 2, "", 0, 1);
    AUTO_STR struct str order = {0};
    struct queue_job claimed[2];
    assert_int_equal(queue_claim(f->db, 1, &claimed[0], 1), 1);
    assert_int_equal(queue_claim(f->db, 1, &claimed[1], 1), 1);
    assert_int_equal(queue_finish(f->db, "new", JOB_FAILED, "broken", names, 2), 0);
    assert_int_equal(queue_finish(f->db, "old", JOB_DONE, "", names, 2), 0);
    assert_int_equal(queue_publishable(f->db, 0, &j), 0);
    assert_string_equal(j.id, "old");
    assert_int_equal(queue_files(f->db, &j, &files, &count, &stale, &stale_count), 0);
    assert_int_equal(count, 2);
    assert_string_equal(files[1], "metadata.json");
    assert_int_equal(stale_count, 0);
    free(files);
    free(stale);
    assert_int_equal(queue_published(f->db, "old"), 0);
    assert_int_equal(queue_get(f->db, "old", &j), 0);
    assert_int_equal(j.state, JOB_DONE);
    assert_int_equal(queue_publishable(f->db, 0, &j), 0);
    assert_string_equal(j.id, "new");
    assert_string_equal(j.error, "broken");
    assert_int_equal(queue_published(f->db, "new"), 0);
    assert_int_equal(queue_publishable(f->db, 0, &j), -ENOENT);
    queue_job_free(&claimed[0]);
    queue_job_free(&claimed[1]);
}

static void files_that_a_new_run_does_not_replace_are_stale(void **state)
{
    struct fixture *f = *state;
    static const char old_names[][64] = {"image-1.png", "image-2.png", "metadata.json"};
    static const char new_names[][64] = {"image.png", "metadata.json"};
    struct queue_job j;
    char(*files)[64], (*stale)[64];
    int count, stale_count;
    add(f->db, "one", 1, 1, "", 0, 1);
    assert_int_equal(queue_claim(f->db, 1, &j, 1), 1);
    queue_job_free(&j);
    assert_int_equal(queue_finish(f->db, "one", JOB_DONE, "", old_names, 3), 0);
    assert_int_equal(queue_published(f->db, "one"), 0);
    add(f->db, "two", 1, 1, "", 0, 1);
    assert_int_equal(queue_claim(f->db, 1, &j, 1), 1);
    queue_job_free(&j);
    assert_int_equal(queue_finish(f->db, "two", JOB_DONE, "", new_names, 2), 0);
    assert_int_equal(queue_publishable(f->db, 0, &j), 0);
    assert_int_equal(queue_files(f->db, &j, &files, &count, &stale, &stale_count), 0);
    assert_int_equal(stale_count, 2);
    assert_string_equal(stale[0], "image-1.png");
    assert_string_equal(stale[1], "image-2.png");
    free(files);
    free(stale);
    assert_int_equal(queue_published(f->db, "two"), 0);
    assert_int_equal(queue_get(f->db, "one", &j), -ENOENT); /* of no more use */
}

static void a_forgotten_folder_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct queue_job j;
    add(f->db, "runs", 1, 1, "", 0, 1);
    assert_int_equal(queue_claim(f->db, 1, &j, 1), 1);
    queue_job_free(&j);
    assert_int_equal(queue_forget(f->db, 1), 0);
    assert_int_equal(queue_latest(f->db, 1, &j), -ENOENT);
    assert_int_equal(queue_finish(f->db, "runs", JOB_DONE, "", NULL, 0), -ENOENT);
    add(f->db, "waits", 1, 2, "", 0, 1);
    assert_int_equal(queue_forget(f->db, 2), 0);
    assert_int_equal(queue_get(f->db, "waits", &j), -ENOENT);
}

static void only_waiting_jobs_can_be_refused(void **state)
{
    struct fixture *f = *state;
    struct queue_job j;
    add(f->db, "a", 1, 1, "", 0, 1);
    assert_int_equal(queue_refuse(f->db, "a", JOB_CANCELLED, ""), 0);
    assert_int_equal(queue_refuse(f->db, "a", JOB_CANCELLED, ""), -ENOENT);
    assert_int_equal(queue_publishable(f->db, 0, &j), -ENOENT); /* its files are not written */
    assert_int_equal(queue_unready(f->db, &j), 0);
    assert_string_equal(j.text, "prompt = a");
    queue_job_free(&j);
    assert_int_equal(queue_set_ready(f->db, "a", NULL, 0), 0);
    assert_int_equal(queue_publishable(f->db, 0, &j), 0);
    assert_int_equal(j.outcome, JOB_CANCELLED);
}

/* A daemon that claims one job and is killed. */
static void crash_while_running(const char *store)
{
    pid_t child = fork();
    if (child == 0) {
        struct db *d;
        struct queue_job j;
        struct err e;
        if (db_open(store, &d, &e) || queue_open(d, &e) || queue_recover(d, 3, "") ||
            queue_claim(d, 1, &j, 1) != 1)
            _exit(1);
        raise(SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void killed_daemons_lose_and_double_nothing(void **state)
{
    struct fixture *f = *state;
    struct queue_job j;
    static const char names[][64] = {"image.png"};
    add(f->db, "done", 1, 1, "", 0, 1);
    add(f->db, "cursed", 1, 2, "", 0, 1);
    add(f->db, "waits", 1, 3, "", 0, 1);
    assert_int_equal(queue_claim(f->db, 1, &j, 1), 1);
    queue_job_free(&j);
    assert_int_equal(queue_finish(f->db, "done", JOB_DONE, "", names, 1), 0);
    db_close(f->db);
    f->db = NULL;
    for (int crash = 1; crash <= 3; crash++) {
        crash_while_running(f->store);
        f->db = open_queue(f->store);
        assert_int_equal(queue_get(f->db, "cursed", &j), 0);
        assert_int_equal(j.state, JOB_RUNNING);
        assert_int_equal(j.attempts, crash);
        assert_int_equal(queue_recover(f->db, 3, "thrice"), 0);
        assert_int_equal(queue_get(f->db, "cursed", &j), 0);
        assert_int_equal(j.state, crash < 3 ? JOB_QUEUED : JOB_PUBLISHING);
        assert_int_equal(queue_publishable(f->db, 0, &j), 0); /* still to be published, once */
        assert_string_equal(j.id, "done");
        assert_int_equal(queue_publishable(f->db, j.seq, &j), -ENOENT);
        if (crash < 3) {
            db_close(f->db);
            f->db = NULL;
        }
    }
    assert_int_equal(queue_unready(f->db, &j), 0);
    assert_string_equal(j.id, "cursed");
    assert_int_equal(j.outcome, JOB_FAILED);
    assert_string_equal(j.error, "thrice");
    queue_job_free(&j);
    assert_int_equal(queue_claim(f->db, 1, &j, 1), 1); /* the others go on */
    assert_string_equal(j.id, "waits");
    queue_job_free(&j);
}

static void a_given_back_job_counts_no_attempt(void **state)
{
    struct fixture *f = *state;
    struct queue_job j;
    add(f->db, "a", 1, 1, "", 0, 1);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(queue_claim(f->db, 1, &j, 1), 1);
        assert_int_equal(j.attempts, 1);
        queue_job_free(&j);
        assert_int_equal(queue_release(f->db, "a"), 0);
    }
}

/* Claims the only job that waits. */
static struct queue_job claim_one(struct db *d)
{
    struct queue_job j;
    assert_int_equal(queue_claim(d, 1, &j, 1), 1);
    queue_job_free(&j);
    return j;
}

static void a_job_whose_device_was_lost_is_queued_again_once(void **state)
{
    struct fixture *f = *state;
    add(f->db, "a", 1, 1, "", 0, 1);
    assert_int_equal(queue_requeue(f->db, "a", "cuda:0 was lost"), -ENOENT); /* it waits */
    assert_string_equal(claim_one(f->db).lost, "");
    assert_int_equal(queue_requeue(f->db, "a", "cuda:0 was lost"), 0);
    struct queue_job j = claim_one(f->db);
    assert_string_equal(j.lost, "cuda:0 was lost");
    assert_int_equal(j.attempts, 1); /* the loss was none */
    assert_int_equal(queue_requeue(f->db, "a", "cuda:1 was lost"), -ENOENT);
    db_close(f->db); /* a crash: it is still known */
    f->db = open_queue(f->store);
    assert_int_equal(queue_recover(f->db, 3, "too often"), 0);
    assert_string_equal(claim_one(f->db).lost, "cuda:0 was lost");
}

static void a_superseded_job_is_not_queued_again(void **state)
{
    struct fixture *f = *state;
    add(f->db, "old", 1, 1, "", 0, 1);
    claim_one(f->db);
    add(f->db, "new", 1, 1, "", 0, 1);
    assert_int_equal(queue_requeue(f->db, "old", "cuda:0 was lost"), -ENOENT);
    assert_false(queue_has(f->db, "old"));
    assert_string_equal(claim_one(f->db).id, "new");
}

static void a_store_from_before_losses_were_known_is_brought_up_to_date(void **state)
{
    struct fixture *f = *state;
    static const char *const back[] = {"ALTER TABLE jobs DROP COLUMN lost",
                                       "UPDATE floor SET version = 1 WHERE name = 'job'"};
    add(f->db, "a", 1, 1, "", 0, 1);
    for (int i = 0; i < 2; i++) {
        db_lock(f->db);
        assert_int_equal(db_run(f->db, db_sql(f->db, back[i])), 0);
        db_unlock(f->db);
    }
    db_close(f->db);
    f->db = open_queue(f->store);
    struct queue_job j = claim_one(f->db);
    assert_string_equal(j.id, "a");
    assert_string_equal(j.lost, "");
}

static void active_jobs_are_counted_for_limits(void **state)
{
    struct fixture *f = *state;
    int all, user;
    add(f->db, "a", 1, 1, "", 0, 1);
    add(f->db, "b", 1, 2, "", 0, 1);
    add(f->db, "c", 2, 3, "", 0, 1);
    assert_int_equal(queue_active(f->db, 0, 1, &all, &user), 0);
    assert_int_equal(all, 3);
    assert_int_equal(user, 2);
    assert_int_equal(queue_active(f->db, 2, 1, &all, &user), 0); /* its own folder is replaced */
    assert_int_equal(all, 2);
    assert_int_equal(user, 1);
}

static void add_line(void *ctx, int64_t at_ms, const char *text)
{
    assert_true(at_ms > 0);
    str_addf(ctx, "%s;", text);
}

static void events_are_a_jobs_log(void **state)
{
    struct fixture *f = *state;
    AUTO_STR struct str log = {0};
    add(f->db, "a", 1, 1, "", 0, 1);
    assert_int_equal(queue_event(f->db, "a", "one"), 0);
    assert_int_equal(queue_event(f->db, "a", "two"), 0);
    assert_int_equal(queue_events(f->db, "a", add_line, &log), 0);
    assert_string_equal(log.data, "one;two;");
    assert_int_equal(queue_delete(f->db, "a"), 0);
    str_free(&log);
    assert_int_equal(queue_events(f->db, "a", add_line, &log), 0);
    assert_int_equal(log.len, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(users_take_turns_and_each_keeps_his_order),
        TEST(positions_say_the_order_of_service),
        TEST(a_higher_priority_goes_first),
        TEST(equal_requests_are_claimed_together_up_to_the_batch),
        TEST(a_new_prompt_supersedes_what_waits_and_what_runs),
        TEST(finished_jobs_are_publishable_once_and_in_order),
        TEST(files_that_a_new_run_does_not_replace_are_stale),
        TEST(a_forgotten_folder_leaves_nothing),
        TEST(only_waiting_jobs_can_be_refused),
        TEST(killed_daemons_lose_and_double_nothing),
        TEST(a_given_back_job_counts_no_attempt),
        TEST(a_job_whose_device_was_lost_is_queued_again_once),
        TEST(a_superseded_job_is_not_queued_again),
        TEST(a_store_from_before_losses_were_known_is_brought_up_to_date),
        TEST(active_jobs_are_counted_for_limits),
        TEST(events_are_a_jobs_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
