/* needs.c - see needs.h. Layout: System V ABI, chapter 5; the numbers are those of <elf.h>. */
#include "verify/needs.h"

#include <elf.h>
#include <stdio.h>
#include <string.h>

#include "model/reader.h"

enum { PHDRS_MAX = 256, DYN_BYTES = 16 };

/* A range of the file, checked. */
static bool inside(uint64_t at, uint64_t bytes, size_t n)
{
    return at <= n && bytes <= n - at;
}

static const uint8_t *phdr(const uint8_t *elf, size_t i)
{
    return elf + le64(elf + offsetof(Elf64_Ehdr, e_phoff)) + i * sizeof(Elf64_Phdr);
}

static uint64_t field(const uint8_t *p, size_t offset)
{
    return le64(p + offset);
}
#define PH(p, f) field(p, offsetof(Elf64_Phdr, f))

/* Where an address lies in the file; false when no segment has it. */
static bool to_offset(const uint8_t *elf, size_t count, uint64_t address, uint64_t *at)
{
    for (size_t i = 0; i < count; i++) {
        const uint8_t *p = phdr(elf, i);
        uint64_t from = PH(p, p_vaddr);
        if (le32(p) == PT_LOAD && address >= from && address - from < PH(p, p_filesz)) {
            *at = PH(p, p_offset) + (address - from);
            return true;
        }
    }
    return false;
}

/* A text that ends inside elf[n]; what is not printable, or too long, shows as '?'. */
static bool add(struct needs *out, const uint8_t *elf, size_t n, uint64_t at)
{
    if (out->count == NEEDS_MAX || at >= n || !memchr(elf + at, 0, n - at))
        return false;
    char *to = out->name[out->count++];
    size_t k = 0;
    for (const uint8_t *p = elf + at; *p && k + 1 < NEEDS_NAME; p++)
        to[k++] = (char)(*p < ' ' || *p > '~' ? '?' : *p);
    to[k] = 0;
    return true;
}

/* The entries of one PT_DYNAMIC: first where the strings are, then the names. */
static bool dynamic(struct needs *out, const uint8_t *elf, size_t n, size_t count, const uint8_t *p)
{
    uint64_t at = PH(p, p_offset), bytes = PH(p, p_filesz), strings = 0;
    if (!inside(at, bytes, n))
        return false;
    const uint8_t *d = elf + at;
    bool found = false;
    for (uint64_t i = 0; i + DYN_BYTES <= bytes && field(d + i, 0) != DT_NULL; i += DYN_BYTES)
        if (field(d + i, 0) == DT_STRTAB)
            found = to_offset(elf, count, field(d + i, 8), &strings);
    for (uint64_t i = 0; i + DYN_BYTES <= bytes && field(d + i, 0) != DT_NULL; i += DYN_BYTES) {
        uint64_t name = field(d + i, 8);
        if (field(d + i, 0) == DT_NEEDED &&
            (!found || name > n || strings > n || !add(out, elf, n, strings + name)))
            return false;
    }
    return true;
}

enum err_code needs_list(struct needs *out, const uint8_t *elf, size_t n, const char *where,
                         struct err *e)
{
    memset(out, 0, sizeof *out);
    if (n < sizeof(Elf64_Ehdr) || memcmp(elf, ELFMAG, SELFMAG) || elf[EI_CLASS] != ELFCLASS64 ||
        elf[EI_DATA] != ELFDATA2LSB)
        return err_set(e, ERR_INPUT, "%s: not a 64-bit ELF program", where);
    size_t count = le16(elf + offsetof(Elf64_Ehdr, e_phnum));
    if (count > PHDRS_MAX || le16(elf + offsetof(Elf64_Ehdr, e_phentsize)) != sizeof(Elf64_Phdr) ||
        !inside(le64(elf + offsetof(Elf64_Ehdr, e_phoff)), count * sizeof(Elf64_Phdr), n))
        return err_set(e, ERR_INPUT, "%s: its program headers lead outside of it", where);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *p = phdr(elf, i);
        uint32_t type = le32(p);
        if (!inside(PH(p, p_offset), PH(p, p_filesz), n))
            return err_set(e, ERR_INPUT, "%s: segment %zu leads outside of it", where, i);
        if (type == PT_INTERP && !add(out, elf, n, PH(p, p_offset)))
            return err_set(e, ERR_INPUT, "%s: the name of its interpreter does not end", where);
        if (type == PT_DYNAMIC && !dynamic(out, elf, n, count, p))
            return err_set(e, ERR_INPUT, "%s: its dynamic section leads outside of it", where);
    }
    return ERR_OK;
}
