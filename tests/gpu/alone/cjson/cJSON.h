/*
 * cJSON.h - a stand-in for the part of cJSON that trainer and parity use, so that `make test-gpu`
 * builds where only gcc and the CUDA toolkit are (the Makefile's ALONE). Everything else is built
 * with the library. The interface is the library's (its own header is the manual); differences:
 *
 *   - numbers print with 17 digits, strings escape what JSON asks for and nothing else
 *   - at most 64 levels of nesting
 *   - the hooks are ignored: memory comes from malloc
 */
#ifndef TESTS_GPU_ALONE_CJSON_H
#define TESTS_GPU_ALONE_CJSON_H

#include <stddef.h>

enum {
    cJSON_False = 1,
    cJSON_True = 2,
    cJSON_NULL = 4,
    cJSON_Number = 8,
    cJSON_String = 16,
    cJSON_Array = 32,
    cJSON_Object = 64,
};

typedef int cJSON_bool;

/* The first child's prev is the last one, everybody's next is NULL at the end. */
typedef struct cJSON {
    struct cJSON *next, *prev, *child;
    int type;
    char *valuestring;
    int valueint;
    double valuedouble;
    char *string; /* the key, in an object */
} cJSON;

typedef struct cJSON_Hooks {
    void *(*malloc_fn)(size_t n);
    void (*free_fn)(void *p);
} cJSON_Hooks;

void cJSON_InitHooks(cJSON_Hooks *hooks);

cJSON *cJSON_ParseWithLength(const char *text, size_t n);
cJSON *cJSON_ParseWithLengthOpts(const char *text, size_t n, const char **end, cJSON_bool whole);
void cJSON_Delete(cJSON *j);

cJSON_bool cJSON_IsTrue(const cJSON *j);
cJSON_bool cJSON_IsNumber(const cJSON *j);
cJSON_bool cJSON_IsString(const cJSON *j);
cJSON_bool cJSON_IsArray(const cJSON *j);
cJSON_bool cJSON_IsObject(const cJSON *j);
int cJSON_GetArraySize(const cJSON *j);
cJSON *cJSON_GetObjectItemCaseSensitive(const cJSON *j, const char *key);

#define cJSON_ArrayForEach(item, array)                                                            \
    for ((item) = (array) ? (array)->child : NULL; (item); (item) = (item)->next)

cJSON *cJSON_CreateObject(void);
cJSON *cJSON_CreateNumber(double v);
cJSON_bool cJSON_AddItemToArray(cJSON *array, cJSON *item);
cJSON *cJSON_AddArrayToObject(cJSON *o, const char *key);
cJSON *cJSON_AddObjectToObject(cJSON *o, const char *key);
cJSON *cJSON_AddStringToObject(cJSON *o, const char *key, const char *text);
char *cJSON_PrintUnformatted(const cJSON *j);

#endif
