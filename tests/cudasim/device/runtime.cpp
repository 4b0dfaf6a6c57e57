// The device as a program asks for it: errors, versions, attributes, counters, and what is not there.
#include "device.hpp"

static int asked(const char* name, int otherwise) {
    const char* text = getenv(name);
    return text ? atoi(text) : otherwise;
}

int device_count = asked("CUDASIM_DEVICES", 1);
thread_local int current_device = 0;
cudaError_t broken = cudaSuccess;
static thread_local cudaError_t last = cudaSuccess;
static int driver_version = asked("CUDASIM_DRIVER", 13000);

cudaError_t fail(cudaError_t e) { return last = e; }

// ---------------------------------------------------------------- for the tests

uint64_t counters[COUNTERS];
static bool tracing = false;
static std::string traced;

void trace(const char* kind, const std::string& name) {
    if (tracing) traced += std::string(kind) + " " + name + "\n";
}

API uint64_t* sim_counters() { return counters; }
API void sim_start_trace() { LOCK; traced.clear(); tracing = true; }
API const char* sim_end_trace() { LOCK; tracing = false; return traced.c_str(); }
API void sim_repair() { LOCK; broken = last = cudaSuccess; }
API void sim_set_driver(int version) { driver_version = version; }
API void sim_set_devices(int count) { device_count = count; }

API int sim_unknown(const char* name) {
    counters[UNKNOWN]++;
    fprintf(stderr, "cudasim: the simulated device has no %s\n", name);
    return cudaErrorNotSupported;
}

// ---------------------------------------------------------------- errors

API const char* cudaGetErrorName(cudaError_t e) {
#define NAME(e) case e: return #e;
    switch (e) {
        NAME(cudaSuccess) NAME(cudaErrorInvalidValue) NAME(cudaErrorMemoryAllocation) NAME(cudaErrorNotSupported)
        NAME(cudaErrorIllegalAddress) NAME(cudaErrorInvalidDevice) NAME(cudaErrorNotReady) NAME(cudaErrorIllegalState)
        NAME(cudaErrorInvalidResourceHandle) NAME(cudaErrorStreamCaptureUnsupported) NAME(cudaErrorNoDevice)
        NAME(cudaErrorStreamCaptureInvalidated) NAME(cudaErrorStreamCaptureImplicit) NAME(cudaErrorCapturedEvent)
        NAME(cudaErrorStreamCaptureIsolation) NAME(cudaErrorPeerAccessUnsupported) NAME(cudaErrorInsufficientDriver)
        default: return "cudaErrorUnknown";
    }
}
API const char* cudaGetErrorString(cudaError_t e) {
    return e == cudaErrorInsufficientDriver ? "CUDA driver version is insufficient for CUDA runtime version" : "of the simulated device";
}
API cudaError_t cudaGetLastError() { cudaError_t e = last; last = cudaSuccess; return e; }
API cudaError_t cudaPeekAtLastError() { return last; }

// ---------------------------------------------------------------- devices

API cudaError_t cudaDriverGetVersion(int* v) { *v = driver_version; return cudaSuccess; }
API cudaError_t cudaRuntimeGetVersion(int* v) { *v = 13000; return cudaSuccess; }
API cudaError_t cudaGetDevice(int* d) { *d = current_device; return cudaSuccess; }
API cudaError_t cudaGetDeviceCount(int* n) {
    *n = 0;
    if (driver_version < 13000) return fail(cudaErrorInsufficientDriver);
    if (!device_count) return fail(cudaErrorNoDevice);
    *n = device_count;
    return cudaSuccess;
}
API cudaError_t cudaSetDevice(int d) {
    if (d < 0 || d >= device_count) return fail(cudaErrorInvalidDevice);
    current_device = d;
    return cudaSuccess;
}

API cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int) {
    switch (a) {  // of an H100, as far as CuPy asks
        case cudaDevAttrComputeCapabilityMajor: *v = 9; break;
        case cudaDevAttrMaxThreadsPerBlock: case cudaDevAttrMaxBlockDimX: case cudaDevAttrMaxBlockDimY: *v = 1024; break;
        case cudaDevAttrMaxGridDimX: *v = 0x7fffffff; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *v = 49152; break;
        case cudaDevAttrMultiProcessorCount: *v = 132; break;
        case cudaDevAttrWarpSize: *v = 32; break;
        default: *v = 0;
    }
    return cudaSuccess;
}

API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
    *p = {};
    strcpy(p->name, "Simulated device");
    p->major = 9;
    p->multiProcessorCount = 132;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    size_t unused;
    return cudaMemGetInfo(&unused, &p->totalGlobalMem);
}

API cudaError_t cudaDeviceCanAccessPeer(int* v, int, int) { *v = 0; return cudaSuccess; }  // so a mixed-up device is an error
API cudaError_t cudaDeviceGetLimit(size_t* v, cudaLimit) { *v = 0; return cudaSuccess; }
API cudaError_t cudaDeviceSetLimit(cudaLimit, size_t) { return cudaSuccess; }
API cudaError_t cudaDeviceGetPCIBusId(char* s, int n, int d) { snprintf(s, n, "0000:%02x:00.0", d); return cudaSuccess; }
API cudaError_t cudaProfilerStart() { return cudaSuccess; }
API cudaError_t cudaProfilerStop() { return cudaSuccess; }
