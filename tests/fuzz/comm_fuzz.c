/*
 * comm_fuzz - any frames from the other end of a connection between ranks. Random bytes are no
 * frame, so the input is a list of frames that gets its magic number here: kind, sequence, bytes,
 * total (one byte each, the largest of which stands for a huge number), then how many bytes follow
 * in fact. Every 17th frame keeps a wrong magic number.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "trainer/comm_tcp.h"

enum { HEADS = 5, PARTS = 5, BODY = 300 };

static const size_t sizes[PARTS] = {1, 5, 40, 41, 254};

static uint64_t large(uint8_t b)
{
    return b == 255 ? UINT64_MAX - 7 : b;
}

static size_t make_frame(uint8_t *out, const uint8_t *in, size_t at)
{
    static const uint8_t magic[4] = "pcom";
    size_t follow = in[4];
    memset(out, 0, TCP_HEAD);
    memcpy(out, magic, 4);
    out[0] = (uint8_t)(out[0] + (at % 17 == 16));
    tcp_put(out + 4, in[0] % 8, 4);
    tcp_put(out + 16, large(in[1]), 8);
    tcp_put(out + 24, large(in[2]), 8);
    tcp_put(out + 32, large(in[3]), 8);
    memset(out + TCP_HEAD, 'x', follow);
    return TCP_HEAD + follow;
}

/* Rank 1's link of rank 0, with parts of all sizes wanted and one to be sent. */
static void post(struct tcp_link *l, struct comm_batch *b, struct tcp_item *item, char *mem)
{
    for (size_t i = 0; i < PARTS; i++) {
        item[i] = (struct tcp_item){.b = b, .index = i, .at = mem + i * 256, .bytes = sizes[i]};
        tcp_queue(&l->recv, &item[i]);
    }
    item[PARTS] = (struct tcp_item){.b = b, .index = PARTS, .at = mem, .bytes = 9};
    tcp_queue(&l->send, &item[PARTS]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct comm_job job = {.rank = 0, .size = 2, .timeout_s = 100, .patience_s = 100};
    struct comm_part parts[PARTS + 1] = {{0}};
    struct tcp_item item[PARTS + 1];
    struct tcp_link link[2] = {{.fd = -1, .out_at = TCP_HEAD},
                               {.readable = true, .writable = true, .out_at = TCP_HEAD}};
    struct tcp t = {.size = 2, .link = link};
    uint8_t frame[TCP_HEAD + BODY];
    int fd[2];
    for (size_t i = 0; i <= PARTS; i++)
        parts[i].peer = 1;
    struct comm_batch *b = comm_batch_new(parts, PARTS + 1);
    char *mem = calloc(PARTS, 256);
    if (!b || !mem || watch_open(&t.watch, &job, NULL) || socketpair(AF_UNIX, SOCK_STREAM, 0, fd))
        abort();
    fcntl(fd[0], F_SETFL, O_NONBLOCK);
    pthread_mutex_init(&t.lock, NULL);
    pthread_cond_init(&t.change, NULL);
    link[1].fd = fd[0];
    post(&link[1], b, item, mem);
    for (size_t at = 0; (at + 1) * HEADS <= n && link[1].readable; at++) {
        size_t bytes = make_frame(frame, data + at * HEADS, at);
        if (send(fd[1], frame, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            break;
        tcp_take(&t, &link[1]);
        tcp_give(&t, &link[1]);
    }
    tcp_break_off(&link[1]);
    free(link[1].spill);
    close(fd[0]);
    close(fd[1]);
    pthread_cond_destroy(&t.change);
    pthread_mutex_destroy(&t.lock);
    watch_close(&t.watch);
    comm_batch_free(b);
    free(mem);
    return 0;
}
