/* range_out.c - see range_out.h. */
#include "packer/range_out.h"

static void put(struct range_out *c, uint8_t byte)
{
    if (c->begun && c->size < c->cap)
        c->out[c->size] = byte;
    c->size += c->begun;
    c->begun = true;
}

static void shift_out(struct range_out *c)
{
    if (c->low < 0xFF000000u || c->low > UINT32_MAX) {
        uint8_t carry = (uint8_t)(c->low >> 32);
        put(c, (uint8_t)(c->held + carry));
        for (; c->run > 1; c->run--)
            put(c, (uint8_t)(0xFF + carry));
        c->held = (uint8_t)(c->low >> 24);
        c->run = 0;
    }
    c->run++;
    c->low = (c->low & 0x00FFFFFF) << 8;
}

void range_normalise(struct range_out *c)
{
    for (; c->range < 1u << 24; c->range <<= 8)
        shift_out(c);
}

void range_finish(struct range_out *c)
{
    for (int i = 0; i < 5; i++)
        shift_out(c);
}
