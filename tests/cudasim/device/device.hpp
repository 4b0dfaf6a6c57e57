// What the parts of the simulated device share: counters, errors, streams, memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

// One call at a time: the device is what the calls of all threads change together.
extern std::recursive_mutex device_mutex;
#define LOCK std::lock_guard<std::recursive_mutex> guard(device_mutex)

constexpr int MAX_DEVICES = 16;
extern int device_count;
extern thread_local int current_device;

// ---------------------------------------------------------------- counters and trace

enum Counter {  // the names are in __init__.py, too
    LAUNCHES, GRAPH_LAUNCHES, H2D, D2H, D2D, MEMSETS, MALLOCS, SYNCS, GEMMS, GEMMS_WITHOUT_WORKSPACE, CAPTURES, STREAMS,
    COMPILED, LIVE_BYTES, UNKNOWN, COUNTERS
};
extern uint64_t counters[COUNTERS];
void trace(const char* kind, const std::string& name);

// ---------------------------------------------------------------- errors

extern cudaError_t broken;         // after an illegal access every call fails, as on a device
cudaError_t fail(cudaError_t e);   // set the thread's last error
inline cudaError_t status() { return broken ? fail(broken) : cudaSuccess; }

// ---------------------------------------------------------------- streams: queues of operations that have not run yet

struct Stream;
using StreamRef = std::shared_ptr<Stream>;

struct Point {  // in a stream: after its first `position` operations
    StreamRef stream;
    uint64_t position = 0;
};

struct Operation {
    std::string name;
    std::function<void()> run;
    std::vector<Point> after;
};
using OperationRef = std::shared_ptr<Operation>;

struct Graph {
    uint64_t id = 0;
    std::vector<OperationRef> operations;
};

struct Stream {
    int device = 0;
    unsigned flags = 0;
    bool legacy = false;
    std::deque<OperationRef> queue;
    uint64_t given = 0, done = 0;
    std::vector<Point> waits;        // for the next operation
    std::unique_ptr<Graph> graph;    // while it is captured
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    bool invalid = false;            // the capture is
    const void* thread = nullptr;    // that began it

    bool blocking() const { return !(flags & cudaStreamNonBlocking); }
};

StreamRef stream_at(cudaStream_t handle);                                      // null if there is none
cudaError_t enqueue(const StreamRef& s, const std::string& name, std::function<void()> run);
void run_until(const StreamRef& s, uint64_t position);
void run_all(int device = -1);
cudaError_t forbid_in_capture(const StreamRef& s);                             // a call that ends the stream's capture
cudaError_t unsafe_call();                                                     // one that ends captures of strict modes
inline const char* kind_of(const StreamRef& s) { return s->graph ? "captured" : "kernel"; }

// ---------------------------------------------------------------- memory

bool on_device(const void* p);
bool is_pinned(const void* p);
// Run an operation; an access of memory that is not the device's breaks the device, with a line that names the kernel.
void run_guarded(const Operation& op);
void running(const std::string& name);  // within a graph: which of its operations
