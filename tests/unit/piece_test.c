/*
 * piece_test.c - exists for the parameter that nobody updates or two ranks do, for a list that
 * depends on who looks at it, and for the rank that does all the work.
 */
#include "tests/unit/toy_run.h"
#include "trainer/piece.h"

static const struct {
    const char *name, *set[8];
    size_t ranks;
} cases[] = {
    {"alone", {NULL}, 1},
    {"two", {NULL}, 2},
    {"three, untied", {"TIE_EMBEDDINGS=0", "NUM_LAYERS=3"}, 3},
    {"banks", {"MATRIX_BANKS=1", "VE_ENABLED=1", "VE_LAYERS=1", "VE_DIM=12"}, 5},
    {"more ranks than pieces", {"NUM_LAYERS=1"}, 64},
    {"tables of several pieces",
     {"VOCAB_SIZE=4096", "MODEL_DIM=256", "BIGRAM_VOCAB_SIZE=2048", "BIGRAM_DIM=64"},
     8},
    {"a full model", {"NUM_LAYERS=11", "MODEL_DIM=512", "NUM_HEADS=8", "NUM_KV_HEADS=4"}, 8},
};

/* What does not depend on the rank is the same for all of them. */
static void same_list(const char *name, const struct piece_list *a, const struct piece_list *b)
{
    bool same = a->pieces == b->pieces && a->stretches == b->stretches && a->most == b->most;
    for (size_t i = 0; i < a->pieces && same; i++) {
        const struct piece *p = &a->piece[i], *q = &b->piece[i];
        same = p->at == q->at && p->n == q->n && p->owner == q->owner && p->local == q->local &&
               p->group == q->group && p->rows == q->rows && p->cols == q->cols;
    }
    for (size_t i = 0; i < a->stretches && same; i++) {
        const struct stretch *p = &a->stretch[i], *q = &b->stretch[i];
        same = p->at == q->at && p->n == q->n && p->owner == q->owner && p->local == q->local;
    }
    if (!same)
        fail_msg("%s: rank %zu has another list", name, b->rank);
}

static void covered(const char *name, const struct gpt *m, const struct piece_list *l)
{
    size_t at = 0, stretches = 0, *used = calloc(l->ranks, sizeof *used);
    for (size_t i = 0; i < l->pieces; i++) {
        const struct piece *p = &l->piece[i];
        bool muon = p->group == OPTIM_MUON;
        if (p->at != at || !p->n || p->owner >= l->ranks || p->local != used[p->owner] ||
            p->n != (muon ? p->rows * p->cols : p->n) || (!muon && p->n > PIECE_FLOATS))
            fail_msg("%s: piece %zu: %zu floats at %zu", name, i, p->n, p->at);
        used[p->owner] += p->n;
        at += p->n;
    }
    assert_int_equal(at, m->floats);
    at = 0;
    for (; stretches < l->stretches; stretches++) {
        const struct stretch *s = &l->stretch[stretches];
        if (s->at != at || !s->n)
            fail_msg("%s: stretch %zu at %zu", name, stretches, s->at);
        at += s->n;
    }
    assert_int_equal(at, m->floats);
    assert_int_equal(l->floats, used[l->rank]);
    free(used);
}

static void lists(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct recipe r;
        struct gpt m;
        struct err e = {0};
        struct piece_list first, other;
        toy_recipe(&r, "");
        for (size_t i = 0; i < 8 && cases[c].set[i]; i++)
            toy_set(&r, cases[c].set[i]);
        assert_int_equal(gpt_init(&m, &r, &e), ERR_OK);
        assert_int_equal(piece_list(&first, &m, 0, cases[c].ranks, &e), ERR_OK);
        covered(cases[c].name, &m, &first);
        for (size_t rank = 1; rank < cases[c].ranks; rank++) {
            assert_int_equal(piece_list(&other, &m, rank, cases[c].ranks, &e), ERR_OK);
            same_list(cases[c].name, &first, &other);
            covered(cases[c].name, &m, &other);
            piece_free(&other);
        }
        /* The cut into pieces is the same for any number of ranks: norms are summed over it. */
        assert_int_equal(piece_list(&other, &m, 0, 1, &e), ERR_OK);
        assert_int_equal(other.pieces, first.pieces);
        assert_int_equal(other.stretches, 1);
        for (size_t i = 0; i < first.pieces; i++)
            if (other.piece[i].at != first.piece[i].at || other.piece[i].n != first.piece[i].n)
                fail_msg("%s: piece %zu depends on the number of ranks", cases[c].name, i);
        piece_free(&other);
        piece_free(&first);
        piece_free(&first);
        gpt_free(&m);
    }
}

/* Eleven blocks on eight ranks: 66 matrices, of which none is much of the work. */
static void balanced(void **state)
{
    struct recipe r;
    struct gpt m;
    struct err e = {0};
    struct piece_list l;
    double flops[8] = {0}, sum = 0;
    size_t floats[8] = {0};
    (void)state;
    toy_recipe(&r, "");
    for (size_t i = 0; i < 4; i++)
        toy_set(&r, cases[6].set[i]);
    assert_int_equal(gpt_init(&m, &r, &e), ERR_OK);
    assert_int_equal(piece_list(&l, &m, 0, 8, &e), ERR_OK);
    for (size_t i = 0; i < l.pieces; i++) {
        const struct piece *p = &l.piece[i];
        double small = (double)(p->rows < p->cols ? p->rows : p->cols);
        flops[p->owner] += (double)p->n * small; /* Newton-Schulz, in about this proportion */
        floats[p->owner] += p->n;
        sum += (double)p->n * small / 8;
    }
    for (size_t i = 0; i < 8; i++)
        if (flops[i] > 1.2 * sum || floats[i] > m.floats / 6)
            fail_msg("rank %zu: %.2f of the mean work, %zu of %zu floats", i, flops[i] / sum,
                     floats[i], m.floats);
    piece_free(&l);
    gpt_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lists), cmocka_unit_test(balanced)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
