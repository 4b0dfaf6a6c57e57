// Modules and kernels: a module is a shared library that compiler.py made of CUDA C++, a launch is a loop over threads.
#include <dlfcn.h>
#include <nvrtc.h>
#include <sys/mman.h>

#include <map>

#include "device.hpp"

// ---------------------------------------------------------------- the threads of a block

struct Dim { unsigned x, y, z; };
struct Context { Dim thread, block, block_dim, grid_dim; char* dynamic; };  // as in kernel/cuda.h
static Context context;
extern "C" __attribute__((visibility("default"))) Context* const sim_context = &context;

// Each thread of a block that has barriers is a fiber: the registers that a call preserves, on a stack of its own.
extern "C" void sim_switch(void** from, void* to);
asm(R"(
.globl sim_switch
sim_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");

namespace {

constexpr size_t STACK = 128 << 10;
constexpr size_t SAVED = 6;  // registers

struct Fiber {
    char* stack = (char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void* top = nullptr;
    bool over = false;
};
std::deque<Fiber> fibers;
Fiber* current = nullptr;
void* scheduler;
const std::function<void()>* body;

void start_fiber() {
    (*body)();
    current->over = true;
    sim_switch(&current->top, scheduler);
    __builtin_trap();
}

void run_fibers(size_t n, const std::function<void(size_t)>& place) {
    while (fibers.size() < n) fibers.emplace_back();
    for (size_t i = 0; i < n; i++) {
        void** top = (void**)(fibers[i].stack + STACK - 72);  // the alignment that a call leaves
        *top = nullptr;
        *--top = (void*)start_fiber;
        for (size_t k = 0; k < SAVED; k++) *--top = nullptr;
        fibers[i].top = top;
        fibers[i].over = false;
    }
    for (size_t left = n; left;)
        for (size_t i = 0; i < n; i++) {
            if (fibers[i].over) continue;
            current = &fibers[i];
            place(i);
            sim_switch(&scheduler, current->top);
            left -= fibers[i].over;
        }
    current = nullptr;
}

void run_grid(Dim grid, Dim block, bool barriers, const std::function<void()>& kernel) {
    context.grid_dim = grid;
    context.block_dim = block;
    body = &kernel;
    size_t n = (size_t)block.x * block.y * block.z;
    auto place = [block](size_t i) {
        context.thread = {unsigned(i % block.x), unsigned(i / block.x % block.y), unsigned(i / block.x / block.y)};
    };
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                context.block = {x, y, z};
                if (barriers) {
                    run_fibers(n, place);
                    continue;
                }
                for (size_t i = 0; i < n; i++) {
                    place(i);
                    kernel();
                }
            }
}

// Float32 subnormals are zero while this lives: CuPy compiles with -ftz=true.
struct FlushToZero {
    unsigned before = __builtin_ia32_stmxcsr();
    explicit FlushToZero(bool on) { if (on) __builtin_ia32_ldmxcsr(before | 0x8040); }
    ~FlushToZero() { __builtin_ia32_ldmxcsr(before); }
};
const bool flushing = getenv("CUDASIM_FTZ") && !strcmp(getenv("CUDASIM_FTZ"), "1");

enum Action { BIND, RUN, DROP };              // of sim_kernel_NAME, see kernel/cuda.h
enum Trait { ELEMENTWISE = 1, BARRIERS = 2, FLUSHES = 4 };  // of sim_traits, see compiler.py

struct Kernel {
    std::string name;
    void* (*act)(int action, void* arguments);
    int traits;
};
struct Module {
    void* library;
    std::map<std::string, Kernel> kernels;
};

}  // namespace

API void sim_barrier() {
    if (current) sim_switch(&current->top, scheduler);
}

// ---------------------------------------------------------------- the driver's functions

constexpr char MAGIC[] = "CUDASIM:";

API int cuInit(unsigned) { return 0; }
API int cuDriverGetVersion(int* v) { return cudaDriverGetVersion(v); }
API int cuGetErrorName(int e, const char** text) { *text = cudaGetErrorName((cudaError_t)e); return 0; }
API int cuGetErrorString(int e, const char** text) { *text = cudaGetErrorString((cudaError_t)e); return 0; }
API int cuCtxGetCurrent(void** c) { *c = (void*)(uintptr_t)(0x1000 + current_device); return 0; }
API int cuCtxSetCurrent(void* c) { current_device = (int)((uintptr_t)c - 0x1000); return 0; }
API int cuCtxGetDevice(int* d) { *d = current_device; return 0; }
API int cuStreamGetCtx(void*, void** c) { return cuCtxGetCurrent(c); }
API int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API int cuFuncGetAttribute(int* v, int, void*) { *v = 0; return 0; }
API int cuFuncSetAttribute(void*, int, int) { return 0; }
API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, void*, int, size_t) { *n = 2; return 0; }
API int cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void*, void*, size_t, int) { *grid = 264; *block = 256; return 0; }

API int cuModuleLoadData(void** out, const void* image) {
    LOCK;
    if (memcmp(image, MAGIC, strlen(MAGIC))) return fprintf(stderr, "cudasim: a module of another compiler\n"), 200;
    void* library = dlopen((const char*)image + strlen(MAGIC), RTLD_NOW | RTLD_LOCAL);
    if (!library) return fprintf(stderr, "cudasim: %s\n", dlerror()), 200;
    *out = new Module{library, {}};
    return 0;
}
API int cuModuleUnload(void*) { return 0; }

API int cuModuleGetFunction(void** out, void* module, const char* name) {
    LOCK;
    auto& [library, kernels] = *(Module*)module;
    auto& kernel = kernels[name];
    if (!kernel.act) {
        auto act = (void* (*)(int, void*))dlsym(library, (std::string("sim_kernel_") + name).c_str());
        if (!act) return fprintf(stderr, "cudasim: no kernel %s\n", name), 500;
        kernel = {name, act, *(int*)dlsym(library, "sim_traits")};
    }
    *out = &kernel;
    return 0;
}

API int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                       unsigned shared, cudaStream_t handle, void** arguments, void**) {
    LOCK;
    auto s = stream_at(handle);
    auto& kernel = *(Kernel*)function;
    if (!s) return cudaErrorInvalidResourceHandle;
    if (s->device != current_device) return cudaErrorInvalidResourceHandle;
    if (!gx || !gy || !gz || !bx || !by || !bz || (uint64_t)bx * by * bz > 1024) return cudaErrorInvalidValue;
    counters[LAUNCHES]++;
    trace(kind_of(s), kernel.name);
    auto act = kernel.act;
    std::shared_ptr<void> bound(act(BIND, arguments), [act](void* p) { act(DROP, p); });
    return (int)enqueue(s, kernel.name, [=, traits = kernel.traits] {
        FlushToZero flush(flushing && traits & FLUSHES);
        std::vector<char> dynamic(shared + 16);
        context.dynamic = dynamic.data();
        // A loop over all elements needs one thread.
        bool one = (traits & ELEMENTWISE) && !(traits & BARRIERS);
        run_grid(one ? Dim{1, 1, 1} : Dim{gx, gy, gz}, one ? Dim{1, 1, 1} : Dim{bx, by, bz}, traits & BARRIERS,
                 [&] { act(RUN, bound.get()); });
    });
}

// ---------------------------------------------------------------- NVRTC, whose compiler is in Python: compiler.py

struct Program { std::string source, blob, log; };
static int (*compile)(const char* source, int count, const char* const* options, char* out, int size);
API void sim_set_compiler(decltype(compile) f) { compile = f; }

static Program& program(nvrtcProgram p) { return *(Program*)p; }

API nvrtcResult nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return NVRTC_SUCCESS; }
API const char* nvrtcGetErrorString(nvrtcResult r) { return r ? "NVRTC_ERROR_COMPILATION" : "NVRTC_SUCCESS"; }
API nvrtcResult nvrtcGetNumSupportedArchs(int* n) { *n = 1; return NVRTC_SUCCESS; }
API nvrtcResult nvrtcGetSupportedArchs(int* a) { *a = 90; return NVRTC_SUCCESS; }
API nvrtcResult nvrtcCreateProgram(nvrtcProgram* out, const char* source, const char*, int, const char* const*, const char* const*) {
    *out = (nvrtcProgram) new Program{source, "", ""};
    return NVRTC_SUCCESS;
}
API nvrtcResult nvrtcDestroyProgram(nvrtcProgram* p) { delete (Program*)*p; *p = nullptr; return NVRTC_SUCCESS; }

API nvrtcResult nvrtcCompileProgram(nvrtcProgram p, int count, const char* const* options) {
    // No lock: the compiler needs the interpreter's, which another thread may hold while it waits for the device's.
    char out[8192] = "";
    bool failed = compile(program(p).source.c_str(), count, options, out, sizeof out);
    (failed ? program(p).log : program(p).blob) = failed ? out : MAGIC + std::string(out);
    return failed ? NVRTC_ERROR_COMPILATION : NVRTC_SUCCESS;
}

static nvrtcResult size_of(const std::string& text, size_t* n) { *n = text.size() + 1; return NVRTC_SUCCESS; }
static nvrtcResult text_of(const std::string& text, char* out) { strcpy(out, text.c_str()); return NVRTC_SUCCESS; }
API nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram p, size_t* n) { return size_of(program(p).log, n); }
API nvrtcResult nvrtcGetProgramLog(nvrtcProgram p, char* out) { return text_of(program(p).log, out); }
API nvrtcResult nvrtcGetPTXSize(nvrtcProgram p, size_t* n) { return size_of(program(p).blob, n); }
API nvrtcResult nvrtcGetPTX(nvrtcProgram p, char* out) { return text_of(program(p).blob, out); }
API nvrtcResult nvrtcGetCUBINSize(nvrtcProgram p, size_t* n) { return size_of(program(p).blob, n); }
API nvrtcResult nvrtcGetCUBIN(nvrtcProgram p, char* out) { return text_of(program(p).blob, out); }
