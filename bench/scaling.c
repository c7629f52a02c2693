/*
 * scaling.c - what a step of several ranks sends, and what that costs on cards: the arithmetic of
 * docs/scaling.md.
 *
 *     build/bench/scaling volume RANKS RECIPE [KEY=VALUE]...
 *     build/bench/scaling model RECIPE [KEY=VALUE]...
 *
 * `volume` prints, for RANKS ranks, what trainer/reduce.h and trainer/spread.h send: for rank 0
 * (whose numbers the log of a run has), the rank with most, and the mean. It takes pieces and sums
 * from the code itself and counts their bytes by the formula, so that bench/scaling.sh can hold the
 * formula against the bytes that a run has counted.
 *
 * `model` prints a step's time on machines of eight cards for several numbers of ranks. Constants
 * below, each with its source; nothing of it was measured on cards here.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/plan.h"
#include "trainer/reduce.h"

/* Cards of one machine, and what one of them sends and receives at the same time, bytes per second:
 * NVLink 4, 450 GB/s less protocol (NVIDIA/nccl-tests #212: 370); InfiniBand NDR, 400 Gb/s per
 * card, an all-to-all of NCCL between two machines (deepseek-ai/DeepEP #3: 46). */
enum { CARDS = 8 };
static const double NVLINK = 370e9, NETWORK = 46e9;
/* An exchange of hardly any bytes: the same sources for machines (30 us), DeepEP #303 within one.
 */
static const double NVLINK_LATENCY = 11e-6, NETWORK_LATENCY = 30e-6;
/* One H200's time for the 384 sequences of 2,048 tokens of PR #1296's step before step 3000, and
 * the part of it that is backward: the floor of the notes that the project was planned with. */
static const double CARD_SECONDS = 0.425, CARD_SEQUENCES = 384, BACKWARD = 0.69;
/* Five steps of Newton-Schulz of one matrix: 15 products one after the other; assumed. */
static const double MUON_LATENCY = 150e-6, MATRIX_RATE = 790e12;

struct job {
    struct gpt m;
    struct plan plan;
    size_t ranks, sums; /* sums of all ranks (split.h) */
    struct piece_list p;
    size_t *own;   /* [ranks] floats that a rank owns */
    size_t *nodes; /* [ranks] sums that it comes to */
};

struct volume {
    double sent, received; /* bytes of a step */
};

static void job_free(struct job *j)
{
    free(j->own);
    free(j->nodes);
    piece_free(&j->p);
}

static enum err_code job_init(struct job *j, size_t ranks, struct err *e)
{
    const size_t grad_ranks = (size_t)j->m.r.grad_ranks;
    enum err_code rc = piece_list(&j->p, &j->m, 0, ranks, e);
    j->ranks = ranks;
    j->sums = 0;
    j->own = calloc(ranks, sizeof *j->own);
    j->nodes = calloc(ranks, sizeof *j->nodes);
    if (rc || !j->own || !j->nodes)
        return rc ? rc : err_nomem(e, "ranks", ranks);
    if (ranks > j->plan.groups)
        return err_set(e, ERR_USAGE, "%zu ranks: a step has %zu gradients", ranks, j->plan.groups);
    for (size_t i = 0; i < j->p.pieces; i++)
        j->own[j->p.piece[i].owner] += j->p.piece[i].n;
    for (size_t r = 0; r < ranks; r++) {
        struct reduce_share s;
        reduce_share(&s, j->plan.micros, grad_ranks, r, ranks);
        j->nodes[r] = s.nodes;
        j->sums += s.nodes;
    }
    return ERR_OK;
}

/*
 * With P parameters, of which rank r owns P_r, and s_r sums of rank r, to and from the ranks [from,
 * to): gradients      it sends 4 s_r (what they own), and receives 4 P_r (their sums) new weights
 * it sends 4 P_r each,            and receives 4 (what they own)
 */
static struct volume volume(const struct job *j, size_t rank, size_t from, size_t to, bool weights)
{
    double own = 0, sums = 0, peers = 0;
    for (size_t r = from; r < to; r++)
        if (r != rank) {
            own += (double)j->own[r];
            sums += (double)j->nodes[r];
            peers++;
        }
    double mine = (double)j->own[rank];
    return weights ? (struct volume){4 * mine * peers, 4 * own}
                   : (struct volume){4 * (double)j->nodes[rank] * own, 4 * mine * sums};
}

static struct volume whole(const struct job *j, size_t rank)
{
    struct volume a = volume(j, rank, 0, j->ranks, false), b = volume(j, rank, 0, j->ranks, true);
    return (struct volume){a.sent + b.sent, a.received + b.received};
}

static void print_volume(const struct job *j)
{
    struct volume zero = whole(j, 0), most = {0}, all = {0};
    for (size_t r = 0; r < j->ranks; r++) {
        struct volume v = whole(j, r);
        most.sent = v.sent > most.sent ? v.sent : most.sent;
        most.received = v.received > most.received ? v.received : most.received;
        all.sent += v.sent;
        all.received += v.received;
    }
    printf("parameters %zu sums %zu rank0 %.0f %.0f most %.0f %.0f mean %.0f %.0f\n", j->m.floats,
           j->sums, zero.sent, zero.received, most.sent, most.received, all.sent / (double)j->ranks,
           all.received / (double)j->ranks);
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* Seconds of the slowest rank; a card's link and its network card work side by side. */
static double seconds(const struct job *j, bool weights)
{
    double worst = 0;
    for (size_t r = 0; r < j->ranks; r++) {
        size_t from = r / CARDS * CARDS, to = from + CARDS < j->ranks ? from + CARDS : j->ranks;
        struct volume near = volume(j, r, from, to, weights);
        struct volume low = volume(j, r, 0, from, weights);
        struct volume high = volume(j, r, to, j->ranks, weights);
        double net = larger(low.sent + high.sent, low.received + high.received) / NETWORK;
        worst = larger(worst, larger(larger(near.sent, near.received) / NVLINK, net));
    }
    return worst;
}

/* The same bytes halved level by level along the tree, evenly owned: P/2 + P/4 + P/8 floats stay
 * within a machine of eight, the rest goes over the network. */
static double seconds_by_levels(const struct job *j)
{
    double bytes = 4 * (double)j->m.floats, n = (double)j->ranks;
    double in = n < CARDS ? n : CARDS;
    return bytes * (1 - 1 / in) / NVLINK + bytes * (1 / in - 1 / n) / NETWORK;
}

static double muon_seconds(const struct job *j)
{
    double worst = 0;
    for (size_t r = 0; r < j->ranks; r++) {
        double flop = 0, matrices = 0;
        for (size_t i = 0; i < j->p.pieces; i++) {
            const struct piece *p = &j->p.piece[i];
            double a = (double)(p->rows < p->cols ? p->rows : p->cols);
            double b = (double)(p->rows < p->cols ? p->cols : p->rows);
            if (p->owner != r || p->group != OPTIM_MUON)
                continue;
            flop += (double)j->m.r.muon_backend_steps * (4 * a * a * b + 2 * a * a * a);
            matrices++;
        }
        worst = larger(worst, larger(flop / MATRIX_RATE, matrices > 0 ? MUON_LATENCY : 0));
    }
    return worst;
}

static void print_model(const struct job *j)
{
    const struct recipe *r = &j->m.r;
    double sequences = (double)r->train_batch_tokens / (double)r->train_seq_len;
    double alone = CARD_SECONDS / CARD_SEQUENCES * sequences, n = (double)j->ranks;
    struct reduce_share s; /* rank 0 has most */
    reduce_share(&s, j->plan.micros, (size_t)r->grad_ranks, 0, j->ranks);
    double micro = (double)j->plan.micro_seqs * CARD_SECONDS / CARD_SEQUENCES;
    double compute = (double)s.micro.count * micro;
    double latency = j->ranks == 1 ? 0 : j->ranks > CARDS ? NETWORK_LATENCY : NVLINK_LATENCY;
    double reduce = seconds(j, false), gather = seconds(j, true), muon = muon_seconds(j);
    double hidden = BACKWARD * micro, open = (reduce > hidden ? reduce - hidden : 0) + latency;
    double step = compute + open + muon + gather + latency;
    double levels = seconds_by_levels(j);
    double lopen = (levels > hidden ? levels - hidden : 0) + latency;
    double lstep = compute + lopen + muon + levels + latency;
    size_t most = 0;
    for (size_t i = 0; i < j->ranks; i++)
        most = j->own[i] > most ? j->own[i] : most;
    printf("| %zu | %.2f | %.2f M, %.1f x | %.2f | %.2f | %.2f | %.2f | %.0f%% | %.2f | %.2f | "
           "%.0f%% |\n",
           j->ranks, sequences / n, (double)most / 1e6, (double)most * n / (double)j->m.floats,
           1e3 * compute, 1e3 * reduce, 1e3 * gather, 1e3 * step, 1e2 * alone / n / step,
           1e3 * levels, 1e3 * lstep, 1e2 * alone / n / lstep);
}

static enum err_code run(char **argv, int argc, struct err *e)
{
    static const size_t sizes[] = {1, 8, 16, 32, 64, 128, 256, 512};
    bool model = argc > 2 && !strcmp(argv[1], "model");
    int at = model ? 2 : 3;
    size_t ranks = !model && argc > 3 ? strtoul(argv[2], NULL, 10) : 0;
    struct job j = {0};
    struct kern *k = NULL;
    struct recipe r;
    enum err_code rc;
    if (argc <= at || (!model && (strcmp(argv[1], "volume") || !ranks)))
        return err_set(e, ERR_USAGE, "scaling volume RANKS|model RECIPE [KEY=VALUE]...");
    if ((rc = recipe_load(&r, argv[at], e)))
        return rc;
    for (int i = at + 1; i < argc && !rc; i++)
        rc = recipe_set(&r, argv[i], "command line", e);
    if (rc || (rc = gpt_init(&j.m, &r, e)) || (rc = kern_cpu(&k, 1, e)) ||
        (rc = plan_make(&j.plan, &j.m, k, e)))
        goto out;
    for (size_t i = 0; i < (model ? sizeof sizes / sizeof *sizes : 1) && !rc; i++) {
        size_t n = model ? sizes[i] : ranks;
        if (model) { /* one sum per rank */
            j.m.r.grad_ranks = (int64_t)(n > 8 ? n : 8);
            j.plan.groups = n > 8 ? n : 8;
        }
        if (model && n > j.plan.micros)
            break;
        if (!(rc = job_init(&j, n, e))) {
            if (model)
                print_model(&j);
            else
                print_volume(&j);
        }
        job_free(&j);
    }
out:
    if (k)
        kern_free(k);
    gpt_free(&j.m);
    return rc;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    enum err_code rc = run(argv, argc, &e);
    if (rc)
        fprintf(stderr, "scaling: %s\n", e.msg);
    return (int)rc;
}
