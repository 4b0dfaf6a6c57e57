// Memory of the device: each allocation ends at a guard page, and memory that was freed stays unmapped for a while.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>

#include "device.hpp"

namespace {

constexpr size_t PAGE = 4096;
constexpr size_t FILLED = 1 << 20;   // bytes that are set to 0xFF: NaN, or -1, until the program writes there
constexpr size_t REMEMBERED = 20000;  // freed blocks

struct Block {
    char* map;  // a guard page, the body, a guard page
    size_t mapped, size;
    int device;
    bool pinned;
};

std::map<char*, Block> live, freed;  // by the first byte
std::deque<char*> freed_in_order;
uint64_t used[MAX_DEVICES];
uint64_t limit = getenv("CUDASIM_MEMORY") ? strtoull(getenv("CUDASIM_MEMORY"), nullptr, 10) : 80ull << 30;

cudaError_t allocate(void** out, size_t size, bool pinned) {
    *out = nullptr;
    if (broken) return fail(broken);
    if (cudaError_t e = unsafe_call()) return e;
    if (!size) return cudaSuccess;
    if (!pinned && used[current_device] + size > limit) return fail(cudaErrorMemoryAllocation);
    size_t body = (size + PAGE - 1) / PAGE * PAGE, mapped = body + 2 * PAGE;
    char* map = (char*)mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return fail(cudaErrorMemoryAllocation);
    mprotect(map + PAGE, body, PROT_READ | PROT_WRITE);
    memset(map + PAGE, 0xFF, std::min(body, FILLED));
    char* p = (char*)((uintptr_t)(map + PAGE + body - size) & ~(uintptr_t)15);
    live[p] = {map, mapped, size, current_device, pinned};
    if (!pinned) {
        used[current_device] += size;
        counters[MALLOCS]++;
        counters[LIVE_BYTES] += size;
        trace("malloc", std::to_string(size));
    }
    *out = p;
    return cudaSuccess;
}

cudaError_t release(void* p) {
    if (!p) return cudaSuccess;
    if (cudaError_t e = unsafe_call()) return e;
    auto found = live.find((char*)p);
    if (found == live.end()) return fail(cudaErrorInvalidValue);
    run_all();  // cudaFree waits for the device
    Block b = found->second;
    live.erase(found);
    if (!b.pinned) {
        used[b.device] -= b.size;
        counters[LIVE_BYTES] -= b.size;
    }
    madvise(b.map + PAGE, b.mapped - 2 * PAGE, MADV_DONTNEED);
    mprotect(b.map, b.mapped, PROT_NONE);
    freed[(char*)p] = b;
    freed_in_order.push_back((char*)p);
    if (freed_in_order.size() > REMEMBERED) {
        auto oldest = freed.find(freed_in_order.front());
        freed_in_order.pop_front();
        munmap(oldest->second.map, oldest->second.mapped);
        freed.erase(oldest);
    }
    return cudaSuccess;
}

const Block* block_at(const void* p) {
    auto next = live.upper_bound((char*)p);
    if (next == live.begin()) return nullptr;
    auto& [first, block] = *std::prev(next);
    return (char*)p < first + block.size ? &block : nullptr;
}

const char* what_is_at(const char* p) {
    auto within = [p](auto& blocks) {
        return std::any_of(blocks.begin(), blocks.end(), [p](auto& b) {
            return p >= b.second.map && p < b.second.map + b.second.mapped;
        });
    };
    return within(freed) ? "memory that was freed" : within(live) ? "memory beside an array" : "no memory of the device";
}

sigjmp_buf escape;
volatile bool guarding = false;
const char* volatile touched;
std::string now_running;

void on_fault(int signal_number, siginfo_t* info, void*) {
    if (!guarding) {
        signal(signal_number, SIG_DFL);
        return;
    }
    touched = (const char*)info->si_addr;
    siglongjmp(escape, 1);
}

}  // namespace

bool on_device(const void* p) {
    auto b = block_at(p);
    return b && !b->pinned;
}

bool is_pinned(const void* p) {
    auto b = block_at(p);
    return b && b->pinned;
}

void running(const std::string& name) { now_running = name; }

void run_guarded(const Operation& op) {
    struct sigaction ours = {}, before[2];
    ours.sa_sigaction = on_fault;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &ours, &before[0]);
    sigaction(SIGBUS, &ours, &before[1]);
    now_running = op.name;
    if (sigsetjmp(escape, 1) == 0) {
        guarding = true;
        op.run();
    } else {
        fprintf(stderr, "cudasim: %s touches %p, %s\n", now_running.c_str(), touched, what_is_at(touched));
        broken = cudaErrorIllegalAddress;
    }
    guarding = false;
    sigaction(SIGSEGV, &before[0], nullptr);
    sigaction(SIGBUS, &before[1], nullptr);
}

// ---------------------------------------------------------------- the runtime's functions

API void sim_leave_memory(unsigned long long bytes) { LOCK; limit = used[current_device] + bytes; }

API cudaError_t cudaMalloc(void** p, size_t n) { LOCK; return allocate(p, n, false); }
API cudaError_t cudaMallocManaged(void** p, size_t n, unsigned) { LOCK; return allocate(p, n, false); }
API cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t) { LOCK; return allocate(p, n, false); }
API cudaError_t cudaMallocFromPoolAsync(void** p, size_t n, cudaMemPool_t, cudaStream_t) { LOCK; return allocate(p, n, false); }
API cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) { LOCK; return allocate(p, n, true); }
API cudaError_t cudaFree(void* p) { LOCK; return release(p); }
API cudaError_t cudaFreeAsync(void* p, cudaStream_t) { LOCK; return release(p); }
API cudaError_t cudaFreeHost(void* p) { LOCK; return release(p); }
API cudaError_t cudaHostRegister(void*, size_t, unsigned) { return cudaSuccess; }
API cudaError_t cudaHostUnregister(void*) { return cudaSuccess; }

API cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
    LOCK;
    *total = limit;
    *free_bytes = limit - std::min(limit, used[current_device]);
    return cudaSuccess;
}

API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
    LOCK;
    *a = {};
    auto b = block_at(p);
    a->type = !b ? cudaMemoryTypeUnregistered : b->pinned ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    a->device = b ? b->device : -2;
    a->devicePointer = b ? (void*)p : nullptr;
    a->hostPointer = !b || b->pinned ? (void*)p : nullptr;
    return cudaSuccess;
}

static cudaError_t copy(void* to, const void* from, size_t n, const StreamRef& s, bool wait) {
    if (broken) return fail(broken);
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    if (!n) return cudaSuccess;
    bool there = on_device(to), here = on_device(from);
    if (!there && !here) {
        memmove(to, from, n);
        return cudaSuccess;
    }
    counters[there && here ? D2D : there ? H2D : D2H]++;
    trace(there && here ? "d2d" : there ? "h2d" : "d2h", std::to_string(n));
    if (wait)
        if (cudaError_t e = forbid_in_capture(s)) return e;
    bool pageable = !(here || is_pinned(from)) || !(there || is_pinned(to));
    cudaError_t e;
    if (pageable && there && !s->graph) {  // the host's memory is read before the call returns
        auto kept = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + n);
        e = enqueue(s, "copy", [=] { memcpy(to, kept->data(), n); });
    } else {
        e = enqueue(s, "copy", [=] { memmove(to, from, n); });
        wait |= pageable && !s->graph;
    }
    if (e || !wait) return e;
    counters[SYNCS]++;
    run_until(s, s->given);
    return status();
}

API cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind) { LOCK; return copy(to, from, n, stream_at(nullptr), true); }
API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind, cudaStream_t s) { LOCK; return copy(to, from, n, stream_at(s), false); }
API cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t n) { LOCK; run_all(); memmove(to, from, n); return status(); }
API cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t n, cudaStream_t s) { LOCK; return copy(to, from, n, stream_at(s), false); }

API cudaError_t cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t handle) {
    LOCK;
    auto s = stream_at(handle);
    if (!n || !s || !on_device(p)) return fail(cudaErrorInvalidValue);
    counters[MEMSETS]++;
    trace(s->graph ? "captured" : "memset", "memset");
    return enqueue(s, "memset", [=] { memset(p, value, n); });
}
API cudaError_t cudaMemset(void* p, int value, size_t n) { return cudaMemsetAsync(p, value, n, nullptr); }
