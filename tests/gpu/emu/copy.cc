/*
 * copy.cc - copies into shared memory that are under way while their thread goes on, and what
 * products of a warpgroup (wgmma.cc) may read of it, as the PTX ISA manual defines them (sections
 * "Non-bulk copy", "Async proxy").
 *
 * The bytes of a copy come as late as they may, when its group is waited for; with
 * EMU_STREAM=eager at once. Found are
 *   - any access to 16 bytes that a copy is on its way to, and a write to what a product may still
 *     be reading; a copy is also a write by its thread, an access like others (memory.cc), both
 *     when it begins and when it is waited for;
 *   - products that read what a thread has written without a copy_publish of that thread behind
 *     it, or without a barrier behind that: products see memory through another proxy;
 *   - copies that are not aligned, or between other memories; copies that nobody has waited for at
 *     the end of their thread.
 */
#include "tests/gpu/emu/wgmma.h"

#include <vector>

namespace emu
{

struct copy {
    char *to;
    const char *from; /* NULL: zeros */
    const void *pc;
};

struct copier {
    std::vector<std::vector<struct copy>> groups;
    std::vector<struct copy> open;   /* not yet in a group */
    std::vector<uint32_t> published; /* the epoch of each copy_publish */
};

/* 16 bytes of dynamic shared memory. */
struct grain {
    uint16_t products; /* of warps, that read them */
    uint16_t copier;   /* a thread whose copy is under way, plus 1 */
};

static struct copier threads[MAX_THREADS];
static struct grain grains[SHARED_MOST / 16];
/* Of every two bytes: how often their writer had published when it wrote. */
static uint32_t marks[SHARED_MOST / 2];
static bool at_once;

static size_t offset(const void *p)
{
    return (size_t)((const char *)p - (const char *)mem_shared());
}

/* Copies may also go to shared memory of a fixed size; they are not followed there. */
static struct grain *grain_of(const void *p)
{
    return offset(p) < SHARED_MOST ? &grains[offset(p) / 16] : NULL;
}

static void on_access(unsigned thread, const void *p, size_t bytes, enum access how, const void *pc)
{
    size_t from = offset(p), to = from + bytes;
    for (size_t i = from / 16; i < (to + 15) / 16; i++) {
        if (grains[i].copier)
            fault(pc,
                  "race: %s of shared memory at byte %zu, to which a copy of thread %u is "
                  "under way",
                  how == READ ? "read" : "write", from, grains[i].copier - 1u);
        if (grains[i].products && how != READ)
            fault(pc, "race: write of shared memory at byte %zu, which a product under way reads",
                  from);
    }
    for (size_t i = from / 2; how != READ && i < (to + 1) / 2; i++)
        marks[i] = (uint32_t)threads[thread].published.size();
}

static void on_leave()
{
    const struct copier &t = threads[here.thread];
    bool left = !t.open.empty();
    for (const auto &group : t.groups)
        left = left || !group.empty();
    if (left)
        fault(NULL, "a thread returns and has not waited for its copies");
    product_leave();
}

/* The first of these instructions in a block: nothing is under way, or published. */
void async_begin()
{
    if (watch.access)
        return;
    for (unsigned i = 0; i < blockDim.x * blockDim.y * blockDim.z; i++)
        threads[i] = {};
    memset(grains, 0, (here.shared + 15) / 16 * sizeof *grains);
    memset(marks, 0, (here.shared + 1) / 2 * sizeof *marks);
    at_once = eager();
    product_block();
    watch = {on_access, on_leave, product_meet};
}

/* ---- copies ---- */

static void move(const struct copy &c)
{
    if (c.from)
        memcpy(c.to, c.from, 16);
    else
        memset(c.to, 0, 16);
}

static void check_copy(const struct copy &c)
{
    if (c.from)
        mem_access(c.from, 16, READ, c.pc);
    mem_access(c.to, 16, WRITE, c.pc);
}

void async_place::start_copy(void *to, const void *from, bool there) const
{
    struct copy c = {(char *)to, there ? (const char *)from : NULL, __builtin_return_address(0)};
    async_begin();
    if (!mem_in_shared(to))
        fault(c.pc, "copy16 to %p, which is not in shared memory", to);
    if (there && !mem_is_device(from))
        fault(c.pc, "copy16 from %p, which is not in global memory", from);
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16)
        fault(c.pc, "copy16 from %p to %p, which are not both aligned to 16", from, to);
    check_copy(c);
    if (struct grain *g = grain_of(to))
        g->copier = (uint16_t)(here.thread + 1);
    if (at_once)
        move(c);
    threads[here.thread].open.push_back(c);
}

void async_place::end_copies() const
{
    async_begin();
    struct copier &t = threads[here.thread];
    t.groups.push_back(std::move(t.open));
    t.open.clear();
}

void async_place::wait_for_copies(int n) const
{
    async_begin();
    struct copier &t = threads[here.thread];
    for (; t.groups.size() > (size_t)n; t.groups.erase(t.groups.begin()))
        for (const struct copy &c : t.groups.front()) {
            if (struct grain *g = grain_of(c.to))
                g->copier = 0;
            check_copy(c);
            if (!at_once)
                move(c);
        }
}

void async_place::publish() const
{
    async_begin();
    threads[here.thread].published.push_back(here.now);
}

/* ---- what products read ---- */

/* What a thread has written is seen by a product when it has been published, and that is behind a
 * barrier. */
static void check_published(const char *at)
{
    for (unsigned i = 0; i < 16; i += 2) {
        unsigned writer = mem_writer(at + i);
        const std::vector<uint32_t> &when = threads[writer].published;
        uint32_t mark = marks[offset(at + i) / 2];
        if (when.size() <= mark)
            fault(NULL,
                  "a product reads byte %zu of shared memory, which thread %u has written "
                  "without copy_publish since",
                  offset(at + i), writer);
        if (when[mark] == here.now && writer / WARP != here.thread / WARP)
            fault(NULL,
                  "a product reads byte %zu of shared memory, which thread %u has published "
                  "without a barrier since",
                  offset(at + i), writer);
    }
}

void async_read_begins(const void *p)
{
    mem_access(p, 16, READ, NULL);
    check_published((const char *)p);
    grain_of(p)->products++;
}

void async_read_ends(const void *p)
{
    grain_of(p)->products--;
    mem_access(p, 16, READ, NULL);
}

} // namespace emu
