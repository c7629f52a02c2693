/*
 * wgmma.h - stands in for the instructions of kernels/cuda/wgmma.cuh, which says what each does;
 * wgmma.cc says how they are emulated and what is checked. kernels/cuda/wgmma.cuh includes it.
 *
 * What a kernel must do for it, beyond what the card asks for: the registers of a product (d, and a
 * of wgmma_acc) are arrays of the thread that stay where they are, and in scope, until wgmma_wait
 * has waited for the product and wgmma_done has given d back. An `a` that is declared in a loop
 * which issues several products before it waits is overwritten too early.
 */
#ifndef TESTS_GPU_EMU_WGMMA_H
#define TESTS_GPU_EMU_WGMMA_H

#include "tests/gpu/emu/device.h"

typedef unsigned wgmma_tile; /* the lower half of a descriptor */

namespace emu
{

/* The wrappers of kernels/cuda/wgmma.cuh, each at the line that it stands in. */
struct async_place {
    const char *file;
    int line;

    void start_copy(void *to, const void *from, bool there) const;
    void end_copies() const;
    template <int N> void wait_copies() const
    {
        static_assert(N >= 0, "a number of groups");
        wait_for_copies(N);
    }
    void publish() const;

    wgmma_tile tile_of(const void *tile) const;
    void begin() const;
    void product_nt(float (*d)[4], wgmma_tile a, wgmma_tile b, bool add) const;
    void product_nt128(float (*d)[4], wgmma_tile a, wgmma_tile b, bool add) const;
    void product_ntr(float (*d)[4], const unsigned *a, wgmma_tile b, bool add) const;
    void product_acc(float (*d)[4], const unsigned *a, wgmma_tile b) const;
    void commit() const;
    template <int N> void wait() const
    {
        static_assert(N >= 0 && N < 8, "a number of groups");
        wait_for_products(N);
    }
    void give_back(float (*d)[4]) const;

  private:
    void wait_for_copies(int n) const;
    void wait_for_products(int n) const;
};

} // namespace emu

static inline wgmma_tile wgmma_cols(wgmma_tile t, int k)
{
    return t + (wgmma_tile)(k * 2 / 16);
}

static inline wgmma_tile wgmma_rows(wgmma_tile t, int r)
{
    return t + (wgmma_tile)(r * 128 / 16);
}

/* All threads are at barriers of this kind, wherever these stand. */
template <int N> static inline void barrier_anywhere()
{
    if (N != blockDim.x * blockDim.y * blockDim.z)
        emu::fault(NULL, "barrier_anywhere is for all threads of a block, not for %d", N);
    emu::barrier(false, "barrier_anywhere", 0);
}

#define EMU_ASYNC                                                                                  \
    emu::async_place                                                                               \
    {                                                                                              \
        __FILE__, __LINE__                                                                         \
    }
#define copy16(...)      EMU_ASYNC.start_copy(__VA_ARGS__)
#define copy_commit()    EMU_ASYNC.end_copies()
#define copy_wait        EMU_ASYNC.wait_copies
#define copy_publish()   EMU_ASYNC.publish()
#define wgmma_of(tile)   EMU_ASYNC.tile_of(tile)
#define wgmma_begin()    EMU_ASYNC.begin()
#define wgmma_nt(...)    EMU_ASYNC.product_nt(__VA_ARGS__)
#define wgmma_nt128(...) EMU_ASYNC.product_nt128(__VA_ARGS__)
#define wgmma_ntr(...)   EMU_ASYNC.product_ntr(__VA_ARGS__)
#define wgmma_acc(...)   EMU_ASYNC.product_acc(__VA_ARGS__)
#define wgmma_commit()   EMU_ASYNC.commit()
#define wgmma_wait       EMU_ASYNC.wait
#define wgmma_done(d)    EMU_ASYNC.give_back(d)
#define wgmma_done128(d) EMU_ASYNC.give_back(d)

#endif
