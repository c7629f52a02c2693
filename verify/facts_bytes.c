/*
 * facts_bytes.c - how the bytes in the denominator of BPB are counted. users.md P4 lists five ways
 * in which it went wrong; those that leave a trace in the text are told as facts here.
 */
#include <string.h>

#include "verify/facts.h"

/* U+2581, the mark of a leading space, spelt out or escaped. */
static bool space_mark(const struct facts_walk *w, size_t i)
{
    return py_kind_at(&w->s, i) == PY_STRING &&
           (facts_has(w, i, "\xe2\x96\x81") || facts_has(w, i, "\\u2581"));
}

/* A function that fills a table of bytes for each piece. */
static void table(struct facts_walk *w, const struct facts_func *f)
{
    size_t mark = f->end, taken_off = f->end, byte = f->end, piece = f->end;
    for (size_t i = f->body; i < f->end; i++) {
        if (space_mark(w, i)) {
            mark = mark < f->end ? mark : i;
            if (i >= 2 && (py_is(&w->s, i - 2, "lstrip") || py_is(&w->s, i - 2, "replace") ||
                           py_is(&w->s, i - 2, "removeprefix") || py_is(&w->s, i - 2, "strip")))
                taken_off = i;
        }
        if (py_is(&w->s, i, "[") && py_is(&w->s, i + 1, "1") && py_is(&w->s, i + 2, ":"))
            taken_off = i;
        if (py_is(&w->s, i, "is_byte"))
            byte = i;
        if (py_is(&w->s, i, "id_to_piece") || py_is(&w->s, i, "IdToPiece"))
            piece = i;
    }
    if (piece == f->end)
        return;
    facts_add(w, FACT_BYTES, f->name, "bytes of each piece: %.*s", (int)w->s.tok[f->name].len,
              w->s.text + w->s.tok[f->name].at);
    if (mark < f->end && taken_off == f->end)
        facts_add(w, FACT_BYTES, mark,
                  "the mark of a leading space is not taken off before its bytes are counted");
    if (mark == f->end)
        facts_add(w, FACT_BYTES, piece, "leading spaces are not treated apart");
    if (byte == f->end)
        facts_add(w, FACT_BYTES, piece, "byte pieces are not treated apart");
}

void facts_bytes(struct facts_walk *w)
{
    static const char *const sidecar[] = {"val_bytes", "byte_sidecar", "token_bytes_override",
                                          NULL};
    static const char *const caseops[] = {"caseops", "lossless_caps", NULL};
    static const char *const changed[] = {"casefold", NULL};
    const struct env_fact *on = script_env(w->f, "CASEOPS_ENABLED");
    bool off = on && facts_truth(on->value) == 0;
    for (size_t i = 0; i < w->s.count; i++) {
        enum py_kind kind = py_kind_at(&w->s, i);
        bool doc = kind == PY_STRING && (!i || w->s.tok[i - 1].kind == PY_NEWLINE) &&
                   py_kind_at(&w->s, i + 1) == PY_NEWLINE;
        if ((kind != PY_NAME && kind != PY_STRING) || doc)
            continue;
        if (facts_has_any(w, i, sidecar) && !off) {
            w->f->byte_sidecar = true;
            facts_add(w, FACT_BYTES, i, "reads the bytes of each token from a sidecar file");
        }
        if (facts_has_any(w, i, caseops)) {
            w->f->caseops = !off;
            facts_add(w, FACT_BYTES, i,
                      off ? "CaseOps: there, switched off"
                          : "CaseOps: the tokens are of changed text");
        }
        if (kind == PY_NAME && facts_has_any(w, i, changed))
            facts_add(w, FACT_BYTES, i, "casefold: text is changed");
    }
    for (size_t k = 0; k < w->settings && !off; k++) /* the tokenizer's path says it as well */
        w->f->caseops |= strstr(w->setting[k].value, "caseops") != NULL ||
                         strstr(w->setting[k].value, "lossless_caps") != NULL;
    for (size_t k = 0; k < w->funcs; k++)
        table(w, &w->func[k]);
}
