/*
 * record_script.h - the code of a record: which file is the script, what it unpacks to, what else
 * it needs, and whether it is the text that a log printed. Nothing is executed.
 */
#ifndef VERIFY_RECORD_SCRIPT_H
#define VERIFY_RECORD_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>

#include "verify/record_folder.h"
#include "verify/record_log.h"
#include "verify/script_facts.h"
#include "verify/unwrap.h"

enum { SCRIPT_SIBLINGS = 32 };

struct record_script {
    const struct record_file *file;   /* the main script, NULL: none */
    const struct record_file *target; /* the file that it only executes, NULL: itself */
    const char *source;               /* plain source of file or target; NULL when there is none */
    size_t source_n;
    bool wrapped;                 /* source was unpacked out of the file */
    char family[256];             /* the wrapper, "none" */
    struct unwrap u;              /* of the file or the target */
    bool unwrapped;               /* u is there */
    size_t self_line;             /* the wrapper states its own size here, wrongly; 0: not */
    unsigned long long self_size; /* the size that it states */
    const struct record_file *sibling[SCRIPT_SIBLINGS]; /* code in the folder that it imports or
                                                           loads by name, itself excluded */
    size_t sibling_line[SCRIPT_SIBLINGS];               /* where, in the source (0: elsewhere) */
    size_t siblings;
    size_t new_syntax; /* line that Python before 3.12 refuses, 0: none */
    size_t lines;
    struct script_facts facts;
    bool have_facts;
};

/*
 * record_script_read - choose and read the script.
 *
 *   counted  the code size that the logs print, 0: unknown; decides between several scripts
 *   setting  settings printed by a log, for the facts; `settings` of them
 *
 * train_gpt.py, else the *.py at the top whose name begins with "train", with the counted size or
 * the shortest name; else a train_gpt.py further down. No script is no error. ERR_RESOURCE: no
 * memory. Release with record_script_free in every case; the folder must outlive it.
 */
enum err_code record_script_read(struct record_script *s, const struct record_folder *f,
                                 size_t counted, const struct script_setting *setting,
                                 size_t settings, struct err *e);
void record_script_free(struct record_script *s); /* accepts a zeroed struct */

/* record_script_size - bytes of the code as it lies in the folder: file, and the file it executes.
 */
size_t record_script_size(const struct record_script *s);

/* record_script_sibling_bytes - of what it imports or loads beside. */
size_t record_script_sibling_bytes(const struct record_script *s);

/*
 * record_script_printed - is the script that a log printed the shipped one?
 *
 *   text, n  as the log printed it
 *   which    the file of the folder that it equals byte for byte, or NULL
 *
 * Compared with the script, its plain source, and every other *.py of the folder. True: equal.
 */
bool record_script_printed(const struct record_script *s, const struct record_folder *f,
                           const char *text, size_t n, const char **which);

#endif
