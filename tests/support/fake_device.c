#include "fake_device.h"

#include <math.h>
#include <string.h>
#include <time.h>

struct fake_device fake_devices[FAKE_DEVICES];

static const char *const names[FAKE_DEVICES] = {"cuda:0", "cuda:1", "cuda:2"};
static struct backend_ops cpu;  /* the table behind ours */
static struct backend_ops fake; /* ours */
static int device_count;

static struct fake_device *device_of(const struct backend *b)
{
    int i = 0;
    while (i < FAKE_DEVICES - 1 && strcmp(b->name, names[i]) != 0)
        i++;
    return &fake_devices[i];
}

/* Takes one of `left`; false: none was left. */
static bool use_up(atomic_int *left)
{
    int n = *left;
    while (n > 0 && !atomic_compare_exchange_weak(left, &n, n - 1))
        ;
    return n > 0;
}

static void destroy(struct backend *b)
{
    device_of(b)->opened--;
    cpu.destroy(b);
}

static void *alloc(struct backend *b, size_t bytes)
{
    struct fake_device *d = device_of(b);
    d->arenas++;
    return d->lost || use_up(&d->refuse_arenas) ? NULL : cpu.alloc(b, bytes);
}

static int memory(struct backend *b, uint64_t *free, uint64_t *total)
{
    *free = device_of(b)->memory_free;
    *total = device_of(b)->memory_total;
    return 0;
}

static bool lost(struct backend *b)
{
    return device_of(b)->lost;
}

static int weight_prepare(struct backend *b, struct tensor *w, const void *host, enum dtype compute,
                          struct err *e)
{
    struct fake_device *d = device_of(b);
    if (d->lost)
        return err_set(e, BACKEND_LOST, "%s fell off the bus", b->name);
    if (host && use_up(&d->refuse_weights))
        return err_set(e, -ENOMEM, "%s has no memory for weights", b->name);
    return cpu.weight_prepare(b, w, host, compute, e);
}

static void wait_while_held(struct ops *o, struct fake_device *d)
{
    d->held += d->hold;
    while (d->hold && (d->deaf || !ops_cancelled(o))) {
        struct timespec pause = {0, 2000000};
        nanosleep(&pause, NULL);
    }
}

static void linear(struct ops *o, struct tensor *y, const struct tensor *x, const struct tensor *w,
                   const struct tensor *bias, enum activation act)
{
    struct fake_device *d = device_of(y->backend);
    if (ops_planning(o)) {
        cpu.linear(o, y, x, w, bias, act);
        return;
    }
    wait_while_held(o, d);
    d->products++;
    int left = d->lose_at;
    if (left > 0)
        d->lose_at = left - 1;
    if (left == 1)
        d->lost = true;
    if (d->lost) {
        ops_fail(o, -EIO, "%s fell off the bus", y->backend->name); /* lost() says the rest */
        return;
    }
    cpu.linear(o, y, x, w, bias, act);
    if (d->poison_step && d->steps + 1 == d->poison_step && y->dtype == DTYPE_F32)
        *(float *)y->data = NAN;
}

static void download(struct ops *o, void *host, const struct tensor *x, size_t bytes)
{
    device_of(x->backend)->waits++;
    cpu.download(o, host, x, bytes);
}

static bool all_finite(struct ops *o, const struct tensor *x)
{
    device_of(x->backend)->waits++;
    return cpu.all_finite(o, x);
}

static void finite_note(struct ops *o, struct tensor *flag, const struct tensor *x, int32_t note)
{
    int32_t *at = flag->data;
    if (!cpu.all_finite(o, x) && note < *at)
        *at = note;
}

static void step_end(struct ops *o)
{
    struct fake_device *d = device_of(ops_backend(o));
    int step = d->steps++;
    if (step < FAKE_STEPS)
        d->waits_at[step] = d->waits;
    (void)ops_cancelled(o);
}

static void make_table(const struct backend_ops *of)
{
    cpu = *of;
    fake = cpu;
    fake.destroy = destroy;
    fake.alloc = alloc;
    fake.memory = memory;
    fake.lost = lost;
    fake.weight_prepare = weight_prepare;
    fake.linear = linear;
    fake.download = download;
    fake.all_finite = all_finite;
    fake.finite_note = finite_note;
    fake.step_end = step_end;
}

static int count_devices(void)
{
    return device_count;
}

static int open_device(int index, struct backend **out, struct err *e)
{
    if (index >= device_count)
        return err_set(e, -ENODEV, "there is no device cuda:%d, only %d", index, device_count);
    if (fake_devices[index].lost)
        return err_set(e, -ENODEV, "%s fell off the bus", names[index]);
    int rc = cpu_backend_new(1, out, e);
    if (rc == 0) {
        (*out)->ops = &fake;
        (*out)->name = names[index];
        fake_devices[index].opened++;
    }
    return rc;
}

static struct cuda_exports library = {open_device, count_devices};

void fake_devices_count(bool counts)
{
    library.device_count = counts ? count_devices : NULL;
}

void fake_devices_use(int count)
{
    struct backend *b = NULL;
    memset(fake_devices, 0, sizeof fake_devices);
    for (int i = 0; i < FAKE_DEVICES; i++)
        fake_devices[i].memory_free = fake_devices[i].memory_total = (uint64_t)1 << 30;
    device_count = count;
    fake_devices_count(true);
    if (!fake.destroy && cpu_backend_new(1, &b, NULL) == 0) {
        make_table(b->ops);
        backend_free(b);
    }
    device_provide(count ? &library : NULL);
}
