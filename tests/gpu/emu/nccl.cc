/*
 * nccl.cc - NCCL's functions for processes that each have an emulated card: bytes go over sockets
 * of the machine (unix(7), abstract names), one between every two ranks.
 *
 * A communicator that does not block is what there is: it begins when GetAsyncError has been asked
 * often enough. A group is work of its stream and is carried out when the host waits for it; then
 * it ends only together with its counterparts, as on a card. Checked are: that both sides name the
 * same number of bytes, that what is sent has been written, that memory is the card's; calls
 * outside of a group, or while the communicator is not ready; a group whose counterpart does not
 * come in LIMIT_S seconds. A rank that is gone is an asynchronous error.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <deque>
#include <memory>
#include <vector>

#include "tests/gpu/emu/nccl.h"

enum { LIMIT_S = 60 };

struct emu_nccl {
    uint64_t id;
    int rank, size, listener, missing;
    ncclResult_t state;
    std::vector<int> fd;
};

/* One send or receive of a group: the number of bytes, then these. */
struct op {
    bool send;
    char *at;
    size_t bytes;
    int peer;
    ncclComm_t comm;
    cudaStream_t stream;
    uint64_t head;
    size_t moved; /* of the head's 8 bytes and all others */
};

static int depth;
static std::vector<op> group;

/* ---- beginning and end ---- */

static socklen_t name_of(struct sockaddr_un *a, uint64_t id, int rank)
{
    *a = {};
    a->sun_family = AF_UNIX;
    int n = snprintf(a->sun_path + 1, sizeof a->sun_path - 1, "emu-nccl-%016llx-%d",
                     (unsigned long long)id, rank);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    *id = {};
    return getrandom(id, 8, 0) == 8 ? ncclSuccess : ncclSystemError;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    struct sockaddr_un a;
    if (config->blocking || rank < 0 || rank >= size)
        return ncclInvalidArgument;
    ncclComm_t c = new emu_nccl();
    memcpy(&c->id, &id, 8);
    c->rank = rank;
    c->size = size;
    c->missing = size - 1;
    c->state = ncclInProgress;
    c->fd.assign((size_t)size, -1);
    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t n = name_of(&a, c->id, rank);
    *out = c;
    if (bind(c->listener, (struct sockaddr *)&a, n) || listen(c->listener, size))
        return c->state = ncclSystemError;
    return ncclInProgress;
}

/* One attempt at those who are missing: to lower ranks, from higher ones, who say who they are. */
static void find_others(ncclComm_t c)
{
    struct sockaddr_un a;
    for (int r = 0; r < c->rank; r++) {
        int fd;
        if (c->fd[(size_t)r] >= 0)
            continue;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        socklen_t n = name_of(&a, c->id, r);
        if (connect(fd, (struct sockaddr *)&a, n) ||
            write(fd, &c->rank, sizeof c->rank) != sizeof c->rank) {
            close(fd);
            continue;
        }
        fcntl(fd, F_SETFL, O_NONBLOCK);
        c->fd[(size_t)r] = fd;
        c->missing--;
    }
    for (int fd, r; (fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0;) {
        if (read(fd, &r, sizeof r) != sizeof r || r <= c->rank || r >= c->size)
            emu::fault(NULL, "NCCL: who connects is no rank");
        fcntl(fd, F_SETFL, O_NONBLOCK);
        c->fd[(size_t)r] = fd;
        c->missing--;
    }
    if (!c->missing)
        c->state = ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *state)
{
    if (c->state == ncclInProgress)
        find_others(c);
    *state = c->state;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t)
{
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    for (int fd : c->fd)
        if (fd >= 0)
            close(fd);
    close(c->listener);
    delete c;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t c)
{
    return ncclCommDestroy(c);
}

const char *ncclGetErrorString(ncclResult_t status)
{
    return status == ncclRemoteError ? "remote process exited or there was a network error"
                                     : "an error of the emulated NCCL";
}

const char *ncclGetLastError(ncclComm_t)
{
    return "";
}

/* ---- groups ---- */

ncclResult_t ncclGroupStart()
{
    depth++;
    return ncclSuccess;
}

static ncclResult_t add(bool send, void *at, size_t n, ncclDataType_t type, int peer, ncclComm_t c,
                        cudaStream_t stream)
{
    if (!depth || c->state != ncclSuccess)
        emu::fault(NULL, "NCCL: a send or receive outside of a group, or before the communicator "
                         "is ready");
    if (type != ncclUint8 || peer < 0 || peer >= c->size || peer == c->rank || !n)
        return ncclInvalidArgument;
    group.push_back({send, (char *)at, n, peer, c, stream, n, 0});
    return ncclSuccess;
}

ncclResult_t ncclSend(const void *at, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return add(true, (void *)(uintptr_t)at, n, type, peer, comm, stream);
}

ncclResult_t ncclRecv(void *at, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return add(false, at, n, type, peer, comm, stream);
}

static bool done(const op &o)
{
    return o.moved == 8 + o.bytes;
}

/* As far as it goes now. False: the peer is gone. */
static bool move(op &o)
{
    int fd = o.comm->fd[(size_t)o.peer];
    while (!done(o)) {
        bool head = o.moved < 8;
        char *at = head ? (char *)&o.head + o.moved : o.at + (o.moved - 8);
        size_t n = head ? 8 - o.moved : o.bytes - (o.moved - 8);
        ssize_t got = o.send ? send(fd, at, n, MSG_NOSIGNAL) : recv(fd, at, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return true;
        if (got <= 0)
            return false;
        o.moved += (size_t)got;
        if (o.moved == 8 && o.head != o.bytes)
            emu::fault(NULL, "NCCL: rank %d sends %llu bytes, rank %d receives %zu", o.peer,
                       (unsigned long long)o.head, o.comm->rank, o.bytes);
    }
    return true;
}

/* All of a group; what goes one way between two ranks goes in order. */
static void carry_out(std::vector<op> &ops)
{
    time_t until = time(NULL) + LIMIT_S;
    emu::here.now++;
    for (op &o : ops) {
        if (!emu::mem_is_device(o.at))
            emu::fault(NULL, "NCCL: memory of the host");
        if (o.send)
            emu::mem_need_init(o.at, o.bytes, "ncclSend");
        else
            emu::mem_need(o.at, o.bytes, "ncclRecv");
    }
    for (bool all = false; !all;) {
        std::vector<struct pollfd> wait;
        all = true;
        for (size_t i = 0; i < ops.size(); i++) {
            op &o = ops[i];
            bool first = true;
            for (size_t j = 0; j < i; j++)
                first = first && (ops[j].peer != o.peer || ops[j].send != o.send || done(ops[j]));
            if (first && !move(o)) {
                o.comm->state = ncclRemoteError;
                return;
            }
            if (first && !done(o))
                wait.push_back({o.comm->fd[(size_t)o.peer], (short)(o.send ? POLLOUT : POLLIN), 0});
            all = all && done(o);
        }
        if (!all)
            poll(wait.data(), wait.size(), 100);
        if (time(NULL) > until)
            emu::fault(NULL, "NCCL: rank %d waits for an exchange that the others do not begin",
                       ops[0].comm->rank);
    }
    for (op &o : ops)
        if (!o.send)
            emu::mem_written(o.at, o.bytes);
}

ncclResult_t ncclGroupEnd()
{
    if (!depth)
        return ncclInvalidUsage;
    if (--depth || group.empty())
        return ncclSuccess;
    auto ops = std::make_shared<std::vector<op>>(std::move(group));
    group.clear();
    emu::enqueue((*ops)[0].stream, [ops] { carry_out(*ops); });
    return ncclSuccess;
}

/* ---- opening ---- */

static const struct {
    const char *name;
    void *function;
} functions[] = {
#define F(name)                                                                                    \
    {                                                                                              \
#name, (void *)name                                                                        \
    }
    F(ncclGetUniqueId),
    F(ncclCommInitRankConfig),
    F(ncclCommGetAsyncError),
    F(ncclCommFinalize),
    F(ncclCommDestroy),
    F(ncclCommAbort),
    F(ncclGetErrorString),
    F(ncclGetLastError),
    F(ncclGroupStart),
    F(ncclGroupEnd),
    F(ncclSend),
    F(ncclRecv),
#undef F
};

/* EMU_NCCL=none: a machine without the library. */
void *emu_nccl_dlopen(const char *name)
{
    const char *nccl = getenv("EMU_NCCL");
    return strstr(name, "nccl") && !(nccl && !strcmp(nccl, "none")) ? (void *)functions : NULL;
}

void *emu_nccl_dlsym(void *, const char *name)
{
    for (const auto &f : functions)
        if (!strcmp(f.name, name))
            return f.function;
    return NULL;
}
