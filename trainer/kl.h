/*
 * kl.h - how far a quantised model's predictions are from the float model's.
 *
 * KL(model || copy) = mean over tokens of sum_v p_v (log p_v - log q_v), in nats, over a fixed
 * stretch of text. What quantisation adds to the loss on the model's own text in expectation, with
 * a hundredth of the noise of a difference between two losses.
 */
#ifndef TRAINER_KL_H
#define TRAINER_KL_H

#include "trainer/hessian.h"

struct kl {
    const struct gpt *m;
    struct kern *k;
    struct graph g;
    size_t seqs, per, dim, vocab; /* sequences, and those of one forward */
    uint16_t *ids;                /* host [seqs][t] */
    float *params, *head;         /* backend: of the copy; head weight of the model */
    float *hidden;                /* backend [seqs*t][dim]: input of the model's head */
    float *logits[2], *host[2];   /* [KL_ROWS][vocab] */
};

enum { KL_ROWS = 256 };

/*
 * kl_open - run the model over about `tokens` tokens of c and keep what its head read.
 *
 *   params  host, the whole parameter block, not needed afterwards
 *
 * Fails: ERR_RESOURCE (memory), and as take() does. Then nothing is held. Release with kl_close,
 * which accepts a zeroed struct.
 */
enum err_code kl_open(struct kl *l, const struct gpt *m, const float *params, size_t tokens,
                      const struct calib *c, struct err *e);
void kl_close(struct kl *l);

/* kl_measure - the divergence of a copy with these params (host), nats per token. */
enum err_code kl_measure(struct kl *l, const float *params, double *kl, struct err *e);

#endif
