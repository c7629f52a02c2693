/* cuda_start.c - from a static runner to the driver of the machine, and back; see cuda.h. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/err.h"
#include "model/reader.h"
#include "model/text.h"
#include "stub/cuda.h"
#include "stub/cuda_driver.h"

/* The image, as stub/runner.ld and stub/cuda_dyn.S lay it out. The address of file_bytes is the
 * number. */
extern const uint8_t __ehdr_start[], cuda_phdrs[];
extern const char file_bytes[];

/* dlopen and dlsym, written by the linker, and 0 in a process that was started without one. */
void *volatile cuda_dl[2];

/* Places in an ELF header, and what differs there between the two kinds of start. The kernel reads
 * nothing in e_flags on x86-64, so a start says there what it is for. */
enum { E_PHOFF = 32, E_FLAGS = 48, E_PHNUM = 56, PHDRS_STATIC = 64, STATIC = 2, LINKED = 5 };
enum purpose { FIRST, FOR_CUDA, FOR_CPU };

enum { CLOEXEC = 1, EXEC = 16, ITSELF = 0x1000, NOW = 2 /* RTLD_NOW */, NEEDED_CAPABILITY = 8 };

struct cuda_driver cuda_driver;
bool cuda_on;
const char *cuda_device;
static char **arguments;
static bool forced, written, linked;

/* Start again; returns when the kernel refuses. */
static void restart(enum purpose purpose)
{
    size_t n = (size_t)(uintptr_t)file_bytes, i = 0;
    uint8_t *image = malloc(n);
    bool dynamic = purpose == FOR_CUDA;
    long fd, flags = CLOEXEC | EXEC;
    while (arguments[i])
        i++; /* the environment is behind the arguments */
    memcpy(image, __ehdr_start, n);
    put_le64(image + E_PHOFF, dynamic ? (uint64_t)(cuda_phdrs - __ehdr_start) : PHDRS_STATIC);
    put_le32(image + E_FLAGS, purpose);
    image[E_PHNUM] = dynamic ? LINKED : STATIC;
    do /* EXEC is known since Linux 6.3 */
        fd = syscall(SYS_memfd_create, "", flags, 0, 0, 0);
    while (fd < 0 && (flags -= EXEC) > 0);
    if (write((int)fd, image, n) == (ssize_t)n)
        syscall(SYS_execveat, fd, "", arguments, arguments + i + 1, ITSELF);
    close((int)fd);
    free(image);
}

void cuda_leave(const char *reason)
{
    char line[320];
    struct text t = {line, 0, sizeof line};
    if (forced || written)
        err_exit(ERR_RESOURCE, "no CUDA (%s)", reason);
    text_str(&t, "submission: no CUDA (");
    text_str(&t, reason);
    text_str(&t, "): scoring on the CPU\n");
    write(2, line, t.n);
    if (!linked)
        return;
    restart(FOR_CPU);
    err_exit(ERR_RESOURCE, "cannot start again");
}

void cuda_written(void)
{
    written = true;
}

void cuda_must(CUresult r, const char *call)
{
    char reason[160];
    const char *name = NULL;
    struct text t = {reason, 0, sizeof reason};
    if (!r)
        return;
    cuda_driver.GetErrorName(r, &name);
    text_str(&t, call);
    text_str(&t, ": ");
    text_str(&t, name ? name : "an error without a name");
    cuda_leave(reason);
}

/* A device file of NVIDIA's driver, or of Windows', can be opened. Asked first, because behind a
 * failing linker nobody is left to go on; and in a sandbox nothing else is tried. */
static bool has_device(void)
{
    int fd = open("/dev/nvidiactl", O_RDONLY);
    if (fd < 0)
        fd = open("/dev/dxg", O_RDONLY);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* The functions of CUDA_DRIVER, by name. */
static const char *find_functions(void *library)
{
    static const char names[] =
#define X(name, args) "cu" #name "\0"
        CUDA_DRIVER(X)
#undef X
        ;
    void *(*find)(void *, const char *) = (void *(*)(void *, const char *))(uintptr_t)cuda_dl[1];
    uint8_t *to = (uint8_t *)&cuda_driver;
    for (const char *s = names; *s; s += strlen(s) + 1) {
        void *function = find(library, s);
        if (!function)
            return "libcuda.so.1 is too old";
        memcpy(to, &function, sizeof function);
        to += sizeof function;
    }
    return NULL;
}

static void choose_device(void)
{
    CUdevice device;
    CUcontext context;
    int major, minor;
    char name[128], line[200];
    struct text t = {line, 0, sizeof line};
    cuda_must(cuda_driver.Init(0), "cuInit");
    cuda_must(cuda_driver.DeviceGet(&device, 0), "cuDeviceGet");
    cuda_must(cuda_driver.DeviceGetName(name, sizeof name, device), "cuDeviceGetName");
    cuda_must(cuda_driver.DeviceGetAttribute(&major, CU_COMPUTE_CAPABILITY_MAJOR, device),
              "cuDeviceGetAttribute");
    cuda_must(cuda_driver.DeviceGetAttribute(&minor, CU_COMPUTE_CAPABILITY_MINOR, device),
              "cuDeviceGetAttribute");
    text_str(&t, name);
    text_str(&t, ", sm_");
    text_u64(&t, (uint64_t)(major * 10 + minor));
    if (major < NEEDED_CAPABILITY) {
        text_str(&t, ", sm_80 is needed");
        cuda_leave(line);
    }
    cuda_must(cuda_driver.DevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
    cuda_must(cuda_driver.CtxSetCurrent(context), "cuCtxSetCurrent");
    if (isatty(2)) {
        text_char(&t, '\n');
        write(2, line, t.n);
    }
}

void cuda_begin(char **argv)
{
    enum purpose purpose = (enum purpose)le32(__ehdr_start + E_FLAGS);
    const char *problem = "libcuda.so.1 is not there";
    void *library;
    const char *device = cuda_device ? cuda_device : "auto";
    forced = !strcmp(device, "cuda");
    if (!forced && strcmp(device, "auto") && strcmp(device, "cpu"))
        err_exit(ERR_USAGE, "--device %s: must be auto, cpu or cuda", device);
    if (!strcmp(device, "cpu") || purpose == FOR_CPU)
        return;
    arguments = argv;
    if (purpose == FIRST) {
        if (cuda_device || has_device()) {
            restart(FOR_CUDA);
            cuda_leave("/lib64/ld-linux-x86-64.so.2 does not start");
        } else {
            cuda_leave("there is no NVIDIA device");
        }
        return;
    }
    linked = true;
    if (!cuda_dl[0] || !cuda_dl[1])
        cuda_leave("libc has no dlopen");
    library = ((void *(*)(const char *, int))(uintptr_t)cuda_dl[0])("libcuda.so.1", NOW);
    if (library)
        problem = find_functions(library);
    if (problem)
        cuda_leave(problem);
    choose_device();
    cuda_on = true;
}
