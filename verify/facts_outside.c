/*
 * facts_outside.c - what the script uses beyond itself: modules, files, programs, the network.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "verify/facts.h"

/* The standard library of Python 3.13 as far as scripts of this kind use it, and private modules.
 */
static const char *const standard[] = {"__future__",
                                       "abc",
                                       "argparse",
                                       "array",
                                       "ast",
                                       "asyncio",
                                       "atexit",
                                       "base64",
                                       "binascii",
                                       "bisect",
                                       "builtins",
                                       "bz2",
                                       "calendar",
                                       "cmath",
                                       "codecs",
                                       "collections",
                                       "concurrent",
                                       "configparser",
                                       "contextlib",
                                       "copy",
                                       "csv",
                                       "ctypes",
                                       "dataclasses",
                                       "datetime",
                                       "decimal",
                                       "difflib",
                                       "dis",
                                       "email",
                                       "enum",
                                       "errno",
                                       "faulthandler",
                                       "fcntl",
                                       "fnmatch",
                                       "fractions",
                                       "ftplib",
                                       "functools",
                                       "gc",
                                       "getpass",
                                       "gettext",
                                       "glob",
                                       "gzip",
                                       "hashlib",
                                       "heapq",
                                       "hmac",
                                       "html",
                                       "http",
                                       "importlib",
                                       "inspect",
                                       "io",
                                       "ipaddress",
                                       "itertools",
                                       "json",
                                       "keyword",
                                       "linecache",
                                       "locale",
                                       "logging",
                                       "lzma",
                                       "marshal",
                                       "math",
                                       "mmap",
                                       "multiprocessing",
                                       "numbers",
                                       "operator",
                                       "os",
                                       "pathlib",
                                       "pickle",
                                       "pkgutil",
                                       "platform",
                                       "pprint",
                                       "profile",
                                       "pstats",
                                       "queue",
                                       "random",
                                       "re",
                                       "resource",
                                       "runpy",
                                       "sched",
                                       "secrets",
                                       "select",
                                       "selectors",
                                       "shlex",
                                       "shutil",
                                       "signal",
                                       "site",
                                       "socket",
                                       "socketserver",
                                       "sqlite3",
                                       "ssl",
                                       "stat",
                                       "statistics",
                                       "string",
                                       "struct",
                                       "subprocess",
                                       "symtable",
                                       "sys",
                                       "sysconfig",
                                       "tarfile",
                                       "tempfile",
                                       "textwrap",
                                       "threading",
                                       "time",
                                       "timeit",
                                       "token",
                                       "tokenize",
                                       "traceback",
                                       "tracemalloc",
                                       "types",
                                       "typing",
                                       "unicodedata",
                                       "unittest",
                                       "urllib",
                                       "uuid",
                                       "venv",
                                       "warnings",
                                       "weakref",
                                       "xml",
                                       "zipfile",
                                       "zipimport",
                                       "zlib",
                                       "zoneinfo"};

/* Packages that are installed with pip or conda and that records use. */
static const char *const packages[] = {"torch",
                                       "numpy",
                                       "sentencepiece",
                                       "triton",
                                       "flash_attn",
                                       "brotli",
                                       "brotlicffi",
                                       "zstandard",
                                       "zstd",
                                       "pyzstd",
                                       "flash_attn_interface",
                                       "flash_attn_3",
                                       "huggingface_hub",
                                       "datasets",
                                       "tiktoken",
                                       "tokenizers",
                                       "transformers",
                                       "tqdm",
                                       "scipy",
                                       "safetensors",
                                       "einops",
                                       "mlx",
                                       "jax",
                                       "flax",
                                       "optax",
                                       "psutil",
                                       "wandb",
                                       "cupy",
                                       "numba",
                                       "fla",
                                       "mamba_ssm",
                                       "causal_conv1d",
                                       "python_minifier",
                                       "xformers",
                                       "liger_kernel",
                                       "requests",
                                       "pandas",
                                       "matplotlib",
                                       "sklearn",
                                       "kernels",
                                       "apex",
                                       "transformer_engine",
                                       "bitsandbytes",
                                       "torchao",
                                       "setuptools",
                                       "pkg_resources",
                                       "yaml",
                                       "constriction",
                                       "cutlass",
                                       "deepspeed",
                                       "accelerate",
                                       "pyarrow",
                                       "rich",
                                       "lz4",
                                       "blosc",
                                       "regex",
                                       "IPython",
                                       "tensorboard",
                                       "pynvml",
                                       "modal"};

static bool listed(const char *const *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], name))
            return true;
    return false;
}

static void module(struct facts_walk *w, size_t i, const char *dotted)
{
    char name[64];
    snprintf(name, sizeof name, "%s", dotted);
    if (*name == '.') {
        facts_add(w, FACT_IMPORT, i, "imports a module beside it: %s", name);
        return;
    }
    name[strcspn(name, ".")] = 0;
    if (!*name || listed(standard, sizeof standard / sizeof *standard, name))
        return;
    if (listed(packages, sizeof packages / sizeof *packages, name))
        facts_add(w, FACT_IMPORT, i, "imports the package %s", name);
    else
        facts_add(w, FACT_IMPORT, i, "imports an unknown module, perhaps a file beside it: %s",
                  name);
}

/* import a, b as c; from a.b import d. */
static void imports(struct facts_walk *w, size_t i)
{
    bool from = py_is(&w->s, i, "from");
    char name[64];
    size_t n;
    do {
        size_t at = ++i;
        for (n = 0, *name = 0; i < w->s.count; i++) {
            const struct py_token *t = &w->s.tok[i];
            bool part = (t->kind == PY_NAME && !py_keyword(&w->s, i)) || py_is(&w->s, i, ".") ||
                        py_is(&w->s, i, "...");
            if (!part || n >= sizeof name)
                break;
            n +=
                (size_t)snprintf(name + n, sizeof name - n, "%.*s", (int)t->len, w->s.text + t->at);
        }
        if (from && !py_is(&w->s, i, "import"))
            return;
        module(w, at, name);
        if (py_is(&w->s, i, "as"))
            i += 2;
    } while (!from && py_is(&w->s, i, ","));
}

/* The calls that matter, by dotted name; `what` takes the text of the first argument as %s. */
static const struct {
    const char *target;
    enum fact_kind kind;
    const char *what;
} calls[] = {
    {"open", FACT_FILE, "opens"},
    {"io.open", FACT_FILE, "opens"},
    {"pathlib.Path", FACT_FILE, "names the path"},
    {"numpy.load", FACT_FILE, "loads"},
    {"numpy.fromfile", FACT_FILE, "loads"},
    {"numpy.memmap", FACT_FILE, "maps"},
    {"torch.load", FACT_FILE, "loads"},
    {"torch.save", FACT_FILE, "saves"},
    {"safetensors.torch.load_file", FACT_FILE, "loads"},
    {"ctypes.CDLL", FACT_PROCESS, "loads native code"},
    {"torch.ops.load_library", FACT_PROCESS, "loads native code"},
    {"torch.utils.cpp_extension.load", FACT_PROCESS, "compiles native code"},
    {"torch.utils.cpp_extension.load_inline", FACT_PROCESS, "compiles native code"},
    {"subprocess.run", FACT_PROCESS, "starts"},
    {"subprocess.call", FACT_PROCESS, "starts"},
    {"subprocess.check_call", FACT_PROCESS, "starts"},
    {"subprocess.check_output", FACT_PROCESS, "starts"},
    {"subprocess.Popen", FACT_PROCESS, "starts"},
    {"os.system", FACT_PROCESS, "starts"},
    {"os.popen", FACT_PROCESS, "starts"},
    {"os.execv", FACT_PROCESS, "starts"},
    {"os.execvp", FACT_PROCESS, "starts"},
    {"runpy.run_path", FACT_PROCESS, "runs"},
    {"importlib.util.spec_from_file_location", FACT_IMPORT, "loads a module from"},
    {"importlib.import_module", FACT_IMPORT, "imports by name"},
    {"urllib.request.urlopen", FACT_NETWORK, "fetches"},
    {"urllib.request.urlretrieve", FACT_NETWORK, "fetches"},
    {"requests.get", FACT_NETWORK, "fetches"},
    {"requests.post", FACT_NETWORK, "sends to"},
    {"socket.socket", FACT_NETWORK, "opens a socket"},
    {"http.client.HTTPSConnection", FACT_NETWORK, "connects to"},
    {"huggingface_hub.hf_hub_download", FACT_NETWORK, "downloads"},
    {"huggingface_hub.snapshot_download", FACT_NETWORK, "downloads"},
    {"datasets.load_dataset", FACT_NETWORK, "downloads"},
    {"wandb.init", FACT_NETWORK, "reports to wandb"},
};

/* Programs that fetch, among the words of a command. */
static void network_program(struct facts_walk *w, size_t i, const char *text)
{
    static const char *const words[] = {"curl",    "wget",    "pip",      "git clone",
                                        "apt-get", "http://", "https://", "rsync",
                                        "scp",     "aws ",    "gsutil"};
    for (size_t k = 0; k < sizeof words / sizeof *words; k++)
        if (strstr(text, words[k])) {
            facts_add(w, FACT_NETWORK, i, "a program that uses the network: %.80s", text);
            return;
        }
}

static void call(struct facts_walk *w, size_t i)
{
    char target[64], text[96] = "";
    size_t open, next;
    facts_target(w, i, target, sizeof target, &open);
    if (!py_is(&w->s, open, "("))
        return;
    for (size_t k = 0; k < sizeof calls / sizeof *calls; k++) {
        if (strcmp(target, calls[k].target))
            continue;
        size_t arg = open + 1 + py_is(&w->s, open + 1, "[");
        bool literal = facts_text(w, arg, text, sizeof text);
        if (calls[k].kind == FACT_FILE && (!literal || !*text))
            return; /* a path that is computed says nothing */
        if (calls[k].kind == FACT_PROCESS && !literal &&
            !strcmp(facts_target(w, arg, text, sizeof text, &next), "sys.executable"))
            snprintf(text, sizeof text, "another Python");
        else if (calls[k].kind == FACT_PROCESS && !literal)
            snprintf(text, sizeof text, "what the text does not name");
        facts_add(w, calls[k].kind, i, "%s%s%.100s", calls[k].what, *text ? ": " : "",
                  literal || *text ? text : "");
        if (calls[k].kind == FACT_PROCESS)
            for (size_t a = arg; a < w->s.count && w->s.tok[a].depth > w->s.tok[open].depth; a++)
                if (w->s.tok[a].kind == PY_STRING && facts_text(w, a, text, sizeof text))
                    network_program(w, i, text);
        return;
    }
}

/* Paths in literals whose ending says that they are code or weights from elsewhere. */
static void literal(struct facts_walk *w, size_t i)
{
    static const char *const endings[] = {".cu", ".cpp", ".cuh", ".so", ".pkl", ".npz"};
    char text[96];
    size_t n;
    if (!facts_text(w, i, text, sizeof text) || strchr(text, ' ') || !(n = strlen(text)))
        return;
    for (size_t k = 0; k < sizeof endings / sizeof *endings; k++) {
        size_t m = strlen(endings[k]);
        if (n > m && !strcmp(text + n - m, endings[k]))
            facts_add(w, FACT_FILE, i, "names the file: %s", text);
    }
}

/* What calibrates the quantiser, and what trains before scoring. */
static void data(struct facts_walk *w)
{
    static const char *const collect[] = {"hessian", "calib", NULL};
    static const char *const verbs[] = {"collect", "generate", "build", NULL};
    for (size_t i = 0; i + 1 < w->s.count; i++) {
        if (!facts_called(w, i) || !py_is(&w->s, i + 1, "(") || !facts_has_any(w, i, collect) ||
            !facts_has_any(w, i, verbs))
            continue;
        bool val = false, train = false, made = facts_has(w, i, "autoregressive");
        for (size_t k = i + 2; k < w->s.count && w->s.tok[k].depth > w->s.tok[i].depth; k++) {
            val |=
                w->s.tok[k].kind == PY_NAME && facts_has(w, k, "val_") && !facts_has(w, k, "eval");
            train |= facts_has(w, k, "train") || facts_has(w, k, "loader");
        }
        facts_add(w, FACT_DATA, i, "calibration (%.*s) is given %s", (int)w->s.tok[i].len,
                  w->s.text + w->s.tok[i].at,
                  made    ? "text that the model makes"
                  : val   ? "validation data"
                  : train ? "training data"
                          : "data that cannot be told from the call");
    }
}

void facts_outside(struct facts_walk *w)
{
    for (size_t i = 0; i + 1 < w->s.count && !w->nomem; i++) {
        bool start = !i || w->s.tok[i - 1].kind == PY_NEWLINE || py_is(&w->s, i - 1, ";") ||
                     py_is(&w->s, i - 1, ":");
        if (start && (py_is(&w->s, i, "import") || py_is(&w->s, i, "from")))
            imports(w, i);
        else if (w->s.tok[i].kind == PY_NAME && !(i && py_is(&w->s, i - 1, ".")))
            call(w, i);
        else if (w->s.tok[i].kind == PY_STRING)
            literal(w, i);
    }
    data(w);
}
