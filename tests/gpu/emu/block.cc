/*
 * block.cc - the threads of a block, one after the other on stacks of their own: each runs until it
 * waits for others, at a barrier of the block or in an operation of its warp, or is done. When all
 * who must be there are, they go on. Blocks follow one another.
 *
 * EMU_ORDER=down runs blocks, warps and lanes from the last to the first: results must not depend
 * on it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/emu/emu.h"

struct uint3 threadIdx, blockIdx;
struct dim3 blockDim, gridDim;

namespace emu
{

struct watch watch;

enum state { READY, AT_BARRIER, IN_WARP, DONE };

struct fiber {
    void *sp;
    enum state state;
    uint3 index;
    const char *file; /* where it waits */
    int line;
    bool value;  /* brought to the barrier */
    meeting *op; /* of its warp */
    unsigned mask;
    void *mine;
};

static struct fiber fibers[MAX_THREADS];
static void *scheduler;
static unsigned threads, meeting_warp;
static int barrier_true;
static const struct launch *running;
static void *arguments;
static bool down; /* what EMU_ORDER says */

/* Saves the registers that a call keeps on the stack, and the stack in *from; goes on at `to`. */
extern "C" void emu_switch(void **from, void *to);
asm(".text\n"
    ".type emu_switch, @function\n"
    "emu_switch:\n"
    "    push %rbp\n"
    "    push %rbx\n"
    "    push %r12\n"
    "    push %r13\n"
    "    push %r14\n"
    "    push %r15\n"
    "    mov %rsp, (%rdi)\n"
    "    mov %rsi, %rsp\n"
    "    pop %r15\n"
    "    pop %r14\n"
    "    pop %r13\n"
    "    pop %r12\n"
    "    pop %rbx\n"
    "    pop %rbp\n"
    "    ret\n"
    ".size emu_switch, . - emu_switch\n");

static void at_thread(unsigned i)
{
    here.thread = i;
    threadIdx = fibers[i].index;
    here.file = fibers[i].file;
    here.line = fibers[i].line;
}

/* Goes on with the next lane of the warp that can, and without one with the scheduler. */
static void wait_as(enum state state, const char *file, int line)
{
    unsigned i = here.thread, step = down ? -1u : 1u;
    struct fiber &f = fibers[i];
    f.state = state;
    f.file = here.file = file;
    f.line = here.line = line;
    for (i += step; i / WARP == here.thread / WARP && i < threads; i += step)
        if (fibers[i].state == READY) {
            at_thread(i);
            emu_switch(&f.sp, fibers[i].sp);
            return;
        }
    emu_switch(&f.sp, scheduler);
}

static void thread_main()
{
    running->call(arguments);
    if (watch.leave)
        watch.leave();
    wait_as(DONE, NULL, 0);
    abort();
}

/* A stack on which emu_switch finds six registers and the address of thread_main, aligned as after
 * a call. */
static void begin_fiber(unsigned i)
{
    struct fiber &f = fibers[i];
    void **top = (void **)(mem_stacks() + (size_t)(i + 1) * STACK - 64);
    *--top = NULL;
    *--top = (void *)thread_main;
    for (int r = 0; r < 6; r++)
        *--top = NULL;
    f = {};
    f.sp = top;
    f.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
}

static unsigned ordered(unsigned i, unsigned n)
{
    return down ? n - 1 - i : i;
}

unsigned lane_thread(unsigned lane)
{
    return meeting_warp * WARP + lane;
}

/* Who waits where, of up to 32 threads from `first`, for a report. */
static void list_waiting(unsigned first, unsigned n)
{
    static const char *const names[] = {"runs", "is at a barrier", "is in a warp operation",
                                        "has returned"};
    for (unsigned i = first, from = first; i < first + n; i++) {
        const struct fiber &f = fibers[i], &next = fibers[i + 1];
        if (i + 1 < first + n && next.state == f.state && next.file == f.file &&
            next.line == f.line && next.mask == f.mask)
            continue;
        fprintf(stderr, "  threads %u to %u: %s", from, i, names[f.state]);
        if (f.file && f.state != DONE)
            fprintf(stderr, ", %s:%d", f.file, f.line);
        if (f.state == IN_WARP)
            fprintf(stderr, ", mask %08x", f.mask);
        fputc('\n', stderr);
        from = i + 1;
    }
}

[[noreturn]] static void stuck(unsigned first, unsigned n, const char *why)
{
    fflush(stdout);
    list_waiting(first, n);
    here.file = NULL;
    fault(NULL, "%s", why);
}

/* Lets the lanes of a warp meet whose partners are all there. Returns whether any did. */
static bool meet_lanes(unsigned warp)
{
    unsigned first = warp * WARP, n = threads - first < WARP ? threads - first : WARP, left = 0;
    bool met = false;
    for (unsigned i = 0; i < n; i++)
        left |= (unsigned)(fibers[first + i].state == IN_WARP) << i;
    while (left) {
        unsigned lane = (unsigned)__builtin_ctz(left);
        const struct fiber &f = fibers[first + lane];
        void *mine[WARP] = {};
        bool all = true;
        if (!(f.mask >> lane & 1))
            stuck(first, n, "a lane is not in the mask that it passes");
        for (unsigned i = 0; i < WARP; i++) {
            if (!(f.mask >> i & 1))
                continue;
            if (i >= n || fibers[first + i].state == DONE)
                stuck(first, n, "a mask names a lane that has returned");
            const struct fiber &g = fibers[first + i];
            all = all && g.state == IN_WARP;
            if (g.state == IN_WARP && (g.op != f.op || g.mask != f.mask))
                stuck(first, n, "lanes of a warp wait for each other in different operations");
            mine[i] = g.mine;
        }
        left &= ~f.mask;
        if (!all)
            continue;
        meeting_warp = warp;
        here.thread = first + lane;
        f.op(mine, f.file, f.line);
        if (f.mask == ~0u)
            here.warp_met[warp]++;
        for (unsigned i = 0; i < n; i++)
            if (f.mask >> i & 1)
                fibers[first + i].state = READY;
        met = true;
    }
    return met;
}

static void run_warp(unsigned warp)
{
    unsigned first = warp * WARP, n = threads - first < WARP ? threads - first : WARP;
    do {
        for (unsigned i = 0; i < n; i++)
            if (unsigned t = first + ordered(i, n); fibers[t].state == READY) {
                at_thread(t);
                emu_switch(&scheduler, fibers[t].sp);
            }
    } while (meet_lanes(warp));
}

/* All wait or are done. Opens the barrier if they are all at the same; false when all are done. */
static bool open_barrier()
{
    unsigned at[4] = {};
    bool apart = false;
    barrier_true = 0;
    for (unsigned i = 0; i < threads; i++) {
        const struct fiber &f = fibers[i];
        at[f.state]++;
        barrier_true += f.value;
        apart = apart || f.file != fibers[0].file || f.line != fibers[0].line;
    }
    if (at[DONE] + at[AT_BARRIER] == threads && watch.meet)
        watch.meet();
    if (at[DONE] == threads)
        return false;
    if (at[IN_WARP])
        stuck(0, threads, "lanes wait in an operation for lanes that do not come");
    if (at[DONE])
        stuck(0, threads, "threads wait at a barrier for threads that have returned");
    if (apart)
        stuck(0, threads, "threads of a block are at different barriers");
    for (unsigned i = 0; i < threads; i++)
        fibers[i].state = READY;
    here.now++;
    return true;
}

static void run_block()
{
    here.block_start = ++here.now;
    watch = {};
    for (unsigned i = 0; i < threads; i++)
        begin_fiber(i);
    unsigned warps = (threads + WARP - 1) / WARP;
    do
        for (unsigned w = 0; w < warps; w++)
            run_warp(ordered(w, warps));
    while (open_barrier());
}

void run(const struct launch &l, void *args)
{
    const char *order = getenv("EMU_ORDER");
    down = order && !strcmp(order, "down");
    running = &l;
    arguments = args;
    here.name = l.name;
    here.shared = l.shared;
    here.launch_start = ++here.now;
    gridDim = l.grid;
    blockDim = l.block;
    threads = l.block.x * l.block.y * l.block.z;
    size_t blocks = (size_t)l.grid.x * l.grid.y * l.grid.z;
    size_t n = sample() && sample() < blocks ? sample() : blocks;
    for (size_t i = 0; i < n; i++) {
        size_t b = down ? blocks - 1 - i : i;
        if (n < blocks) /* the first, the last, and between them evenly */
            b = n > 1 ? i * (blocks - 1) / (n - 1) : 0;
        blockIdx = {(unsigned)(b % l.grid.x), (unsigned)(b / l.grid.x % l.grid.y),
                    (unsigned)(b / l.grid.x / l.grid.y)};
        run_block();
    }
    here.now++;
    here.name = NULL;
    here.file = NULL;
}

int barrier(bool value, const char *file, int line)
{
    fibers[here.thread].value = value;
    wait_as(AT_BARRIER, file, line);
    return barrier_true;
}

void meet(meeting *op, unsigned mask, void *mine, const char *file, int line)
{
    struct fiber &f = fibers[here.thread];
    f.op = op;
    f.mask = mask;
    f.mine = mine;
    wait_as(IN_WARP, file, line);
}

} // namespace emu
