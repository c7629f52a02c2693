/*
 * memory.cc - the memory of the emulated device, and the check of each access to it.
 *
 * Code that runs on the device is compiled with -fsanitize=thread, which calls __tsan_read4(p) and
 * the like before each access that leaves a thread's registers and own stack; here, not in the
 * compiler's library, is what they do. Every two bytes of memory have a cell that knows whether
 * they were written, and by whom and when they were last written and read. That finds
 *   - accesses outside of allocations and of shared memory, to freed memory, to the host's;
 *   - reads of what nobody has written;
 *   - accesses that are not aligned to their size;
 *   - races: two threads, one of them writing, without a barrier between them; within a warp
 *     __syncwarp is enough, between blocks of a launch nothing is.
 * Addresses are not used twice, so that a pointer to freed memory never points to something else.
 */
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>

#include "tests/gpu/emu/emu.h"

namespace emu
{

struct here here;

/* Epochs say when; threads and warp epochs say who. A shared cell is initialised when it was
 * written in this block: its epoch tells. */
struct cell {
    uint32_t write, read;
    uint16_t writer, reader;
    uint8_t write_warp, read_warp; /* warp epochs */
    bool init;
    uint8_t readers; /* of epoch `read` if LANES or WARPS; of the launch if BLOCKS */
};
static_assert(sizeof(struct cell) == 16, "a cell is read for every two bytes accessed");
enum { LANES = 1, WARPS = 2, BLOCKS = 4 };

/* A range of addresses with its cells. */
struct zone {
    uintptr_t at;
    size_t size;
    struct cell *cells;
};

static struct zone device, dynamic, fixed; /* fixed: __shared__ variables, in the TLS segment */
static struct zone image;                  /* the program itself: constants, threadIdx */
static char *stacks;
static size_t used;                      /* of device, ever */
static std::map<uintptr_t, size_t> live; /* allocations */
static std::map<uintptr_t, size_t> dead;
static std::multimap<size_t, uintptr_t> spare; /* of a sample, which uses addresses again */

enum : size_t { DEVICE_BYTES = (size_t)1 << 37, GAP = 512, PAGE = 4096 };

size_t sample()
{
    static const char *blocks = getenv("EMU_SAMPLE");
    static const size_t n = blocks ? strtoul(blocks, NULL, 10) : 0;
    return n;
}

bool eager()
{
    const char *how = getenv("EMU_STREAM");
    return how && !strcmp(how, "eager");
}

int card()
{
    const char *which = getenv("EMU_CARD");
    return which && !strcmp(which, "80") ? 80 : 90;
}

static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) {
        perror("emu: mmap");
        exit(4);
    }
    return p;
}

static struct cell *cells_for(size_t bytes)
{
    return (struct cell *)reserve((bytes + 1) / 2 * sizeof(struct cell));
}

/* The object that this code is in: the program, or a library that it opened (tests/gpu/driver). Its
 * TLS segment holds what device code calls __shared__; it is there once a thread has used it. */
static thread_local volatile char used_tls;
static int find_program(struct dl_phdr_info *info, size_t, void *)
{
    uintptr_t low = UINTPTR_MAX, high = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &p = info->dlpi_phdr[i];
        uintptr_t at = info->dlpi_addr + p.p_vaddr;
        if (p.p_type == PT_LOAD) {
            low = at < low ? at : low;
            high = at + p.p_memsz > high ? at + p.p_memsz : high;
        }
        if (p.p_type == PT_TLS) {
            fixed.at = (uintptr_t)info->dlpi_tls_data;
            fixed.size = p.p_memsz;
        }
    }
    if ((uintptr_t)find_program - low >= high - low)
        return 0;
    image.at = low;
    image.size = high - low;
    return 1;
}

static void begin()
{
    if (device.at)
        return;
    used_tls = 1;
    dl_iterate_phdr(find_program, NULL);
    fixed.cells = cells_for(fixed.size);
    /* Only 16 bytes of alignment are promised, so no more are given. */
    dynamic.at = (uintptr_t)reserve(SHARED_MOST + PAGE) + 16;
    dynamic.size = SHARED_MOST;
    dynamic.cells = cells_for(SHARED_MOST);
    stacks = (char *)reserve((size_t)MAX_THREADS * STACK);
    for (size_t i = 0; i < MAX_THREADS; i++)
        mprotect(stacks + i * STACK, PAGE, PROT_NONE); /* a stack that overflows ends here */
    device.cells = cells_for(DEVICE_BYTES);
    device.size = DEVICE_BYTES;
    device.at = (uintptr_t)reserve(DEVICE_BYTES);
    used = GAP; /* before the first, too */
}

static bool inside(const struct zone &z, uintptr_t a)
{
    return a - z.at < z.size;
}

char *mem_stacks()
{
    begin();
    return stacks;
}

void *mem_shared()
{
    return (void *)dynamic.at;
}

bool mem_in_shared(const void *p)
{
    return inside(dynamic, (uintptr_t)p) || inside(fixed, (uintptr_t)p);
}

unsigned mem_writer(const void *p)
{
    return dynamic.cells[((uintptr_t)p - dynamic.at) / 2].writer;
}

bool mem_is_device(const void *p)
{
    return inside(device, (uintptr_t)p);
}

/* ---- reports ---- */

static void say_where(const void *pc)
{
    char exe[4096], command[4300];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (!pc || n < 0)
        return;
    exe[n] = 0;
    /* One before the return address is within the call. */
    snprintf(command, sizeof command, "addr2line -Cfip -e '%s' %#zx >&2", exe,
             (uintptr_t)pc - image.at - 1);
    if (system(command))
        fprintf(stderr, "at %p\n", pc);
}

void fault(const void *pc, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fflush(stdout);
    fputs("emulated device: ", stderr);
    vfprintf(stderr, fmt, args);
    va_end(args);
    if (here.name) {
        fprintf(stderr, "\n  %s, block %u %u %u of %u %u %u, thread %u of %u x %u x %u", here.name,
                blockIdx.x, blockIdx.y, blockIdx.z, gridDim.x, gridDim.y, gridDim.z, here.thread,
                blockDim.x, blockDim.y, blockDim.z);
        if (here.file)
            fprintf(stderr, "; last at %s:%d", here.file, here.line);
    }
    fputc('\n', stderr);
    say_where(pc);
    fflush(stderr);
    abort();
}

/* ---- allocations ---- */

void *mem_alloc(size_t bytes)
{
    begin();
    auto again = spare.find(bytes);
    if (again != spare.end()) {
        void *p = (void *)again->second;
        live[again->second] = bytes;
        spare.erase(again);
        return p;
    }
    size_t room = (bytes + GAP + 255) / 256 * 256;
    if (bytes > DEVICE_BYTES - used || room > DEVICE_BYTES - used)
        return NULL;
    void *p = (void *)(device.at + used);
    live[(uintptr_t)p] = bytes;
    used += room;
    return p;
}

/* Gives whole pages back and clears the rest. */
static void drop(void *p, size_t bytes)
{
    uintptr_t at = (uintptr_t)p, first = (at + PAGE - 1) / PAGE * PAGE,
              last = (at + bytes) / PAGE * PAGE;
    if (first >= last) {
        memset(p, 0, bytes);
        return;
    }
    memset(p, 0, first - at);
    madvise((void *)first, last - first, MADV_DONTNEED);
    memset((void *)last, 0, at + bytes - last);
}

static struct cell *cell_of(const void *p)
{
    return device.cells + ((uintptr_t)p - device.at) / 2;
}

void mem_forget(void *p, size_t bytes)
{
    drop(cell_of(p), (bytes + 1) / 2 * sizeof(struct cell));
    drop(p, bytes);
}

bool mem_free(void *p)
{
    auto a = live.find((uintptr_t)p);
    if (a == live.end())
        return false;
    if (sample()) {
        spare.insert({a->second, a->first});
    } else {
        mem_forget(p, a->second);
        dead[a->first] = a->second;
    }
    live.erase(a);
    return true;
}

bool mem_again(void *p, size_t bytes)
{
    dead.erase((uintptr_t)p);
    return live.insert({(uintptr_t)p, bytes}).second;
}

/* Is [a, a + bytes) within an allocation? */
static bool allocated(uintptr_t a, size_t bytes)
{
    auto next = live.upper_bound(a);
    if (next == live.begin())
        return false;
    --next;
    return a - next->first <= next->second && bytes <= next->second - (a - next->first);
}

[[noreturn]] static void outside(const void *pc, uintptr_t a, size_t bytes, const char *what)
{
    for (const auto *list : {&live, &dead}) {
        auto next = list->upper_bound(a);
        if (next == list->begin())
            continue;
        --next;
        size_t at = a - next->first;
        if (at < next->second + GAP)
            fault(pc, "%s of %zu bytes at byte %zu of %s of %zu bytes", what, bytes, at,
                  list == &dead ? "a freed allocation" : "an allocation", next->second);
    }
    fault(pc, "%s of %zu bytes at %#zx, where nothing is allocated", what, bytes, a);
}

void mem_need(const void *p, size_t bytes, const char *what)
{
    if (bytes && !allocated((uintptr_t)p, bytes))
        outside(NULL, (uintptr_t)p, bytes, what);
}

void mem_need_init(const void *p, size_t bytes, const char *what)
{
    mem_need(p, bytes, what);
    const struct cell *c = cell_of(p);
    for (size_t i = 0; i < (bytes + 1) / 2 && !sample(); i++)
        if (!c[i].init)
            fault(NULL, "%s: byte %zu of %zu has never been written", what, 2 * i, bytes);
}

void mem_written(void *p, size_t bytes)
{
    struct cell *c = cell_of(p);
    for (size_t i = 0; i < (bytes + 1) / 2 && !sample(); i++)
        c[i] = {.write = here.now,
                .read = 0,
                .writer = 0,
                .reader = 0,
                .write_warp = 0,
                .read_warp = 0,
                .init = true,
                .readers = 0};
}

void mem_copied(void *dst, const void *src, size_t bytes)
{
    const struct cell *from = cell_of(src);
    struct cell *to = cell_of(dst);
    for (size_t i = 0; i < (bytes + 1) / 2 && !sample(); i++)
        to[i] = {.write = here.now,
                 .read = 0,
                 .writer = 0,
                 .reader = 0,
                 .write_warp = 0,
                 .read_warp = 0,
                 .init = from[i].init,
                 .readers = 0};
}

/* ---- one access ---- */

static const char *name_of(enum access how)
{
    return how == READ ? "read" : how == WRITE ? "write" : "atomic";
}

[[noreturn]] static void race(const void *pc, const struct zone &z, uintptr_t a, enum access how,
                              const char *other, unsigned thread)
{
    const char *kind = &z == &device ? "device" : "shared";
    if (thread < MAX_THREADS)
        fault(pc, "race: %s of %s memory at %#zx, which thread %u has %s since the last barrier",
              name_of(how), kind, a, thread, other);
    fault(pc, "race: %s of device memory at %#zx, which another block of this launch has %s",
          name_of(how), a, other);
}

/* An access of this epoch by `thread` at count `then`, another by `me` at count `now` of their
 * warp: is the first over before the second? */
static bool ordered(unsigned thread, uint8_t then, unsigned me, uint8_t now)
{
    return thread == me || (thread / WARP == me / WARP && then != now);
}

/* A reader is done with its value when its warp has met for anything: what a shuffle hands over, or
 * what comes behind it, cannot be known before. A writer's value is there for the other lanes only
 * behind a __syncwarp. */
static void touch(const struct zone &z, struct cell *c, uintptr_t a, unsigned me, enum access how,
                  const void *pc)
{
    bool global = &z == &device;
    uint8_t now = here.warp_now[me / WARP], met = here.warp_met[me / WARP];
    /* What was written before. */
    if (c->write == here.now && !ordered(c->writer, c->write_warp, me, now))
        race(pc, z, a, how, "written", c->writer);
    if (global && c->write >= here.launch_start && c->write < here.block_start)
        race(pc, z, a, how, "written", MAX_THREADS);
    bool readers_here = c->read >= here.launch_start;
    if (how == READ) {
        if (!readers_here)
            c->readers = 0;
        else if (c->read < here.block_start)
            c->readers = BLOCKS;
        else if (c->read != here.now)
            c->readers &= BLOCKS;
        else if (c->reader / WARP != me / WARP)
            c->readers |= WARPS;
        else if (c->read_warp != met)
            c->readers &= (uint8_t)~LANES;
        else if (c->reader != me)
            c->readers |= LANES;
        c->read = here.now;
        c->reader = (uint16_t)me;
        c->read_warp = met;
        return;
    }
    if (global && readers_here && (c->read < here.block_start || c->readers & BLOCKS))
        race(pc, z, a, how, "read", MAX_THREADS);
    if (c->read == here.now && (c->readers & WARPS || !ordered(c->reader, c->read_warp, me, met) ||
                                (c->read_warp == met && c->readers & LANES)))
        race(pc, z, a, how, "read", c->reader);
    c->write = here.now;
    c->writer = (uint16_t)me;
    c->write_warp = now;
    c->init = true;
}

void mem_access_by(unsigned me, const void *p, size_t bytes, enum access how, const void *pc)
{
    uintptr_t a = (uintptr_t)p;
    const struct zone *z = inside(device, a)    ? &device
                           : inside(dynamic, a) ? &dynamic
                           : inside(fixed, a)   ? &fixed
                                                : NULL;
    if (!z) {
        if (how == READ && inside(image, a))
            return; /* a constant */
        fault(pc, "%s of %zu bytes at %#zx, which is not the device's memory", name_of(how), bytes,
              a);
    }
    if (z == &dynamic && (a - z->at > here.shared || bytes > here.shared - (a - z->at)))
        fault(pc, "%s of %zu bytes at byte %zu of %zu bytes of dynamic shared memory", name_of(how),
              bytes, a - z->at, here.shared);
    if (z == &dynamic && watch.access)
        watch.access(me, p, bytes, how, pc);
    struct cell *c = z->cells + (a - z->at) / 2, *end = z->cells + (a - z->at + bytes + 1) / 2;
    for (size_t i = 0; c + i < end; i++) {
        bool init = z == &device ? c[i].init : c[i].write >= here.block_start;
        if (!init) {
            if (z == &device && !allocated(a, bytes))
                outside(pc, a, bytes, name_of(how));
            if (sample())
                c[i].init = true; /* is allocated: not looked up again */
            else if (how != WRITE)
                fault(pc, "%s of %s memory that nobody has written (byte %zu of %zu at %#zx)",
                      name_of(how), z == &device ? "device" : "shared", 2 * i, bytes, a);
        }
        if (how != ATOMIC)
            touch(*z, &c[i], a + 2 * i, me, how, pc);
    }
}

void mem_access(const void *p, size_t bytes, enum access how, const void *pc)
{
    if ((uintptr_t)p - (uintptr_t)stacks < (size_t)MAX_THREADS * STACK)
        return;
    if (here.name)
        mem_access_by(here.thread, p, bytes, how, pc);
    else if (inside(device, (uintptr_t)p))
        fault(pc, "the host %ss device memory at %p", name_of(how), p);
}

} // namespace emu

/* ---- what -fsanitize=thread calls ---- */

extern "C" {

#define ACCESS(bytes)                                                                              \
    void __tsan_read##bytes(void *p)                                                               \
    {                                                                                              \
        aligned(p, bytes, __builtin_return_address(0));                                            \
        emu::mem_access(p, bytes, emu::READ, __builtin_return_address(0));                         \
    }                                                                                              \
    void __tsan_write##bytes(void *p)                                                              \
    {                                                                                              \
        aligned(p, bytes, __builtin_return_address(0));                                            \
        emu::mem_access(p, bytes, emu::WRITE, __builtin_return_address(0));                        \
    }                                                                                              \
    void __tsan_volatile_read##bytes(void *p)                                                      \
    {                                                                                              \
        aligned(p, bytes, __builtin_return_address(0));                                            \
        emu::mem_access(p, bytes, emu::READ, __builtin_return_address(0));                         \
    }                                                                                              \
    void __tsan_volatile_write##bytes(void *p)                                                     \
    {                                                                                              \
        aligned(p, bytes, __builtin_return_address(0));                                            \
        emu::mem_access(p, bytes, emu::WRITE, __builtin_return_address(0));                        \
    }

static inline void aligned(void *p, size_t bytes, const void *pc)
{
    if (emu::here.name && (uintptr_t)p % bytes)
        emu::fault(pc, "an access of %zu bytes at %p is not aligned", bytes, p);
}

ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)

void __tsan_init()
{
}
void __tsan_func_entry(void *)
{
}
void __tsan_func_exit()
{
}
void __tsan_vptr_update(void **, void *)
{
}
void __tsan_vptr_read(void **)
{
}

void __tsan_read_range(void *p, size_t n)
{
    emu::mem_access(p, n, emu::READ, __builtin_return_address(0));
}

void __tsan_write_range(void *p, size_t n)
{
    emu::mem_access(p, n, emu::WRITE, __builtin_return_address(0));
}

/* The compiler says "unaligned" where it knows of no alignment; hardware has none to offer. */
#define UNALIGNED(bytes)                                                                           \
    void __tsan_unaligned_read##bytes(void *p)                                                     \
    {                                                                                              \
        __tsan_read##bytes(p);                                                                     \
    }                                                                                              \
    void __tsan_unaligned_write##bytes(void *p)                                                    \
    {                                                                                              \
        __tsan_write##bytes(p);                                                                    \
    }
UNALIGNED(2)
UNALIGNED(4)
UNALIGNED(8)
UNALIGNED(16)
}
