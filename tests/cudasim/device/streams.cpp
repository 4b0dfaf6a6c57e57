// Streams, events, captures and graphs: what a device is given runs as late as CUDA allows, or in random order.
#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "device.hpp"

std::recursive_mutex device_mutex;

namespace {

enum Order { EAGER, LAZY, RANDOM };
Order order = LAZY;
std::mt19937 dice(1);

struct Event {
    Point point;
    uint64_t graph = 0;  // recorded in the capture with this id
};

std::map<uintptr_t, StreamRef> streams;  // by handle; the lowest free handle is given again, as addresses are
std::set<Event*> events;
uint64_t graphs = 0;
thread_local char thread_mark;

StreamRef made(int device, bool legacy) {
    auto s = std::make_shared<Stream>();
    s->device = device;
    s->legacy = legacy;
    return s;
}

const StreamRef& legacy_stream(int device) {
    static StreamRef all[MAX_DEVICES];
    if (!all[device]) all[device] = made(device, true);
    return all[device];
}

std::vector<std::weak_ptr<Stream>> thread_streams;
const StreamRef& thread_stream(int device) {
    thread_local StreamRef all[MAX_DEVICES];
    if (!all[device]) thread_streams.push_back(all[device] = made(device, false));
    return all[device];
}

std::vector<StreamRef> all_streams() {
    std::vector<StreamRef> all;
    for (int i = 0; i < device_count; i++) all.push_back(legacy_stream(i));
    for (auto& [handle, s] : streams) all.push_back(s);
    for (auto& weak : thread_streams)
        if (auto s = weak.lock()) all.push_back(s);
    return all;
}

void run_some() {
    auto all = all_streams();
    for (unsigned k = dice() % 4; k > 0; k--) {
        auto& s = all[dice() % all.size()];
        run_until(s, s->done + 1);
    }
}

cudaError_t invalidate(const StreamRef& s, cudaError_t e) {
    s->invalid = true;
    return fail(e);
}

}  // namespace

StreamRef stream_at(cudaStream_t handle) {
    if (handle == nullptr || handle == cudaStreamLegacy) return legacy_stream(current_device);
    if (handle == cudaStreamPerThread) return thread_stream(current_device);
    auto found = streams.find((uintptr_t)handle);
    return found == streams.end() ? nullptr : found->second;
}

void run_until(const StreamRef& s, uint64_t position) {
    while (s->done < position && !s->queue.empty()) {
        auto op = s->queue.front();
        for (auto& point : op->after) run_until(point.stream, point.position);
        if (s->queue.empty() || s->queue.front() != op) continue;  // it ran meanwhile
        s->queue.pop_front();
        if (!broken) run_guarded(*op);
        s->done++;
    }
}

void run_all(int device) {
    for (auto& s : all_streams())
        if (device < 0 || s->device == device) run_until(s, s->given);
}

cudaError_t enqueue(const StreamRef& s, const std::string& name, std::function<void()> run) {
    if (broken) return fail(broken);
    auto op = std::make_shared<Operation>(Operation{name, std::move(run), {}});
    if (s->graph) {
        s->graph->operations.push_back(op);
        return cudaSuccess;
    }
    op->after.swap(s->waits);
    // The legacy stream and the blocking ones wait for each other.
    for (auto& other : all_streams()) {
        if (other == s || other->device != s->device || !(s->legacy ? other->blocking() : s->blocking() && other->legacy))
            continue;
        if (other->graph) return invalidate(other, cudaErrorStreamCaptureImplicit);
        op->after.push_back({other, other->given});
    }
    s->queue.push_back(op);
    s->given++;
    if (order == EAGER) run_until(s, s->given);
    if (order == RANDOM) run_some();
    return status();
}

cudaError_t forbid_in_capture(const StreamRef& s) {
    return s->graph ? invalidate(s, cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

cudaError_t unsafe_call() {
    for (auto& [handle, s] : streams) {
        bool forbidden = s->mode == cudaStreamCaptureModeGlobal ||
                         (s->mode == cudaStreamCaptureModeThreadLocal && s->thread == &thread_mark);
        if (s->graph && forbidden) return invalidate(s, cudaErrorStreamCaptureUnsupported);
    }
    return cudaSuccess;
}

API void sim_set_order(const char* name) {
    LOCK;
    order = !strcmp(name, "eager") ? EAGER : !strcmp(name, "random") ? RANDOM : LAZY;
}

API cudaError_t cudaDeviceSynchronize() {
    LOCK;
    counters[SYNCS]++;
    for (auto& [handle, s] : streams)
        if (s->graph && s->device == current_device) return invalidate(s, cudaErrorStreamCaptureUnsupported);
    run_all(current_device);
    return status();
}

// ---------------------------------------------------------------- streams

API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned flags, int) {
    LOCK;
    uintptr_t handle = 0x1000;
    while (streams.count(handle)) handle += 16;
    auto s = streams[handle] = made(current_device, false);
    s->flags = flags;
    counters[STREAMS]++;
    *out = (cudaStream_t)handle;
    return cudaSuccess;
}
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned flags) { return cudaStreamCreateWithPriority(s, flags, 0); }
API cudaError_t cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithPriority(s, 0, 0); }

API cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    LOCK;
    auto found = streams.find((uintptr_t)handle);
    if (found == streams.end()) return fail(cudaErrorInvalidResourceHandle);
    auto s = found->second;
    streams.erase(found);
    run_until(s, s->given);  // a device would go on by itself
    return cudaSuccess;
}

API cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    LOCK;
    auto s = stream_at(handle);
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    counters[SYNCS]++;
    trace("sync", "stream");
    if (cudaError_t e = forbid_in_capture(s)) return e;
    run_until(s, s->given);
    for (auto& point : s->waits) run_until(point.stream, point.position);
    s->waits.clear();
    return status();
}

API cudaError_t cudaStreamQuery(cudaStream_t handle) {
    LOCK;
    auto s = stream_at(handle);
    if (cudaError_t e = forbid_in_capture(s)) return e;
    if (s->done == s->given) return status();
    run_until(s, s->done + 1);
    return cudaErrorNotReady;
}

API cudaError_t cudaStreamGetFlags(cudaStream_t s, unsigned* flags) { LOCK; *flags = stream_at(s)->flags; return cudaSuccess; }
API cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) { *priority = 0; return cudaSuccess; }
API cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void* a) { LOCK; return enqueue(stream_at(s), "host function", [=] { f(a); }); }
API cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t f, void* a, unsigned) { LOCK; return enqueue(stream_at(s), "callback", [=] { f(s, cudaSuccess, a); }); }

// ---------------------------------------------------------------- events

API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
    LOCK;
    *out = (cudaEvent_t)*events.insert(new Event).first;
    return cudaSuccess;
}
API cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, 0); }

API cudaError_t cudaEventDestroy(cudaEvent_t e) {
    LOCK;
    if (events.erase((Event*)e)) delete (Event*)e;
    return cudaSuccess;
}

API cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    LOCK;
    auto s = stream_at(handle);
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    auto e = (Event*)event;
    *e = {};
    if (s->graph) {
        e->graph = s->graph->id;
        return cudaSuccess;
    }
    cudaError_t result = enqueue(s, "event", [] {});
    e->point = {s, s->given};
    return result;
}

API cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    LOCK;
    auto e = (Event*)event;
    counters[SYNCS]++;
    if (e->graph) return fail(cudaErrorCapturedEvent);
    if (e->point.stream) run_until(e->point.stream, e->point.position);
    return status();
}

API cudaError_t cudaEventQuery(cudaEvent_t event) {
    LOCK;
    auto e = (Event*)event;
    if (e->graph) return fail(cudaErrorCapturedEvent);
    auto& [stream, position] = e->point;
    if (!stream || stream->done >= position) return status();
    run_until(stream, stream->done + 1);
    return cudaErrorNotReady;
}

API cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) { *ms = 1.0f; return cudaSuccess; }

API cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
    LOCK;
    auto s = stream_at(handle);
    auto e = (Event*)event;
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    if (e->graph) return s->graph && s->graph->id == e->graph ? cudaSuccess : fail(cudaErrorStreamCaptureIsolation);
    if (!e->point.stream) return cudaSuccess;
    if (s->graph) return invalidate(s, cudaErrorStreamCaptureIsolation);
    s->waits.push_back(e->point);
    return cudaSuccess;
}

// ---------------------------------------------------------------- captures and graphs

API cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
    LOCK;
    auto s = stream_at(handle);
    if (!s || s->legacy) return fail(cudaErrorStreamCaptureUnsupported);
    if (s->graph) return fail(cudaErrorIllegalState);
    s->graph = std::make_unique<Graph>();
    s->graph->id = ++graphs;
    s->mode = mode;
    s->thread = &thread_mark;
    s->invalid = false;
    counters[CAPTURES]++;
    trace("capture", "begin");
    return cudaSuccess;
}

API cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* out) {
    LOCK;
    *out = nullptr;
    auto s = stream_at(handle);
    trace("capture", "end");
    if (!s || !s->graph) return fail(cudaErrorIllegalState);
    auto graph = std::move(s->graph);
    if (s->invalid) return fail(cudaErrorStreamCaptureInvalidated);
    *out = (cudaGraph_t)graph.release();
    return cudaSuccess;
}

API cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* out) {
    LOCK;
    auto s = stream_at(handle);
    *out = cudaStreamCaptureStatusNone;
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    if (s->legacy)
        for (auto& [key, other] : streams)
            if (other->graph && other->blocking() && other->device == s->device) return fail(cudaErrorStreamCaptureImplicit);
    if (s->graph) *out = s->invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t g, unsigned long long) {
    LOCK;
    *out = (cudaGraphExec_t) new Graph(*(Graph*)g);
    return cudaSuccess;
}
API cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* out, cudaGraph_t g, unsigned long long f) { return cudaGraphInstantiate(out, g, f); }
API cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
API cudaError_t cudaGraphDestroy(cudaGraph_t g) { LOCK; delete (Graph*)g; return cudaSuccess; }
API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { LOCK; run_all(); delete (Graph*)g; return cudaSuccess; }

API cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t handle) {
    LOCK;
    auto s = stream_at(handle);
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    auto operations = ((Graph*)g)->operations;
    counters[GRAPH_LAUNCHES]++;
    trace("graph", std::to_string(operations.size()));
    return enqueue(s, "graph", [operations] {
        for (auto& op : operations) {
            running("graph: " + op->name);
            op->run();
        }
    });
}
