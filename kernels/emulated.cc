/* Runs kernels on the CPU: blocks as a loop, the threads of a block as fibers. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kernels/emulated.h"
#include "kernels/gpu.h"

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif
#ifdef FIBER_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES (256 << 10)
#else
#define STACK_BYTES (64 << 10)
#endif

#define BLOCK_MOST 1024 /* threads */

/* ---- switching between stacks ---- */

#if defined(__x86_64__)
/* Saves what a function must keep, and goes on with the other stack. */
extern "C" void gpu_switch_stack(void **from, void *to);
asm(R"(
.text
.hidden gpu_switch_stack
.globl gpu_switch_stack
.type gpu_switch_stack, @function
gpu_switch_stack:
    endbr64
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size gpu_switch_stack, .-gpu_switch_stack
)");
typedef void *stack_place;
static void stack_start(stack_place *at, char *stack, void (*entry)(void))
{
    void **top = reinterpret_cast<void **>(stack + STACK_BYTES) - 2;
    *top = reinterpret_cast<void *>(entry); /* where the first switch returns to */
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    *at = top;
}
static void stack_switch(stack_place *from, stack_place *to)
{
    gpu_switch_stack(from, *to);
}
#else
#include <ucontext.h>
typedef ucontext_t stack_place;
static void stack_start(stack_place *at, char *stack, void (*entry)(void))
{
    getcontext(at);
    at->uc_stack.ss_sp = stack;
    at->uc_stack.ss_size = STACK_BYTES;
    at->uc_link = nullptr;
    makecontext(at, entry, 0);
}
static void stack_switch(stack_place *from, stack_place *to)
{
    swapcontext(from, to);
}
#endif

/* ---- the block that runs ---- */

enum state { READY, AT_BARRIER, AT_EXCHANGE, ENDED };

struct fiber {
    stack_place place;
    enum state state;
    const char *what; /* it waits for */
    dim3 thread;
    int phase;  /* of the warp's exchanges: which buffer is next */
    char *wall; /* lowest address of the stack */
};

struct warp {
    int arrived, of; /* lanes at the exchange, lanes of the warp */
    const char *what;
    alignas(16) unsigned char gifts[2][GPU_WARP][64];
};

struct area { /* a piece of shared memory */
    const void *key;
    void *memory;
    size_t bytes;
};
#define AREAS 32

struct machine {
    const gpu_launch *launch; /* NULL: no kernel runs */
    void (*body)(void *);
    void *ctx;
    fiber fibers[BLOCK_MOST];
    warp warps[BLOCK_MOST / GPU_WARP];
    int count, current, alive, waiting;
    int order[BLOCK_MOST];
    area areas[AREAS];
    int area_count;
    void *dynamic;
    char *stacks;
    stack_place home;
#ifdef FIBER_ASAN
    const void *home_stack;
    size_t home_bytes;
#endif
};

thread_local gpu_place gpu_now;
static thread_local machine *the_machine;

static enum emulated_order the_order;
static uint64_t the_seed;

extern "C" void emulated_set_order(enum emulated_order order, uint64_t seed)
{
    the_order = order;
    the_seed = seed;
}

static uint64_t draw(void) /* splitmix64 */
{
    uint64_t z = (the_seed += 0x9E3779B97F4A7C15u);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* A kernel is wrong: says how and where, and ends the program. */
[[noreturn]] static void broken(const char *how, const char *what)
{
    const machine *m = the_machine;
    const char *name = m && m->launch ? m->launch->name : "no kernel";
    fprintf(stderr, "kernel %s, block %u %u %u, thread %u %u %u: %s%s%s\n", name, gpu_now.block.x,
            gpu_now.block.y, gpu_now.block.z, gpu_now.thread.x, gpu_now.thread.y, gpu_now.thread.z,
            how, what ? ": " : "", what ? what : "");
    abort();
}

static machine *running(void)
{
    if (!the_machine || !the_machine->launch)
        broken("used outside of a kernel", nullptr);
    return the_machine;
}

static machine *machine_get(void)
{
    if (!the_machine) {
        the_machine = static_cast<machine *>(calloc(1, sizeof(machine)));
        void *stacks = the_machine
                           ? mmap(nullptr, (size_t)BLOCK_MOST * STACK_BYTES, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                           : MAP_FAILED;
        if (stacks == MAP_FAILED) {
            fprintf(stderr, "not enough memory for the stacks of emulated threads\n");
            abort();
        }
        the_machine->stacks = static_cast<char *>(stacks);
    }
    return the_machine;
}

/* ---- shared memory ---- */

static void *area_new(machine *m, const void *key, size_t bytes)
{
    size_t rounded = (bytes + 15) & ~(size_t)15;
    if (m->area_count == AREAS)
        broken("too many declarations of shared memory", nullptr);
    void *memory = aligned_alloc(16, rounded ? rounded : 16);
    if (!memory)
        broken("not enough memory for shared memory", nullptr);
#ifdef FIBER_ASAN
    ASAN_POISON_MEMORY_REGION(static_cast<char *>(memory) + bytes, rounded - bytes);
#endif
    m->areas[m->area_count++] = {key, memory, bytes};
    return memory;
}

static void areas_free(machine *m)
{
    while (m->area_count > 0)
        free(m->areas[--m->area_count].memory);
    m->dynamic = nullptr;
}

/* Nothing is left of the block before: all bits set, NaN in every float type. */
static void areas_forget(machine *m)
{
    for (int i = 0; i < m->area_count; i++)
        memset(m->areas[i].memory, 0xFF, m->areas[i].bytes);
}

void *gpu_shared(const void *key, size_t bytes)
{
    machine *m = running();
    size_t sum = bytes;
    for (int i = 0; i < m->area_count; i++) {
        if (m->areas[i].key == key)
            return m->areas[i].memory;
        sum += m->areas[i].bytes;
    }
    if (sum - (m->dynamic ? m->launch->shared : 0) > GPU_SHARED_FREE || sum > GPU_SHARED_MOST)
        broken("too much shared memory is declared", nullptr);
    void *memory = area_new(m, key, bytes);
    memset(memory, 0xFF, bytes);
    return memory;
}

void *gpu_dynamic_shared(void)
{
    machine *m = running();
    if (!m->dynamic)
        broken("dynamic shared memory is used, but none was given at launch", nullptr);
    return m->dynamic;
}

/* Kernels that may take more than GPU_SHARED_FREE; the newest answer for one counts. */
static struct {
    const void *kernel;
    size_t bytes;
} allowed[64];
static int allowed_count;

void gpu_allow(const void *kernel, size_t bytes)
{
    int i = 0;
    while (i < allowed_count && allowed[i].kernel != kernel)
        i++;
    if (bytes > GPU_SHARED_MOST || i == (int)(sizeof allowed / sizeof *allowed))
        broken("gpu_allow_shared: too much", nullptr);
    allowed[i].kernel = kernel;
    allowed[i].bytes = bytes;
    allowed_count = i == allowed_count ? i + 1 : allowed_count;
}

/* ---- fibers ---- */

static void enter(machine *m, int i) /* from home */
{
    fiber *f = &m->fibers[i];
    m->current = i;
    gpu_now.thread = f->thread;
#ifdef FIBER_ASAN
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, f->wall, STACK_BYTES);
#endif
    stack_switch(&m->home, &f->place);
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

static void leave(machine *m, bool ends) /* to home */
{
    fiber *f = &m->fibers[m->current];
#ifdef FIBER_ASAN
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(ends ? nullptr : &fake, m->home_stack, m->home_bytes);
#else
    (void)ends;
#endif
    stack_switch(&f->place, &m->home);
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(fake, &m->home_stack, &m->home_bytes);
#endif
}

static void fiber_main(void)
{
    machine *m = the_machine;
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &m->home_stack, &m->home_bytes);
#endif
    m->body(m->ctx);
    m->fibers[m->current].state = ENDED;
    m->alive--;
    leave(m, true);
    abort(); /* nobody enters a fiber that ended */
}

static fiber *fiber_here(machine *m)
{
    if (!m->launch->syncs)
        broken(
            "it was launched with LAUNCH, but threads wait for each other: LAUNCH_SYNC is needed",
            nullptr);
    return &m->fibers[m->current];
}

void gpu_barrier(const char *what)
{
    machine *m = running();
    fiber *f = fiber_here(m);
    if (++m->waiting == m->count) { /* the last one opens it */
        m->waiting = 0;
        for (int i = 0; i < m->count; i++)
            m->fibers[i].state = READY;
    } else {
        f->state = AT_BARRIER;
        f->what = what;
    }
    leave(m, false);
}

int gpu_lane(void)
{
    return running()->current % GPU_WARP;
}

void gpu_exchange(const char *what, void *gift, size_t bytes, int from,
                  void (*all)(unsigned char (*gifts)[64]))
{
    machine *m = running();
    fiber *f = fiber_here(m);
    int first = m->current / GPU_WARP * GPU_WARP, lane = m->current % GPU_WARP, phase = f->phase;
    warp *w = &m->warps[m->current / GPU_WARP];
    memcpy(w->gifts[phase][lane], gift, bytes);
    f->phase ^= 1;
    if (w->arrived > 0 && w->what != what)
        broken("lanes of one warp meet at different calls", what);
    w->what = what;
    if (++w->arrived == GPU_WARP) {
        w->arrived = 0;
        if (all)
            all(w->gifts[phase]);
        for (int i = 0; i < GPU_WARP; i++)
            m->fibers[first + i].state = READY;
    } else {
        f->state = AT_EXCHANGE;
        f->what = what;
        leave(m, false);
    }
    memcpy(gift, w->gifts[phase][from & (GPU_WARP - 1)], bytes);
}

/* Nobody can go on: some ended, or wait at other places. */
[[noreturn]] static void stuck(const machine *m)
{
    char text[200];
    int at[2] = {0, 0};
    const fiber *first = nullptr;
    for (int i = 0; i < m->count; i++) {
        const fiber *f = &m->fibers[i];
        at[0] += f->state == AT_BARRIER;
        at[1] += f->state == AT_EXCHANGE;
        if (!first && (f->state == AT_BARRIER || f->state == AT_EXCHANGE))
            first = f;
    }
    gpu_now.thread = first->thread;
    snprintf(text, sizeof text,
             "of %d threads %d ended, %d wait at a barrier and %d at a warp's exchange; the first "
             "waits in %s",
             m->count, m->count - m->alive, at[0], at[1], first->what);
    broken("threads diverge", text);
}

static void put_in_order(int *order, int n)
{
    for (int i = 0; i < n; i++)
        order[i] = the_order == EMULATED_BACKWARD ? n - 1 - i : i;
    for (int i = n - 1; the_order == EMULATED_RANDOM && i > 0; i--) {
        int k = (int)(draw() % (uint64_t)(i + 1)), other = order[k];
        order[k] = order[i];
        order[i] = other;
    }
}

static void run_fibers(machine *m)
{
    m->alive = m->count;
    m->waiting = 0;
    for (int i = 0; i < m->count; i++) {
        fiber *f = &m->fibers[i];
        f->state = READY;
        f->phase = 0;
        f->wall = m->stacks + (size_t)i * STACK_BYTES;
#ifdef FIBER_ASAN
        ASAN_UNPOISON_MEMORY_REGION(f->wall, STACK_BYTES);
#endif
        stack_start(&f->place, f->wall, fiber_main);
    }
    for (int i = 0; i < m->count / GPU_WARP; i++)
        m->warps[i].arrived = 0;
    while (m->alive > 0) {
        bool moved = false;
        put_in_order(m->order, m->count);
        for (int i = 0; i < m->count; i++)
            if (m->fibers[m->order[i]].state == READY) {
                moved = true;
                enter(m, m->order[i]);
            }
        if (!moved)
            stuck(m);
    }
}

static void run_plainly(machine *m)
{
    put_in_order(m->order, m->count);
    for (int i = 0; i < m->count; i++) {
        m->current = m->order[i];
        gpu_now.thread = m->fibers[m->order[i]].thread;
        m->body(m->ctx);
    }
}

static void check_launch(const gpu_launch &l, const void *kernel)
{
    uint64_t threads = (uint64_t)l.block.x * l.block.y * l.block.z;
    size_t most = GPU_SHARED_FREE;
    for (int i = 0; i < allowed_count; i++)
        most = allowed[i].kernel == kernel && allowed[i].bytes > most ? allowed[i].bytes : most;
    if (threads < 1 || threads > BLOCK_MOST || l.grid.x < 1 || l.grid.y < 1 || l.grid.z < 1 ||
        l.grid.x > 0x7FFFFFFFu || l.grid.y > 65535 || l.grid.z > 65535)
        broken("a grid or block of no or too many threads", nullptr);
    if (l.syncs && threads % GPU_WARP != 0)
        broken("a block with barriers is not made of whole warps", nullptr);
    if (l.shared > most)
        broken("more dynamic shared memory than was allowed", nullptr);
}

void gpu_emulate(const gpu_launch &l, const void *kernel, void (*body)(void *), void *ctx)
{
    machine *m = machine_get();
    if (m->launch)
        broken("a kernel is launched inside a kernel", l.name);
    if (!emulated_enter_device())
        return;
    m->launch = &l;
    check_launch(l, kernel);
    m->body = body;
    m->ctx = ctx;
    m->count = 0;
    gpu_now.threads = l.block;
    gpu_now.blocks = l.grid;
    for (unsigned z = 0; z < l.block.z; z++)
        for (unsigned y = 0; y < l.block.y; y++)
            for (unsigned x = 0; x < l.block.x; x++)
                m->fibers[m->count++].thread = dim3(x, y, z);
    if (l.shared)
        m->dynamic = area_new(m, nullptr, l.shared);
    for (unsigned z = 0; z < l.grid.z; z++)
        for (unsigned y = 0; y < l.grid.y; y++)
            for (unsigned x = 0; x < l.grid.x; x++) {
                gpu_now.block = dim3(x, y, z);
                areas_forget(m);
                (l.syncs ? run_fibers : run_plainly)(m);
            }
    areas_free(m);
    m->launch = nullptr;
    emulated_leave_device();
}

/* ---- the tensor core's twin ---- */

static float half_of(const uint32_t *word, int half)
{
    return to_float(bf16{(uint16_t)(*word >> 16 * half)});
}

/* c += a · b with the fragments of all lanes, of tile i down and j across. */
static void multiply_tile(const gpu_fragments (&f)[GPU_WARP], int i, int j)
{
    float a[16][16], b[16][8], c[16][8];
    for (int lane = 0; lane < GPU_WARP; lane++) {
        int g = lane / 4, t = 2 * (lane % 4);
        const float *sum = f[lane].c + (i * f[lane].across + j) * 4;
        for (int half = 0; half < 2; half++) {
            for (int r = 0; r < 4; r++)
                a[g + 8 * (r % 2)][t + 8 * (r / 2) + half] = half_of(f[lane].a + i * 4 + r, half);
            for (int r = 0; r < 2; r++)
                b[t + 8 * r + half][g] = half_of(f[lane].b + j * 2 + r, half);
        }
        for (int r = 0; r < 4; r++)
            c[g + 8 * (r / 2)][t + r % 2] = sum[r];
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++)
                c[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < GPU_WARP; lane++) {
        int g = lane / 4, t = 2 * (lane % 4);
        float *sum = f[lane].c + (i * f[lane].across + j) * 4;
        for (int r = 0; r < 4; r++)
            sum[r] = c[g + 8 * (r / 2)][t + r % 2];
    }
}

void gpu_multiply(unsigned char (*gifts)[64])
{
    gpu_fragments f[GPU_WARP];
    for (int lane = 0; lane < GPU_WARP; lane++)
        memcpy(&f[lane], gifts[lane], sizeof f[lane]);
    for (int i = 0; i < f[0].down; i++)
        for (int j = 0; j < f[0].across; j++)
            multiply_tile(f, i, j);
}
