/*
 * code_model.h - what encoder and decoder of CODEC_CODE have in common: the predictor.
 *
 * In the manner of PAQ (Matt Mahoney, "Adaptive weighing of context models for lossless data
 * compression", 2005): CODE_CONTEXTS contexts, each made of some of the last bytes or of what is
 * known of the current instruction and of those before it, predict the next bit twice:
 *
 *   directly    how often was it 1 in this context?
 *   by history  how often was it 1 when, in any context of this kind, the last eight bits seen
 *               were those seen here?
 *
 * The predictions are added up in the logistic domain, ln(p / (1 - p)), with weights that learn
 * online: they move along the gradient of the coding cost. There are five sets of weights, added
 * together: chosen by the state in the instruction; by it and the bits of the byte so far, the last
 * byte, or the one before; and by how many contexts are not new.
 *
 * Code is in the same language everywhere, so the model reads it: prefixes, opcode, ModRM, the
 * length of what follows. It need not be right (data is parsed as well, and some rare opcodes are
 * taken for others); where it is wrong the prediction is worse, nothing else.
 *
 * Everything here is exact integer arithmetic, and code_dec.S is this program once more, so a
 * change here is a change there and of docs/format.md.
 */
#ifndef STUB_CODE_MODEL_H
#define STUB_CODE_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    CODE_CONTEXTS = 22,
    CODE_INPUTS = 2 * CODE_CONTEXTS, /* of the mixer */
    CODE_PITCH = 64,                 /* weights from one row of them to the next */
    CODE_SETS = 5,                   /* of weights */
    CODE_SLOTS = 1 << 22,
    CODE_CURVE = 4096, /* points of the logistic curve, from -8 to 8 */
};

/* What contexts are made of. */
enum {
    V_LAST = 0, /* the last byte, the one before, ... six of them */
    V_STATE = 6,
    V_OPCODE = 7, /* of the current instruction, 256 more behind 0F or in VEX; 0 before it */
    V_HASH = 8,   /* of the bytes of the current instruction; 0 at its start */
    /* then opcode and hash of the three instructions before */
    V_COUNT = 15,
};

/* The contexts: bit i stands for place i above. Found by search on the runner. */
static const uint16_t code_context[CODE_CONTEXTS] = {
    0x0000, 0x0001, 0x0003, 0x00C8, 0x0040, 0x0041, 0x0042, 0x1080, 0x00C0, 0x02D8, 0x0AC0,
    0x0100, 0x0340, 0x0601, 0x1100, 0x0007, 0x0031, 0x4100, 0x0044, 0x0281, 0x024E, 0x2242,
};

/*
 * V_STATE is what is expected next.
 *   0           an opcode, or a prefix
 *   1..9        so many more bytes of the instruction: SIB, displacement, immediate
 *   16, 17, 20  a ModRM byte, then 0, 1 or 4 bytes of immediate
 *   24          an opcode; there was a prefix
 *   32          an opcode of the second table: behind 0F, VEX or EVEX
 *   32 + 8 n    n more bytes of VEX or EVEX
 */
enum {
    CODE_MODRM = 16,
    CODE_PREFIXED = 24,
    CODE_TABLE2 = 32,
    CODE_VEX = 8, /* for each byte */
    CODE_STATES = 64,
    CODE_ROWS = 256 * CODE_STATES, /* of weights, in the sets that are chosen by it and a byte */
};

/* What opcodes are followed by, as the state after them. */
enum { K_END, K_I1, K_I4, K_M, K_MI1, K_MI4, K_PREFIX, K_0F, K_VEX2, K_VEX3, K_EVEX, K_COUNT };
static const uint8_t code_next[K_COUNT] = {
    0,
    1,
    4,
    CODE_MODRM,
    CODE_MODRM + 1,
    CODE_MODRM + 4,
    CODE_PREFIXED,
    CODE_TABLE2,
    CODE_TABLE2 + CODE_VEX,
    CODE_TABLE2 + 2 * CODE_VEX,
    CODE_TABLE2 + 3 * CODE_VEX,
};

/* n opcodes in a row of kind k; the two tables of opcodes are written like this. 00 to 3F repeat
 * the same 8 eight times (but for 0F), so 10 to 3F are not looked up. */
#define RUN(n, k) (uint8_t)(((n)-1) << 4 | (k))
static const uint8_t code_runs[] = {
    /* 00 */ RUN(4, K_M),
    RUN(1, K_I1),
    RUN(1, K_I4),
    RUN(9, K_END),
    RUN(1, K_0F),
    /* 10 */ RUN(16, K_END),
    RUN(16, K_END),
    RUN(16, K_END),
    /* 40 */ RUN(16, K_PREFIX),
    RUN(16, K_END),
    /* 60 */ RUN(2, K_END),
    RUN(1, K_EVEX),
    RUN(1, K_M),
    RUN(3, K_PREFIX),
    RUN(1, K_END),
    /* 68 */ RUN(1, K_I4),
    RUN(1, K_MI4),
    RUN(1, K_I1),
    RUN(1, K_MI1),
    RUN(4, K_END),
    /* 70 */ RUN(16, K_I1),
    /* 80 */ RUN(1, K_MI1),
    RUN(1, K_MI4),
    RUN(2, K_MI1),
    RUN(12, K_M),
    /* 90 */ RUN(16, K_END),
    RUN(8, K_END),
    RUN(1, K_I1),
    RUN(1, K_I4),
    RUN(6, K_END),
    /* B0 */ RUN(8, K_I1),
    RUN(8, K_I4),
    /* C0 */ RUN(2, K_MI1),
    RUN(2, K_END),
    RUN(1, K_VEX3),
    RUN(1, K_VEX2),
    RUN(1, K_MI1),
    /* C7 */ RUN(1, K_MI4),
    RUN(8, K_END),
    /* D0 */ RUN(16, K_M),
    RUN(8, K_I1),
    RUN(2, K_I4),
    RUN(2, K_I1),
    RUN(6, K_END),
    /* F2 */ RUN(2, K_PREFIX),
    RUN(2, K_END),
    RUN(1, K_MI1),
    RUN(1, K_MI4),
    /* F8 */ RUN(6, K_END),
    RUN(2, K_M),
    /* 0F 00 */ RUN(16, K_M),
    RUN(16, K_M),
    RUN(16, K_M),
    RUN(16, K_M),
    RUN(16, K_M),
    RUN(16, K_M),
    RUN(16, K_M),
    /* 0F 70 */ RUN(4, K_MI1),
    RUN(3, K_M),
    RUN(1, K_END),
    RUN(8, K_M),
    RUN(16, K_I4),
    /* 0F 90 */ RUN(16, K_M),
    RUN(16, K_M),
    RUN(16, K_M),
    /* 0F C0 */ RUN(2, K_M),
    RUN(1, K_MI1),
    RUN(1, K_M),
    RUN(3, K_MI1),
    RUN(1, K_M),
    RUN(8, K_END),
    /* 0F D0 */ RUN(16, K_M),
    RUN(16, K_M),
    RUN(16, K_M),
};
#undef RUN

/* What was seen in one context, or after one history. All zero: nothing. */
struct code_slot {
    uint32_t key;    /* whose slot it is */
    uint16_t p;      /* probability of a 1, less one half, in 1/65536, two's complement */
    uint8_t n;       /* bits seen; stops at 127, so that p moves by 1/128 of its error at least */
    uint8_t history; /* the bits seen: each makes it 2 * history + 1 + bit, modulo 256 */
};

struct code_model {
    uint32_t v[V_COUNT];
    uint32_t bits; /* of the current byte, behind a leading 1 */
    uint32_t hash[CODE_CONTEXTS];
    struct code_slot *at[CODE_INPUTS]; /* the contexts' own slots, then their histories' */
    uint32_t *weight[CODE_SETS];       /* rows of `weights` in use */
    uint32_t p;                        /* probability of a 1, in 1/2^32 */
    /* The logistic curve in both directions; its argument has 8 fraction bits. squash begins at
     * -8; stretch at a probability of one half, behind the highest comes the lowest. */
    int32_t stretch[CODE_CURVE];
    uint32_t squash[CODE_CURVE];
    /* 20 fraction bits, two's complement: should they ever overflow, they wrap */
    uint32_t weights[3 * CODE_ROWS + CODE_STATES + CODE_CONTEXTS + 1][CODE_PITCH];
    struct code_slot history[CODE_CONTEXTS][256];
    struct code_slot slot[CODE_SLOTS];
};

static inline void code_hash(struct code_model *m)
{
    m->bits = 1;
    for (uint32_t k = 0; k < CODE_CONTEXTS; k++) {
        uint32_t h = (k + 1) << 24; /* two contexts of equal parts must differ */
        for (int i = 0; i < V_COUNT; i++)
            if (code_context[k] >> i & 1) {
                h = (h + m->v[i]) * 0x9E3779B1u; /* 2^32 divided by the golden ratio */
                h ^= h >> 15;
            }
        m->hash[k] = h;
    }
}

/* Prepares a model whose memory is all zero. */
static inline void code_init(struct code_model *m)
{
    /* The curve solves p' = p (1 - p): start at -8 such that it meets one half at 0, and go on in
     * steps of 1/256. */
    uint32_t p = 1462000, k = 0;
    for (int i = 0; i < CODE_CURVE; i++) {
        m->squash[i] = p;
        for (; k <= p >> 20; k++)
            m->stretch[k ^ CODE_CURVE / 2] = i - CODE_CURVE / 2;
        p += (uint32_t)((uint64_t)p * (0u - p) >> 40);
    }
    code_hash(m);
}

static inline int32_t code_stretch(const struct code_model *m, const struct code_slot *s)
{
    return m->stretch[s->p >> 4];
}

/* Probability that the next bit is 1, in 1/2^32; never 0. Highest bits of a byte come first. */
static inline uint32_t code_predict(struct code_model *m)
{
    uint32_t known = 0;
    /* Two contexts may want the same slot: the order counts, here and in code_learn. */
    for (size_t k = CODE_CONTEXTS; k-- > 0;) {
        uint32_t key = m->hash[k] + m->bits;
        struct code_slot *s = &m->slot[key % CODE_SLOTS];
        if (s->key != key)
            *s = (struct code_slot){.key = key};
        m->at[k] = s;
        m->at[CODE_CONTEXTS + k] = &m->history[k][s->history];
        known += s->n != 0;
    }
    uint32_t state = m->v[V_STATE];
    m->weight[0] = m->weights[256 * state + m->bits];
    m->weight[1] = m->weights[CODE_ROWS + 256 * state + m->v[V_LAST]];
    m->weight[2] = m->weights[2 * CODE_ROWS + 256 * state + m->v[V_LAST + 1]];
    m->weight[3] = m->weights[3 * CODE_ROWS + state];
    m->weight[4] = m->weights[3 * CODE_ROWS + CODE_STATES + known];
    int64_t dot = 0;
    for (size_t j = 0; j < CODE_INPUTS; j++) {
        /* 0.08: what an input weighs at the start */
        uint32_t w = 80000;
        for (int i = 0; i < CODE_SETS; i++)
            w += m->weight[i][j];
        dot += (int64_t)(int32_t)w * code_stretch(m, m->at[j]);
    }
    dot = (dot >> 20) + CODE_CURVE / 2;
    m->p = m->squash[dot < 0 ? 0 : dot < CODE_CURVE ? dot : CODE_CURVE - 1];
    return m->p;
}

/* Learns what the predicted bit was. m->bits is 256 + the byte when it was the last of a byte. */
static inline void code_learn(struct code_model *m, uint32_t bit)
{
    int32_t error = (int32_t)(bit << 16) - (int32_t)(m->p >> 16);
    int32_t goal = bit ? INT16_MAX : INT16_MIN;
    for (size_t j = CODE_INPUTS; j-- > 0;) {
        struct code_slot *s = m->at[j];
        uint32_t by = (uint32_t)((int64_t)code_stretch(m, s) * (error * 6) >> 17);
        for (int i = 0; i < CODE_SETS; i++)
            m->weight[i][j] += by;
        /* the first bit moves p by 2/3, the next by 2/5, ... */
        s->p = (uint16_t)(s->p + (goal - (int16_t)s->p) * 2 / (2 * s->n + 3));
        if (s->n < 127)
            s->n++;
        s->history = (uint8_t)(2u * s->history + 1 + bit);
    }
    m->bits = 2 * m->bits + bit;
}

/* The state after an opcode, b of table 1 or 256 + b of table 2. */
static inline uint32_t code_opcode(uint32_t opcode)
{
    int left = (int)(opcode < 0x40 && opcode != 0x0F ? opcode & 7 : opcode);
    const uint8_t *run = code_runs;
    while ((left -= (*run >> 4) + 1) >= 0)
        run++;
    return code_next[*run & 15];
}

/* The state after a ModRM byte that is followed by so many bytes of immediate. */
static inline uint32_t code_modrm(uint32_t opcode, uint32_t b, uint32_t immediate)
{
    uint32_t left = immediate;
    if ((opcode | 1) == 0xF7 && b & 0x30) /* of the group F6 and F7, only TEST has one */
        left = 0;
    if (b >= 0xC0) /* registers only */
        return left;
    if ((b & 7) == 4)
        left++; /* SIB */
    if (b & 0x80 || (b & 0x47) == 5)
        left += 4;
    else if (b & 0x40)
        left++;
    return left;
}

/* To be called when m->bits says that a byte is complete. True when it ended a call or a jump with
 * a distance of four bytes. */
static inline bool code_next_byte(struct code_model *m)
{
    uint32_t b = m->bits & 255, *v = m->v, state = v[V_STATE];
    bool far = false;
    memmove(v + 1, v, (V_STATE - 1) * sizeof *v);
    v[V_LAST] = b;
    v[V_HASH] = (v[V_HASH] + b) * 0x9E3779B1u;
    if (state > CODE_TABLE2) {
        state -= CODE_VEX;
    } else if (state >= CODE_MODRM && state < CODE_PREFIXED) {
        state = code_modrm(v[V_OPCODE], b, state - CODE_MODRM);
    } else if (state > 0 && state < CODE_MODRM) {
        state--;
    } else {
        v[V_OPCODE] = state == CODE_TABLE2 ? 256 + b : b;
        state = code_opcode(v[V_OPCODE]);
    }
    v[V_STATE] = state;
    if (state == 0) {
        far = (v[V_OPCODE] | 1) == 0xE9;
        memmove(v + V_OPCODE + 2, v + V_OPCODE, (V_COUNT - V_OPCODE - 2) * sizeof *v);
        v[V_OPCODE] = v[V_HASH] = 0;
    }
    code_hash(m);
    return far;
}

#endif
