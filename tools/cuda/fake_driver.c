#define _GNU_SOURCE
// A libcuda.so.1 without a GPU behind it: memory is the CPU's, a kernel does nothing. The real packages (cuda.core, pycuda)
// run over it, so what they are asked for, in which order and what they raise is theirs.
//
// RADBOX_FAKE_CUDA says what is wrong: no-device, old-driver, mismatch, bad-image, fault (the first wait after a launch
// and every call from then on), out-of-memory, abort (in cuInit). RADBOX_FAKE_CUDA_LOG: a file that gets a line per call.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, MEMORY = 2, NO_DEVICE = 100, BAD_IMAGE = 209, NOT_FOUND = 500, FAULT = 700, MISMATCH = 803 };

static int launched, faulted, capturing;
static void *contexts[64];
static int depth;

static int is(const char *what) {
    const char *mode = getenv("RADBOX_FAKE_CUDA");
    return mode != NULL && strcmp(mode, what) == 0;
}

static int told(const char *call) {
    const char *path = getenv("RADBOX_FAKE_CUDA_LOG");
    FILE *log = path ? fopen(path, "a") : NULL;
    if (log) {
        fprintf(log, "%s\n", call);
        fclose(log);
    }
    return faulted ? FAULT : OK;
}

#define CALL const int status = told(__func__); if (status) return status

int cuInit(unsigned flags) {
    (void)flags;
    if (is("abort")) abort();
    if (is("no-device")) return NO_DEVICE;
    if (is("mismatch")) return MISMATCH;
    CALL;
    return OK;
}
int cuDriverGetVersion(int *version) { *version = is("old-driver") ? 11020 : 13000; return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal == 0 ? OK : 101; }
int cuDeviceGetName(char *name, int size, int device) { (void)device; snprintf(name, (size_t)size, "Fake Orin"); return OK; }
int cuDeviceGetUuid(char *uuid, int device) { (void)device; memset(uuid, 7, 16); return OK; }
int cuDeviceGetUuid_v2(char *uuid, int device) { return cuDeviceGetUuid(uuid, device); }
int cuDeviceComputeCapability(int *major, int *minor, int device) { (void)device; *major = 8; *minor = 7; return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : 1;
    return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; CALL; *context = contexts; return OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; told(__func__); return OK; }
int cuDevicePrimaryCtxRelease(int device) { return cuDevicePrimaryCtxRelease_v2(device); }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { (void)device; *flags = 0; *active = 1; return OK; }
int cuCtxPushCurrent_v2(void *context) { told(__func__); contexts[depth++] = context; return OK; }
int cuCtxPopCurrent_v2(void **context) {
    told(__func__);
    if (depth == 0) return 201;
    --depth;
    if (context) *context = contexts[depth];
    return OK;
}
int cuCtxSetCurrent(void *context) { told(__func__); contexts[depth ? depth - 1 : depth++] = context; return OK; }
int cuCtxGetCurrent(void **context) { *context = depth ? contexts[depth - 1] : NULL; return OK; }
int cuCtxGetDevice(int *device) { *device = 0; return depth ? OK : 201; }
int cuCtxSynchronize(void) { CALL; return OK; }
int cuMemAlloc_v2(uint64_t *address, size_t size) {
    CALL;
    if (is("out-of-memory")) return MEMORY;
    *address = (uint64_t)(uintptr_t)malloc(size);
    return OK;
}
int cuMemAllocAsync(uint64_t *address, size_t size, void *stream) { (void)stream; return cuMemAlloc_v2(address, size); }
int cuMemAllocFromPoolAsync(uint64_t *address, size_t size, void *pool, void *stream) {
    (void)pool;
    return cuMemAllocAsync(address, size, stream);
}
int cuMemFree_v2(uint64_t address) { CALL; free((void *)(uintptr_t)address); return OK; }
int cuMemFreeAsync(uint64_t address, void *stream) { (void)stream; return cuMemFree_v2(address); }
int cuMemHostAlloc(void **memory, size_t size, unsigned flags) { (void)flags; CALL; *memory = calloc(1, size); return OK; }
int cuMemAllocHost_v2(void **memory, size_t size) { return cuMemHostAlloc(memory, size, 0); }
int cuMemFreeHost(void *memory) { CALL; free(memory); return OK; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream) {
    (void)stream;
    CALL;
    if (!capturing) memcpy((void *)(uintptr_t)to, from, size);
    return OK;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream) {
    (void)stream;
    CALL;
    if (!capturing) memcpy(to, (void *)(uintptr_t)from, size);
    return OK;
}
int cuMemcpyAsync(uint64_t to, uint64_t from, size_t size, void *stream) {
    return cuMemcpyHtoDAsync_v2(to, (void *)(uintptr_t)from, size, stream);
}
int cuModuleLoadDataEx(void **module, const void *image, unsigned count, void *options, void **values) {
    (void)image, (void)count, (void)options, (void)values;
    CALL;
    *module = contexts;
    return is("bad-image") ? BAD_IMAGE : OK;
}
int cuModuleLoadData(void **module, const void *image) { return cuModuleLoadDataEx(module, image, 0, NULL, NULL); }
int cuLibraryLoadData(void **library, const void *image, void *a, void **b, unsigned c, void *d, void **e, unsigned f) {
    (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
    return cuModuleLoadData(library, image);
}
int cuLibraryUnload(void *library) { (void)library; return OK; }
int cuModuleUnload(void *module) { (void)module; CALL; return OK; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    (void)module;
    CALL;
    *function = contexts + 1;
    return strncmp(name, "radbox_", 7) == 0 ? OK : NOT_FOUND;
}
int cuLibraryGetKernel(void **kernel, void *library, const char *name) { return cuModuleGetFunction(kernel, library, name); }
int cuKernelGetFunction(void **function, void *kernel) { *function = kernel; return OK; }
int cuFuncGetAttribute(int *value, int attribute, void *function) { (void)attribute, (void)function; *value = 0; return OK; }
int cuKernelGetParamInfo(void *kernel, size_t index, size_t *offset, size_t *size) {
    (void)kernel, (void)index, (void)offset, (void)size;
    return INVALID;
}
int cuFuncSetBlockShape(void *function, int x, int y, int z) { (void)function, (void)x, (void)y, (void)z; return OK; }
int cuLaunchKernel(void *function, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned f, unsigned shared,
                   void *stream, void **arguments, void **extra) {
    (void)function, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)shared, (void)stream, (void)arguments,
        (void)extra;
    CALL;
    launched = 1;
    return OK;
}
int cuLaunchKernelEx(const void *config, void *function, void **arguments, void **extra) {
    (void)config;
    return cuLaunchKernel(function, 0, 0, 0, 0, 0, 0, 0, NULL, arguments, extra);
}
int cuStreamCreate(void **stream, unsigned flags) { (void)flags; CALL; *stream = (void *)5; return OK; }
int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) { (void)priority; return cuStreamCreate(stream, flags); }
int cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = *greatest = 0; return OK; }
int cuStreamDestroy_v2(void *stream) { (void)stream; CALL; return OK; }
int cuStreamSynchronize(void *stream) {
    (void)stream;
    if (launched && is("fault")) faulted = 1;
    CALL;
    return OK;
}
int cuStreamGetCtx(void *stream, void **context) { (void)stream; *context = contexts; return OK; }
int cuStreamGetDevice(void *stream, int *device) { (void)stream; *device = 0; return OK; }
int cuStreamIsCapturing(void *stream, int *is_capturing) { (void)stream; *is_capturing = capturing; return OK; }
int cuStreamBeginCapture_v2(void *stream, int mode) { (void)stream, (void)mode; CALL; capturing = 1; return OK; }
int cuStreamEndCapture(void *stream, void **graph) { (void)stream; capturing = 0; CALL; *graph = (void *)11; return OK; }
int cuGraphInstantiateWithFlags(void **ready, void *graph, uint64_t flags) {
    (void)graph, (void)flags;
    CALL;
    *ready = (void *)12;
    return OK;
}
int cuGraphDestroy(void *graph) { (void)graph; CALL; return OK; }
int cuGraphLaunch(void *ready, void *stream) { (void)ready, (void)stream; CALL; launched = 1; return OK; }
int cuGraphExecDestroy(void *ready) { (void)ready; CALL; return OK; }
int cuEventCreate(void **event, unsigned flags) { (void)flags; CALL; *event = (void *)13; return OK; }
int cuEventRecord(void *event, void *stream) { (void)event, (void)stream; CALL; return OK; }
int cuEventElapsedTime(float *milliseconds, void *start, void *end) { (void)start, (void)end; *milliseconds = 2.5f; return OK; }
int cuEventElapsedTime_v2(float *milliseconds, void *start, void *end) { return cuEventElapsedTime(milliseconds, start, end); }
int cuEventDestroy_v2(void *event) { (void)event; return OK; }
int cuMemGetInfo_v2(size_t *left, size_t *total) { *left = *total = (size_t)1 << 30; return OK; }
int cuDeviceGetDefaultMemPool(void **pool, int device) { (void)device; *pool = (void *)14; return OK; }
int cuDeviceGetMemPool(void **pool, int device) { return cuDeviceGetDefaultMemPool(pool, device); }
int cuMemPoolGetAttribute(void *pool, int attribute, void *value) { (void)pool, (void)attribute; memset(value, 0, 8); return OK; }
int cuMemPoolSetAttribute(void *pool, int attribute, void *value) { (void)pool, (void)attribute, (void)value; return OK; }
int cuPointerGetAttributes(unsigned count, int *attributes, void **values, uint64_t address) {
    (void)count, (void)attributes, (void)values, (void)address;
    return INVALID;
}

static const struct {
    int error;
    const char *name, *text;
} kErrors[] = {
    {OK, "CUDA_SUCCESS", "no error"},
    {INVALID, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {BAD_IMAGE, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {FAULT, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {MISMATCH, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"},
};
static int describe(int error, const char **name, const char **text) {
    for (size_t i = 0; i < sizeof kErrors / sizeof *kErrors; ++i)
        if (kErrors[i].error == error) {
            if (name) *name = kErrors[i].name;
            if (text) *text = kErrors[i].text;
            return OK;
        }
    if (name) *name = "CUDA_ERROR_NOT_SUPPORTED";
    if (text) *text = "operation not supported";
    return OK;
}
int cuGetErrorName(int error, const char **name) { return describe(error, name, NULL); }
int cuGetErrorString(int error, const char **text) { return describe(error, NULL, text); }

// cuda.bindings asks for every call by its first name and a version: the newest that is here.
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *found) {
    (void)version, (void)flags;
    Dl_info where;
    char newer[128];
    if (!dladdr((void *)(uintptr_t)cuInit, &where)) return NOT_FOUND;
    void *self = dlopen(where.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    snprintf(newer, sizeof newer, "%s_v2", name);
    *function = dlsym(self, newer);
    if (*function == NULL) *function = dlsym(self, name);
    if (found) *found = *function ? 0 : 1;
    return *function ? OK : NOT_FOUND;
}
int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
