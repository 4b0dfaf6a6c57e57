// Stand-ins for CUB and Thrust as CuPy's wheel has compiled them: reductions, scans and sorts of whole arrays.
#include <algorithm>

#include "device.hpp"

namespace {

enum Reduction { SUM, MIN, MAX, ARGMIN, ARGMAX, CUMSUM, CUMPROD, PROD };  // cupy/cuda/cub.pyx

// Call f(T()) for the C++ type with CuPy's number, cupy/cuda/common.pyx.
template <class F>
void with_type(int number, F f) {
    switch (number) {
        case 0: return f(int8_t());
        case 1: return f(uint8_t());
        case 2: return f(int16_t());
        case 3: return f(uint16_t());
        case 4: return f(int32_t());
        case 5: return f(uint32_t());
        case 6: return f(int64_t());
        case 7: return f(uint64_t());
        case 9: return f(float());
        case 10: return f(double());
        case 13: return f(bool());
    }
    counters[UNKNOWN]++;
    fprintf(stderr, "cudasim: no reductions and sorts of CuPy's dtype %d\n", number);
}

template <class T> bool is_nan(T a) { return a != a; }
template <class T> bool before(T a, T b) { return a < b || (is_nan(b) && !is_nan(a)); }  // NaN is sorted to the end

template <class T>
T reduced(const T* x, long n, int op) {
    T total = op == SUM ? T(0) : op == PROD ? T(1) : x[0];
    for (long i = 0; i < n; i++) switch (op) {
        case SUM: total = total + x[i]; break;
        case PROD: total = total * x[i]; break;
        case MIN: if (!is_nan(total) && !(total <= x[i])) total = x[i]; break;
        case MAX: if (!is_nan(total) && !(total >= x[i])) total = x[i]; break;
    }
    return total;
}

template <class T>
void arg_reduced(const T* x, char* out, int n, int op) {  // cub::KeyValuePair<int, T>
    int best = 0;
    for (int i = 1; i < n; i++)
        if (op == ARGMAX ? x[best] < x[i] : x[i] < x[best]) best = i;
    memcpy(out, &best, sizeof best);
    memcpy(out + std::max(sizeof best, alignof(T)), &x[best], sizeof(T));
}

void launch(cudaStream_t handle, const char* name, std::function<void()> run) {
    auto s = stream_at(handle);
    counters[LAUNCHES]++;
    trace(kind_of(s), name);
    enqueue(s, name, std::move(run));
}

}  // namespace

API size_t sim_cub_workspace(void*, void*, int, cudaStream_t, int, int) { return 1; }
API size_t sim_cub_segmented_workspace(void*, void*, int, int, cudaStream_t, int, int) { return 1; }

API void sim_cub_reduce(void* workspace, size_t*, void* x, void* out, int n, cudaStream_t s, int op, int type) {
    LOCK;
    launch(s, "cub_reduce", [=] {
        *(volatile char*)workspace = 0;
        with_type(type, [&](auto zero) {
            using T = decltype(zero);
            if (op == ARGMIN || op == ARGMAX) arg_reduced((T*)x, (char*)out, n, op);
            else *(T*)out = reduced((T*)x, n, op);
        });
    });
}

API void sim_cub_segmented_reduce(void* workspace, size_t*, void* x, void* out, int segments, int n, cudaStream_t s, int op, int type) {
    LOCK;
    launch(s, "cub_segmented_reduce", [=] {
        *(volatile char*)workspace = 0;
        with_type(type, [&](auto zero) {
            using T = decltype(zero);
            for (long i = 0; i < segments; i++) ((T*)out)[i] = reduced((T*)x + i * n, n, op);
        });
    });
}

API void sim_cub_scan(void* workspace, size_t*, void* x, void*, int n, cudaStream_t s, int op, int type) {
    LOCK;
    launch(s, "cub_scan", [=] {
        *(volatile char*)workspace = 0;
        with_type(type, [&](auto zero) {
            auto a = (decltype(zero)*)x;
            for (long i = 1; i < n; i++) a[i] = op == CUMSUM ? a[i - 1] + a[i] : a[i - 1] * a[i];
        });
    });
}

static long rows_of(const std::vector<long>& shape) {
    long rows = 1;
    for (size_t i = 0; i + 1 < shape.size(); i++) rows *= shape[i];
    return rows;
}

API void sim_thrust_sort(int type, void* data, size_t*, const std::vector<long>& shape, long s, void*) {
    LOCK;
    long n = shape.back(), rows = rows_of(shape);
    launch((cudaStream_t)s, "thrust_sort", [=] {
        with_type(type, [&](auto zero) {
            using T = decltype(zero);
            for (T* row = (T*)data; row < (T*)data + rows * n; row += n) std::sort(row, row + n, before<T>);
        });
    });
}

API void sim_thrust_argsort(int type, size_t* indices, void* data, void*, const std::vector<long>& shape, long s, void*) {
    LOCK;
    long n = shape.back(), rows = rows_of(shape);
    launch((cudaStream_t)s, "thrust_argsort", [=] {
        with_type(type, [&](auto zero) {
            using T = decltype(zero);
            for (long r = 0; r < rows; r++) {
                const T* row = (T*)data + r * n;
                size_t* own = indices + r * n;
                for (long i = 0; i < n; i++) own[i] = i;
                std::stable_sort(own, own + n, [row](size_t i, size_t j) { return before(row[i], row[j]); });
            }
        });
    });
}
