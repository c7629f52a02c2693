/*
 * script_facts_test.c - what is read from a record's source. Guards against facts taken from
 * comments and strings, against a method called used that its settings switch off, and, worst,
 * against "not met" where the order in the text is fine: a false alarm about somebody's record.
 */
#include "verify/script_facts.h"

#include "tests/unit/util.h"
#include "verify/unwrap.h"

static struct script_facts facts_of(const char *label, const char *text,
                                    const struct script_setting *setting, size_t settings)
{
    struct script_facts f;
    struct err e = {0};
    struct guarded g = guarded_new(text, strlen(text));
    EXPECT(label, ERR_OK, "", script_facts(&f, g.p, strlen(text), setting, settings, &e), e);
    guarded_free(&g);
    return f;
}

static bool has_fact(const struct script_facts *f, enum fact_kind kind, size_t line,
                     const char *part)
{
    for (size_t i = 0; i < f->facts; i++)
        if (f->fact[i].kind == kind && (!line || f->fact[i].line == line) &&
            strstr(f->fact[i].text, part))
            return true;
    return false;
}

/* ---- single facts: what must be found, and what must not ---- */

static const struct {
    const char *name, *text;
    enum fact_kind kind;
    size_t line;
    const char *part;
    bool there;
} single[] = {
    {"compressor", "import lzma as L\nb = L.compress(raw)\n", FACT_COMPRESSOR, 2, "lzma", true},
    {"from import", "from zlib import compress as c\nb = c(raw)\n", FACT_COMPRESSOR, 2, "zlib",
     true},
    {"zstandard", "import zstandard as z\nb = z.ZstdCompressor(level=22).compress(r)\n",
     FACT_COMPRESSOR, 2, "zstd", true},
    {"in a comment", "import lzma\n# lzma.compress(raw)\n", FACT_COMPRESSOR, 0, "lzma", false},
    {"in a string", "import lzma\ns = 'lzma.compress(raw)'\n", FACT_COMPRESSOR, 0, "lzma", false},
    {"of the code only", "import lzma\ndef code_size(code):\n return len(lzma.compress(code))\n",
     FACT_COMPRESSOR, 0, "lzma", false},
    {"quantiser", "def quantize_int6_per_row(t):\n    return t\n", FACT_QUANTISER, 1, "int6", true},
    {"bits", "import os\nmatrix_bits=int(os.environ.get('MATRIX_BITS',6))\n", FACT_QUANTISER, 2,
     "MATRIX_BITS=6", true},
    {"ternary", "class TernaryLinear(Base):\n    pass\n", FACT_QUANTISER, 1, "ternary", true},
    {"standard library", "import os, json as j\nfrom pathlib import Path\n", FACT_IMPORT, 0, "",
     false},
    {"package", "import torch.nn.functional as F\n", FACT_IMPORT, 1, "the package torch", true},
    {"sibling", "def f():\n    from ngram_tilt import X\n", FACT_IMPORT, 2, "ngram_tilt", true},
    {"second of a line", "import os, helper\n", FACT_IMPORT, 1, "helper", true},
    {"relative", "from . import helper\n", FACT_IMPORT, 1, "beside", true},
    {"file", "x = open('tables.bin', 'rb').read()\n", FACT_FILE, 1, "tables.bin", true},
    {"numpy file", "import numpy as np\nx = np.load('prior.npy')\n", FACT_FILE, 2, "prior.npy",
     true},
    {"kernel source", "p = _HERE / 'fused.cpp'\n", FACT_FILE, 1, "fused.cpp", true},
    {"computed path", "x = open(path).read()\n", FACT_FILE, 0, "", false},
    {"method called open", "x.open('a.bin')\n", FACT_FILE, 0, "", false},
    {"network", "import urllib.request as u\nu.urlopen('http://x').read()\n", FACT_NETWORK, 2,
     "fetches", true},
    {"network in a string", "s = 'urllib.request.urlopen'\n", FACT_NETWORK, 0, "", false},
    {"curl", "import subprocess\nsubprocess.run(['curl', '-O', 'x'])\n", FACT_NETWORK, 2, "curl",
     true},
    {"pip", "import os\nos.system('pip install brotli')\n", FACT_NETWORK, 2, "pip", true},
    {"program", "import subprocess\nsubprocess.run(['nvidia-smi'])\n", FACT_PROCESS, 2,
     "nvidia-smi", true},
    {"native code", "import ctypes\nl = ctypes.CDLL('./x.so')\n", FACT_PROCESS, 2, "x.so", true},
    {"new syntax", "a = f'{x['y']}'\n", FACT_SYNTAX, 1, "3.12", true},
    {"old syntax", "a = f'{x[\"y\"]}' f\"{{{x}}}\"\n", FACT_SYNTAX, 0, "", false},
    {"left open", "x = (1,\n", FACT_SYNTAX, 0, "left open", true},
    {"calibration",
     "def collect_hessians(m, loader): pass\ncollect_hessians(model, train_loader)\n", FACT_DATA, 2,
     "training data", true},
    {"calibration on validation",
     "def collect_hessians(m, t): pass\ncollect_hessians(model, val_tokens)\n", FACT_DATA, 2,
     "validation data", true},
    {"sidecar", "p = pattern.replace('fineweb_val_', 'fineweb_val_bytes_')\n", FACT_BYTES, 1,
     "sidecar", true},
    {"caseops", "from lossless_caps import decode\n", FACT_BYTES, 1, "CaseOps", true},
    {"leading space twice",
     "def luts(sp):\n  for i in range(9):\n    p = sp.id_to_piece(i)\n    if "
     "p.startswith('\\u2581'):\n"
     "      lead[i] = True\n    n[i] = len(p.encode())\n    if sp.is_byte(i): n[i] = 1\n",
     FACT_BYTES, 4, "not taken off", true},
    {"leading space once",
     "def luts(sp):\n  for i in range(9):\n    p = sp.id_to_piece(i)\n    if "
     "p.startswith('\\u2581'):\n"
     "      p = p[1:]\n    n[i] = len(p.encode())\n    if sp.is_byte(i): n[i] = 1\n",
     FACT_BYTES, 0, "not", false},
    {"no byte pieces", "def luts(sp):\n    p = sp.id_to_piece(0).replace('\\u2581', '')\n",
     FACT_BYTES, 2, "byte pieces are not", true},
};

static void singles(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(single); i++) {
        struct script_facts f = facts_of(single[i].name, single[i].text, NULL, 0);
        if (has_fact(&f, single[i].kind, single[i].line, single[i].part) != single[i].there)
            fail_msg("%s: fact \"%s\" on line %zu %s", single[i].name, single[i].part,
                     single[i].line, single[i].there ? "missing" : "found");
        script_facts_free(&f);
    }
}

/* ---- what is counted as code ---- */

#define COPY                                                                                       \
    "import lzma, subprocess\n"                                                                    \
    "def _compressed_code_size(code):\n"                                                           \
    "    try:\n"                                                                                   \
    "        m = subprocess.run(['pyminify', '-'], input=code).stdout\n"                           \
    "    except FileNotFoundError:\n"                                                              \
    "        m = code\n"                                                                           \
    "    return len(code), len(lzma.compress(m))\n"

static const struct {
    const char *name, *text;
    enum code_count count;
    size_t line;
    long long constant;
    bool fallback;
} counts[] = {
    {"nothing", "x = 1\n", CODE_COUNT_NONE, 0, 0, false},
    {"the text", "code = Path(__file__).read_text()\ncode_bytes = len(code.encode('utf-8'))\n",
     CODE_COUNT_FILE, 2, 0, false},
    {"the file", "import os\ncode_size = os.path.getsize(__file__)\n", CODE_COUNT_FILE, 2, 0,
     false},
    {"in one line", "a=1;code_bytes=len(code.encode('utf-8'))\n", CODE_COUNT_FILE, 1, 0, false},
    {"a copy", COPY "full, code_bytes = _compressed_code_size(code)\n", CODE_COUNT_COMPRESSED, 8, 0,
     true},
    {"a number", "code_bytes = 12_345\n", CODE_COUNT_CONSTANT, 1, 12345, false},
    {"zero at first", "code_bytes = 0\n", CODE_COUNT_NONE, 0, 0, false},
    {"something else", "code_bytes = measure(x)\n", CODE_COUNT_OTHER, 1, 0, false},
    {"in a string", "s = 'code_bytes = 5'\n", CODE_COUNT_NONE, 0, 0, false},
};

static void code_counts(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(counts); i++) {
        struct script_facts f = facts_of(counts[i].name, counts[i].text, NULL, 0);
        if (f.count != counts[i].count || f.count_line != counts[i].line ||
            f.count_constant != counts[i].constant || f.minifier_fallback != counts[i].fallback)
            fail_msg("%s: counted %d on line %zu, %lld, fallback %d", counts[i].name, (int)f.count,
                     f.count_line, f.count_constant, f.minifier_fallback);
        script_facts_free(&f);
    }
}

/* ---- settings ---- */

static const struct {
    const char *name, *text, *ask, *value, *attr;
    size_t line;
} envs[] = {
    {"get", "import os\nclass H:\n  seed = int(os.environ.get('SEED', 1337))\n", "SEED", "1337",
     "seed", 3},
    {"by attribute", "import os\nclass H:\n  lr: float = float(os.environ.get(\"LR\", \"0.02\"))\n",
     "lr", "0.02", "lr", 3},
    {"getenv", "import os\nx = os.getenv('A_B', 'text')\n", "A_B", "text", "x", 2},
    {"computed default", "import os\nx = os.environ.get('N', 2048 * 8)\n", "N", "2048*8", "x", 2},
    {"no default", "import os\nx = os.environ['RANK']\n", "RANK", "", "x", 2},
    {"bound name", "import os\n_E = os.environ.get\nn = int(_E('NUM', '7'))\n", "NUM", "7", "n", 3},
    {"helper", "def env_int(n, d): return d\nk = env_int('KEY', 4)\n", "KEY", "4", "k", 2},
    {"hoisted name", "import os\n_A = 'HOISTED'\nz = os.environ.get(_A, _A)\n", "HOISTED",
     "HOISTED", "z", 3},
    {"several on a line",
     "import os\nclass H:a=int(os.environ.get('A1',1));b=int(os.environ.get('B1',2))", "B1", "2",
     "b", 2},
    {"plain attribute", "class Hyperparameters:\n    eval_stride = 64\n", "eval_stride", "64",
     "eval_stride", 2},
    {"in an argument", "import os\nf(bool(int(os.environ.get('FLAG', '0'))))\n", "FLAG", "0", "",
     2},
};

static void settings(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(envs); i++) {
        struct script_facts f = facts_of(envs[i].name, envs[i].text, NULL, 0);
        const struct env_fact *x = script_env(&f, envs[i].ask);
        if (!x || strcmp(x->value, envs[i].value) || strcmp(x->attr, envs[i].attr) ||
            x->line != envs[i].line || x->set)
            fail_msg("%s: %s is \"%s\" for \"%s\" on line %zu", envs[i].name, envs[i].ask,
                     x ? x->value : "not found", x ? x->attr : "", x ? x->line : 0);
        script_facts_free(&f);
    }
    const struct script_setting log[] = {{"SEED", "42"}, {"unknown", "1"}};
    struct script_facts f = facts_of("from the log", envs[0].text, log, 2);
    assert_string_equal(script_env(&f, "seed")->value, "42");
    assert_true(script_env(&f, "seed")->set);
    script_facts_free(&f);
}

/* ---- methods ---- */

#define MODEL                                                                                      \
    "import os, torch\nimport torch.nn.functional as F\n"                                          \
    "class H:\n"                                                                                   \
    "    eval_stride = int(os.environ.get('EVAL_STRIDE', 64))\n"                                   \
    "    train_seq_len = int(os.environ.get('TRAIN_SEQ_LEN', 1024))\n"                             \
    "    ttt_enabled = bool(int(os.environ.get('TTT_ENABLED', '0')))\n"                            \
    "    slot_enabled = bool(int(os.environ.get('SLOT_ENABLED', '1')))\n"                          \
    "def attend(q, k, v):\n"                                                                       \
    "    return F.scaled_dot_product_attention(q, k, v, is_causal=True)\n"
#define SLIDING                                                                                    \
    "def eval_val_sliding(h, model, val_tokens, stride):\n"                                        \
    "    with torch.inference_mode():\n"                                                           \
    "        for ws in range(0, n, stride):\n"                                                     \
    "            nll = F.cross_entropy(model(x), y, reduction='none')\n"                           \
    "            s = 0 if ws == 0 else max(wlen - stride, 0)\n"                                    \
    "            loss_sum += nll[s:wlen].sum()\n"
#define TTT(first, second)                                                                         \
    "def eval_val_ttt(h, model, val_tokens, stride):\n"                                            \
    "    opt = torch.optim.SGD(model.parameters(), lr=h.ttt_lr)\n"                                 \
    "    for c in range(chunks):\n" first second
#define SCORE                                                                                      \
    "        with torch.no_grad():\n"                                                              \
    "            loss_sum += F.cross_entropy(model(x), y, reduction='sum')\n"                      \
    "            byte_count += n\n"
#define LEARN                                                                                      \
    "        F.cross_entropy(model(x), y).backward()\n"                                            \
    "        opt.step()\n"
#define SLOT_MASK(part)                                                                            \
    "def eval_val_slot(h, model, val_tokens):\n"                                                   \
    "    for b in range(n):\n"                                                                     \
    "        mask[i, " part "] = 1.0\n"                                                            \
    "        for k in range(h.slot_steps):\n"                                                      \
    "            nll = F.cross_entropy(head(hid + delta), y, reduction='none')\n"                  \
    "            ((nll * mask).sum() / n).backward()\n"                                            \
    "        loss_sum += F.cross_entropy(head(hid + delta), y, reduction='sum')\n"
#define SLOT(loss)                                                                                 \
    "def eval_val_slot(h, model, val_tokens):\n"                                                   \
    "    for b in range(n):\n"                                                                     \
    "        delta = torch.zeros(d, requires_grad=True)\n"                                         \
    "        opt = torch.optim.AdamW([delta], lr=h.slot_lr)\n"                                     \
    "        for k in range(h.slot_steps):\n"                                                      \
    "            nll = F.cross_entropy(head(hid + delta), y, reduction='none')\n"                  \
    "            loss = " loss "\n"                                                                \
    "            loss.backward()\n"                                                                \
    "            opt.step()\n"                                                                     \
    "        loss_sum += F.cross_entropy(head(hid + delta), y, reduction='sum')\n"

static const struct {
    const char *name, *text;
    enum method method;
    enum used used;
    const char *form;
    const char *cond; /* C1 to C4: met Y, not met N, not checked U */
} methods[] = {
    {"plain",
     MODEL "def eval_val(h, model, val_tokens):\n    with torch.inference_mode():\n"
           "        loss_sum += F.cross_entropy(model(x), y)\neval_val(h, m, t)\n",
     METHOD_PLAIN, USED_YES, "", "YYYY"},
    {"sliding",
     MODEL SLIDING "def main(h):\n    if h.eval_stride > 0:\n"
                   "        eval_val_sliding(h, m, v, h.eval_stride)\n",
     METHOD_SLIDING, USED_YES, "", "YYYY"},
    {"sliding, handed over", MODEL SLIDING "timed('x', eval_val_sliding, h)\n", METHOD_SLIDING,
     USED_YES, "", "YYYY"},
    {"sliding, never called", MODEL SLIDING, METHOD_SLIDING, USED_NO, "", "YYYY"},
    {"mask not told", SLIDING "import torch.nn.functional as F\neval_val_sliding(h)\n",
     METHOD_SLIDING, USED_YES, "", "UYYY"},
    {"not causal", MODEL "w = dict(x=f(is_causal=False))\n" SLIDING "eval_val_sliding(h)\n",
     METHOD_SLIDING, USED_YES, "", "UYYY"},
    {"ttt, switched off", MODEL TTT(SCORE, LEARN) "if h.ttt_enabled:\n    eval_val_ttt(h)\n",
     METHOD_TTT, USED_NO, "score-first", "YYYU"},
    {"ttt, score first", MODEL TTT(SCORE, LEARN) "eval_val_ttt(h)\n", METHOD_TTT, USED_NO,
     "score-first", "YYYU"},
    {"ttt, learn first", MODEL TTT(LEARN, SCORE) "eval_val_ttt(h)\n", METHOD_TTT, USED_NO,
     "before scoring", "NYNU"},
    {"ttt, the caller scores first",
     MODEL "def ttt_train(h, model, val_tokens):\n    for x in val_tokens:\n" LEARN
           "def main(h):\n    byte_sum = 0\n    for c in chunks:\n" SCORE
           "        ttt_train(h, m, v)\nmain(h)\n",
     METHOD_TTT, USED_NO, "score-first", "YYYU"},
    {"ttt, the caller scores afterwards",
     MODEL "def ttt_train(h, model, val_tokens):\n    for x in val_tokens:\n" LEARN
           "def main(h):\n    byte_sum = 0\n    ttt_train(h, m, v)\n    for c in chunks:\n" SCORE
           "main(h)\n",
     METHOD_TTT, USED_NO, "before scoring", "NYNU"},
    {"ttt, before the quantiser",
     MODEL "def ttt_adapt(h, model, val_tokens):\n    for x in val_tokens:\n" LEARN
           "def serialize(m): pass\ndef run(h):\n    ttt_adapt(h, m, v)\n    serialize(m)\n"
           "    eval_val(h)\n",
     METHOD_TTT, USED_NO, "before quantisation", "NYNN"},
    {"ttt, after the quantiser",
     MODEL "def serialize(m): pass\n" TTT(
         SCORE, LEARN) "def run(h):\n    serialize(m)\n    eval_val_ttt(h, m, v)\n",
     METHOD_TTT, USED_NO, "score-first", "YYYU"},
    {"ttt, each epoch scores again",
     MODEL "def eval_val_ttt(h, model, val_tokens):\n    for epoch in range(h.ttt_epochs):\n"
           "      for c in range(chunks):\n" SCORE LEARN "eval_val_ttt(h)\n",
     METHOD_TTT, USED_NO, "scored again each epoch", "NYNN"},
    {"ttt, one epoch scores",
     MODEL "def eval_val_ttt(h, model, val_tokens):\n    for epoch in range(h.ttt_epochs):\n"
           "     for c in range(chunks):\n      if epoch == 0:\n" SCORE LEARN "eval_val_ttt(h)\n",
     METHOD_TTT, USED_NO, "order not told", "UYUU"},
    {"ttt, epochs behind the score",
     MODEL TTT(SCORE, "        for epoch in range(h.ttt_epochs):\n    " LEARN) "eval_val_ttt(h)\n",
     METHOD_TTT, USED_NO, "score-first", "YYYU"},
    {"ttt, a score in a loop of its own",
     MODEL "def eval_val_ttt(h, model, val_tokens):\n    for d in short:\n" SCORE
           "    for c in chunks:\n" LEARN "        total += other(x)\n"
           "eval_val_ttt(h)\n",
     METHOD_TTT, USED_NO, "order not told", "UYUU"},
    {"slot, all positions", MODEL SLOT("nll.mean()") "eval_val_slot(h)\n", METHOD_SLOT, USED_YES,
     "scored-position", "NYNU"},
    {"slot, mask of the scored", MODEL SLOT_MASK("s:wlen") "eval_val_slot(h)\n", METHOD_SLOT,
     USED_YES, "scored-position", "NYNU"},
    {"slot, mask of the past", MODEL SLOT_MASK(":wlen - stride") "eval_val_slot(h)\n", METHOD_SLOT,
     USED_YES, "context-only", "UYUU"},
    {"slot, mask not told", MODEL SLOT("(nll * mask).sum() / mask.sum()") "eval_val_slot(h)\n",
     METHOD_SLOT, USED_YES, "positions not told", "UYUU"},
    {"slot, slice of the scored",
     MODEL SLOT("nll[:, -stride:].mean() + nll[:, s:].mean()") "eval_val_slot(h)\n", METHOD_SLOT,
     USED_YES, "scored-position", "NYNU"},
    {"slot, slice of the past", MODEL SLOT("nll[:, :-stride].mean()") "eval_val_slot(h)\n",
     METHOD_SLOT, USED_YES, "context-only", "UYUU"},
    {"slot, context", MODEL SLOT("nll[:, :ctx_len].mean()") "eval_val_slot(h)\n", METHOD_SLOT,
     USED_YES, "context-only", "UYUU"},
    {"slot elsewhere", MODEL "import slot_eval\n", METHOD_SLOT, USED_YES, "code not in this text",
     "UUUU"},
    {"ngram, target in the key",
     MODEL "def eval_val_ngram(h, val_tokens):\n"
           "    full_key = (ctx_hash ^ (tgt * 31)) & mask\n"
           "    loss_sum += nll.sum()\n    table.update(tgt)\neval_val_ngram(h)\n",
     METHOD_NGRAM, USED_YES, "key with the target", "UNYU"},
    {"ngram inside of a sliding evaluation",
     MODEL "def eval_val_sliding(h, val_tokens):\n    use_ngram = h.cache\n"
           "    if use_ngram:\n        ngram_table = make(h.ngram_order)\n"
           "    full_key = (ctx_hash ^ (tgt * 31)) & mask\n"
           "    loss_sum += nll.sum()\n    ngram_table.update(tgt)\neval_val_sliding(h)\n",
     METHOD_NGRAM, USED_UNKNOWN, "key with the target", "UNYU"},
    {"sliding that mixes",
     MODEL "def eval_val_sliding(h, val_tokens):\n    use_ngram = h.cache\n"
           "    if use_ngram:\n        ngram_table = make(h.ngram_order)\n"
           "    loss_sum += nll.sum()\n    ngram_table.update(tgt)\neval_val_sliding(h)\n",
     METHOD_SLIDING, USED_YES, "", "UUUU"},
    {"ngram of the past",
     MODEL "def eval_val_ngram(h, val_tokens):\n    loss_sum += mixed.sum()\n"
           "    cache.update(tokens)\neval_val_ngram(h)\n",
     METHOD_NGRAM, USED_YES, "key not told", "UUYU"},
};

static void method_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(methods); i++) {
        struct script_facts f = facts_of(methods[i].name, methods[i].text, NULL, 0);
        const struct method_facts *m = script_method(&f, methods[i].method);
        if (!m)
            fail_msg("%s: method not found", methods[i].name);
        if (m->used != methods[i].used || strcmp(m->form, methods[i].form))
            fail_msg("%s: used %d, form \"%s\"", methods[i].name, (int)m->used, m->form);
        for (int c = 0; c < 4; c++)
            if ("UYN"[m->cond[c]] != methods[i].cond[c] ||
                (m->cond[c] != COND_UNKNOWN && !m->why_line[c]))
                fail_msg("%s: C%d is %c on line %zu (%s), expected %c", methods[i].name, c + 1,
                         "UYN"[m->cond[c]], m -> why_line[c], m -> why[c], methods[i].cond[c]);
        script_facts_free(&f);
    }
    /* what the log says replaces the default */
    const struct script_setting on[] = {{"ttt_enabled", "True"}, {"EVAL_STRIDE", "32"}};
    struct script_facts f =
        facts_of("ttt, switched on",
                 MODEL TTT(SCORE, LEARN) "if h.ttt_enabled:\n    eval_val_ttt(h)\n", on, 2);
    const struct method_facts *m = script_method(&f, METHOD_TTT);
    assert_int_equal(m->used, USED_YES);
    assert_int_equal(m->stride, 32);
    assert_int_equal(m->seq, 1024);
    script_facts_free(&f);
    f = facts_of("an embedding of n-grams is no cache",
                 "class BigramHash:\n    def ngram_hash_ids(self, t): return t\n", NULL, 0);
    assert_null(script_method(&f, METHOD_NGRAM));
    script_facts_free(&f);
}

/* Text that is no Python gives few facts and no crash; every prefix of a script as well. */
static void anything(void **state)
{
    (void)state;
    static const char text[] = MODEL SLIDING TTT(SCORE, LEARN) SLOT("nll.mean()") COPY;
    uint64_t seed = 3;
    for (size_t n = 0; n < sizeof text; n += 3) {
        struct script_facts f;
        struct err e = {0};
        struct guarded g = guarded_new(text, n);
        assert_int_equal(script_facts(&f, g.p, n, NULL, 0, &e), ERR_OK);
        script_facts_free(&f);
        for (size_t k = 0; k < n / 50; k++)
            g.p[util_below(&seed, n)] = (uint8_t)util_next(&seed);
        assert_int_equal(script_facts(&f, g.p, n, NULL, 0, &e), ERR_OK);
        script_facts_free(&f);
        guarded_free(&g);
    }
}

/* ---- the recorded folders ---- */

static void records(void **state)
{
    (void)state;
    static const struct {
        const char *path, *compressor;
        enum code_count count;
        enum method last; /* the most adapted method that is used */
        bool sidecar;
    } folder[] = {
        {"2026-03-17_NaiveBaseline/train_gpt.py", "zlib", CODE_COUNT_FILE, METHOD_PLAIN, false},
        {"2026-03-19_MixedQuant_Int6Int8_SlidingWindow/train_gpt.py", "zstd or zlib",
         CODE_COUNT_FILE, METHOD_SLIDING, false},
        {"2026-03-20_10L_Int5MLP_MuonWD04_SWA50/train_gpt.py", "zstd or zlib", CODE_COUNT_FILE,
         METHOD_SLIDING, false},
        {"2026-03-23_LeakyReLU_LegalTTT_ParallelMuon/train_gpt.py", "lzma", CODE_COUNT_FILE,
         METHOD_TTT, false},
        {"2026-04-04_SP4096_DepthRecurrence_ParallelResid_MuonEqR/train_gpt.py", "brotli",
         CODE_COUNT_FILE, METHOD_TTT, false},
        {"2026-04-05_SP8192_GPTQ-Embeddings_SDClip_Loop45x2/train_gpt.py", "brotli",
         CODE_COUNT_FILE, METHOD_SLIDING, false},
        {"2026-04-13_VarLenAttn_PhasingTTT2000/train_gpt.py", "brotli", CODE_COUNT_COMPRESSED,
         METHOD_TTT, false},
        {"2026-04-18_PR1626_CaseOps_Taper/train_gpt.py", "brotli", CODE_COUNT_COMPRESSED,
         METHOD_TTT, true},
    };
    const struct script_setting on[] = {{"TTT_ENABLED", "1"}};
    if (!util_shared("fixtures/records"))
        return;
    for (size_t i = 0; i < COUNT(folder); i++) {
        char path[700];
        size_t n = 0;
        struct unwrap u;
        struct script_facts f;
        struct err e = {0};
        enum method last = METHOD_PLAIN;
        snprintf(path, sizeof path, "../shared/fixtures/records/%s", folder[i].path);
        uint8_t *text = util_slurp(path, &n);
        assert_non_null(text);
        assert_int_equal(unwrap(&u, text, n, path, &e), ERR_OK);
        assert_int_equal(script_facts(&f, u.part[u.main].text, u.part[u.main].size, on, 1, &e),
                         ERR_OK);
        for (size_t k = 0; k < f.methods; k++) {
            if (f.method[k].used == USED_YES)
                last = f.method[k].method;
            for (int c = 0; c < 4; c++) /* merged records: none of these breaks a condition */
                if (f.method[k].cond[c] == COND_NOT_MET)
                    fail_msg("%s: %s, C%d said not met", folder[i].path,
                             method_name[f.method[k].method], c + 1);
        }
        if (strcmp(f.compressor, folder[i].compressor) || f.count != folder[i].count ||
            last != folder[i].last || f.byte_sidecar != folder[i].sidecar)
            fail_msg("%s: compressor %s, count %d, method %s, sidecar %d", folder[i].path,
                     f.compressor, (int)f.count, method_name[last], f.byte_sidecar);
        script_facts_free(&f);
        unwrap_free(&u);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(singles),      cmocka_unit_test(code_counts), cmocka_unit_test(settings),
        cmocka_unit_test(method_cases), cmocka_unit_test(anything),    cmocka_unit_test(records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
