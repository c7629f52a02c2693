/*
 * emu.h - the emulator's own interface: what its parts, and the headers that stand in for CUDA's,
 * know of each other. README.md says what it is for and how it is used.
 *
 *   memory.cc   device and shared memory, and every check of an access
 *   block.cc    threads of a block as fibers; barriers, warps, launches
 *   warp.cc     what the lanes of a warp do together: shuffles, votes, mma, ldmatrix
 *   copy.cc     copies into shared memory while threads go on, and what wgmma may read
 *   wgmma.cc    products of a warpgroup while threads go on
 *   runtime.cc  streams, events, graphs, copies: the CUDA runtime's functions
 *   lt.cc       cuBLASLt's functions, by plain loops
 *   nccl.cc     NCCL's, for processes with a card each
 *
 * One thread of the host does everything. A fault prints where it happened and aborts.
 */
#ifndef TESTS_GPU_EMU_EMU_H
#define TESTS_GPU_EMU_EMU_H

#include <stddef.h>
#include <stdint.h>

#include <functional>

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

namespace emu
{

constexpr unsigned WARP = 32, MAX_THREADS = 1024 /* of a block */;
constexpr size_t SHARED_PLAIN = 48 << 10;    /* bytes that a launch may have without asking */
constexpr size_t SHARED_MOST = 227 << 10;    /* and with cudaFuncSetAttribute: sm_90 */
constexpr size_t SHARED_MOST_80 = 163 << 10; /* the same of sm_80 */
constexpr size_t STACK = 128 << 10;          /* bytes of a thread's stack */

/* A launch. call(args) is one thread's work. */
struct launch {
    const char *name;
    const void *kernel;
    dim3 grid, block;
    size_t shared;
    void (*call)(void *args);
};

/* Where the thread that runs is; name is NULL while the host runs. */
struct here {
    const char *name;
    unsigned thread;                         /* within the block */
    size_t shared;                           /* bytes of dynamic shared memory */
    uint32_t launch_start, block_start, now; /* epochs; now counts barriers and blocks */
    uint8_t warp_now[MAX_THREADS / WARP];    /* counts __syncwarp */
    uint8_t warp_met[MAX_THREADS / WARP];    /* counts whatever all lanes do together */
    const char *file;                        /* of the barrier or warp operation it waits in */
    int line;
};
extern struct here here;

/* What happened, where, and the end. pc is an address in the code that did it, or NULL. */
[[noreturn]] void fault(const void *pc, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * sample - EMU_SAMPLE in the environment, 0 without: only so many blocks of each launch are run,
 * and large copies, fills and products not at all. Results mean nothing then; what is checked is
 * that at sizes which would take days every launch is within the limits, and that those blocks, the
 * first and the last among them, stay within the memory that is there.
 */
size_t sample();
enum : size_t { SAMPLE_WHOLE = 1 << 20 /* bytes that are still copied and filled */ };

bool capturing(); /* any stream */
bool eager();     /* EMU_STREAM=eager: what may be early or late is early */
int card();       /* EMU_CARD: ten times the compute capability, 80 or (without) 90 */

/* ---- memory.cc ---- */

void *mem_alloc(size_t bytes);         /* on a multiple of 256; NULL when there is none left */
bool mem_free(void *p);                /* false when p is no allocation that is alive */
bool mem_again(void *p, size_t bytes); /* makes a freed one alive; false when it is */
bool mem_is_device(const void *p);
void mem_need(const void *p, size_t bytes, const char *what); /* all of it is allocated, or fault */
void mem_need_init(const void *p, size_t bytes, const char *what); /* and has been written */
void mem_written(void *p, size_t bytes);                           /* is now initialised */
void mem_forget(void *p, size_t bytes);                            /* is no longer */
void mem_copied(void *dst, const void *src, size_t bytes); /* dst is where src is; both device */

/* An access by the thread that runs, with every check. Atomics race with nothing. */
enum access { READ, WRITE, ATOMIC };
void mem_access(const void *p, size_t bytes, enum access how, const void *pc);

/* The same, for `thread` of the block instead of the one that runs. */
void mem_access_by(unsigned thread, const void *p, size_t bytes, enum access how, const void *pc);

unsigned mem_writer(const void *p); /* thread that last wrote 2 bytes of dynamic shared memory */

void *mem_shared();                /* dynamic shared memory */
bool mem_in_shared(const void *p); /* of either kind */

/* Memory of the fibers' stacks; what a thread keeps there is its own and not checked. */
char *mem_stacks();

/* ---- block.cc ---- */

/* Runs all blocks of a launch, in the order that EMU_ORDER says (up, or down). */
void run(const struct launch &l, void *args);

/* barrier - waits for all threads of the block; returns how many brought true. */
int barrier(bool value, const char *file, int line);

/* meet - waits for the lanes in mask, which must all come with this op; op then sees what each
 * brought and returns results in it. lane[i] is NULL for lanes that are not in mask. */
typedef void meeting(void *lane[WARP], const char *file, int line);
void meet(meeting *op, unsigned mask, void *mine, const char *file, int line);

unsigned lane_thread(unsigned lane); /* thread of a lane of the warp that meets */

/* What copy.cc has to see of a block that has work under way; NULL until there is any. */
struct watch {
    void (*access)(unsigned thread, const void *p, size_t bytes, enum access how, const void *pc);
    void (*leave)(); /* the thread that runs returns */
    void (*meet)();  /* all threads of the block are at a barrier, or have returned */
};
extern struct watch watch; /* access: of dynamic shared memory */

/* ---- copy.cc ---- */

void async_begin(); /* before every instruction that copy.cc and wgmma.cc have */

/* The thread that runs begins, or has ended, to read 16 bytes of dynamic shared memory for a
 * product. Nobody may write them in between. */
void async_read_begins(const void *p);
void async_read_ends(const void *p);

/* ---- wgmma.cc, for copy.cc: what `watch` says, and a new block ---- */

void product_block();
void product_leave();
void product_meet();

/* ---- runtime.cc ---- */

struct stream;
/* Checks a launch as the runtime does, and puts it into the stream; drop(args) in the end. */
void enqueue(struct stream *s, const struct launch &l, void *args, void (*drop)(void *));
/* Puts work of the library (a copy, a product) into the stream. */
void enqueue(struct stream *s, std::function<void()> work);

} // namespace emu

extern struct uint3 threadIdx, blockIdx;
extern struct dim3 blockDim, gridDim;

#endif
