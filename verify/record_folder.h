/*
 * record_folder.h - the files of a leaderboard folder, read once and never executed.
 *
 * Regular files only: symbolic links, pipes and devices are listed in the notes and not opened, so
 * nothing outside of the folder is read. Text (README, metadata, logs, scripts) is loaded; of
 * everything else only the size is taken. Subfolders are walked, because some records keep their
 * logs in `logs/`.
 */
#ifndef VERIFY_RECORD_FOLDER_H
#define VERIFY_RECORD_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

enum {
    RECORD_FILES = 4096,          /* more in one folder are refused */
    RECORD_DEPTH = 6,             /* subfolders below the folder; deeper ones are noted */
    RECORD_TEXT_MAX = 32 << 20,   /* bytes of one text; larger files are not read, and noted */
    RECORD_TOTAL_MAX = 256 << 20, /* bytes of all texts of one folder */
    RECORD_NOTES = 16,
};

enum record_kind {
    RECORD_README,    /* README.md at the top */
    RECORD_META,      /* *.json at the top */
    RECORD_LOG,       /* *.log, *.txt, *.out, but not requirements*.txt */
    RECORD_SCRIPT,    /* *.py */
    RECORD_CODE,      /* other sources, shell scripts and compiled helpers */
    RECORD_WEIGHTS,   /* packed or plain weights */
    RECORD_PROGRAM,   /* an executable, as `packer pack` makes it: script, weights and all */
    RECORD_TOKENIZER, /* *.model, *.vocab */
    RECORD_OTHER,
};

struct record_file {
    char *path; /* inside the folder, with / between parts */
    enum record_kind kind;
    uint64_t size;
    char *text; /* size bytes and a NUL behind them; NULL: not read */
};

enum record_track { RECORD_TRACK_UNKNOWN, RECORD_TRACK_RECORD, RECORD_TRACK_NON_RECORD };

struct record_folder {
    char *dir;                /* as given, without slashes at the end */
    char *name;               /* its last part */
    struct record_file *file; /* by path in byte order */
    size_t files;
    char note[RECORD_NOTES][160]; /* what was not read, and why */
    size_t notes;
};

/* record_folder_read - ERR_INPUT: no directory, not readable, too many files; ERR_RESOURCE: no
 * memory. Release with record_folder_free in every case. */
enum err_code record_folder_read(struct record_folder *f, const char *dir, struct err *e);
void record_folder_free(struct record_folder *f); /* accepts a zeroed struct */

/* record_folder_add - one more file, in memory; `text` is copied. For tests and fuzzing. */
enum err_code record_folder_add(struct record_folder *f, const char *path, const void *text,
                                size_t n, struct err *e);

/* record_folder_find - the file with this path, or NULL. */
const struct record_file *record_folder_find(const struct record_folder *f, const char *path);

/* record_file_name - the last part of its path. */
const char *record_file_name(const struct record_file *f);

/*
 * record_folders - the record folders at or below `dir`, in byte order.
 *
 * A folder is a record when it directly holds a *.json named submission*, a *.py or a *.log;
 * folders inside of a record are part of it. When there is none, `dir` itself is the record if it
 * holds any regular file. A folder below `dir` that cannot be read is listed, so that it is missed.
 * *list and its strings are for the caller: record_folders_free. ERR_INPUT: no such directory, or
 * nothing in it. record_folders_one: a list of `dir` alone, whatever it is.
 */
enum err_code record_folders(char ***list, size_t *n, const char *dir, struct err *e);
enum err_code record_folders_one(char ***list, size_t *n, const char *dir, struct err *e);
void record_folders_free(char **list, size_t n);

#endif
