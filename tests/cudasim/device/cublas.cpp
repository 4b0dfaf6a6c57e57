// A stand-in for cuBLAS: products by address and pitch, in the order of the sum, on the stream of the handle.
#include <cmath>

#include "device.hpp"

namespace {

enum Status { SUCCESS = 0, INVALID_VALUE = 7, MAPPING_ERROR = 11, EXECUTION_FAILED = 13, INTERNAL_ERROR = 14 };
enum Type { F32 = 0, F64 = 1, F16 = 2, BF16 = 14 };  // cudaDataType_t
bool is_double(int compute) { return compute == 70 || compute == 71; }  // cublasComputeType_t

struct Handle {
    int device = current_device;
    cudaStream_t stream = nullptr;
    void* workspace = nullptr;
    size_t size = 0;
    int pointer_mode = 0, math = 0;
};

struct Half { _Float16 v; operator double() const { return v; } void operator=(double a) { v = (_Float16)a; } };
struct Brain {
    uint16_t bits;
    operator double() const { uint32_t u = uint32_t(bits) << 16; float f; memcpy(&f, &u, 4); return f; }
    void operator=(double a) {
        float f = (float)a;
        uint32_t u;
        memcpy(&u, &f, 4);
        bits = uint16_t((u + 0x7FFF + (u >> 16 & 1)) >> 16);
    }
};

template <class F>
bool with_type(int type, F f) {
    switch (type) {
        case F32: return f(float()), true;
        case F64: return f(double()), true;
        case F16: return f(Half()), true;
        case BF16: return f(Brain()), true;
    }
    return false;
}
bool known(int type) { return with_type(type, [](auto) {}); }

struct Matrix {
    const char* data;
    int type;
    long pitch, step;
    bool transposed;
};

template <class T>
std::vector<T> loaded(const Matrix& a, long rows, long columns, long which) {  // column-major
    std::vector<T> out((size_t)rows * columns);
    with_type(a.type, [&](auto zero) {
        auto p = (decltype(zero)*)a.data + which * a.step;
        for (long j = 0; j < columns; j++)
            for (long i = 0; i < rows; i++) out[j * rows + i] = (T)p[a.transposed ? i * a.pitch + j : j * a.pitch + i];
    });
    return out;
}

template <class T>
void multiply(const Matrix& a, const Matrix& b, const Matrix& c, long m, long n, long k, T alpha, T beta, long which) {
    auto left = loaded<T>(a, m, k, which), right = loaded<T>(b, k, n, which);
    std::vector<T> column(m);
    with_type(c.type, [&](auto zero) {
        auto out = (decltype(zero)*)c.data + which * c.step;
        for (long j = 0; j < n; j++) {
            std::fill(column.begin(), column.end(), T(0));
            for (long p = 0; p < k; p++) {
                T factor = right[j * k + p];
                const T* other = &left[p * m];
                for (long i = 0; i < m; i++) column[i] += other[i] * factor;
            }
            for (long i = 0; i < m; i++) {
                auto& to = out[j * c.pitch + i];
                to = alpha * column[i] + (beta == T(0) ? T(0) : beta * (T)to);
            }
        }
    });
}

int gemm(void* handle, int m, int n, int k, const void* alpha, Matrix a, Matrix b, const void* beta, Matrix c, int count, int compute) {
    LOCK;
    auto& h = *(Handle*)handle;
    auto s = stream_at(h.stream);
    if (m < 0 || n < 0 || k < 0 || !known(a.type) || !known(b.type) || !known(c.type)) return INVALID_VALUE;
    if (a.pitch < (a.transposed ? k : m) || b.pitch < (b.transposed ? n : k) || c.pitch < m) return INVALID_VALUE;
    if (!s || current_device != h.device) return fprintf(stderr, "cudasim: a handle of device %d on device %d\n", h.device, current_device), INTERNAL_ERROR;
    counters[LAUNCHES]++;
    counters[GEMMS]++;
    counters[GEMMS_WITHOUT_WORKSPACE] += s->graph && !h.workspace;
    trace(kind_of(s), "gemm");
    bool wide = is_double(compute);
    double al = wide ? *(double*)alpha : *(float*)alpha, be = wide ? *(double*)beta : *(float*)beta;
    auto workspace = (volatile char*)h.workspace;
    size_t size = h.size;
    cudaError_t e = enqueue(s, "gemm", [=] {
        if (workspace) workspace[0] = workspace[size - 1] = 1;
        for (long i = 0; i < count; i++)
            wide ? multiply<double>(a, b, c, m, n, k, al, be, i) : multiply<float>(a, b, c, m, n, k, al, be, i);
    });
    return e ? EXECUTION_FAILED : SUCCESS;
}

template <class T>
int geam(void* handle, int ta, int tb, int m, int n, const T* alpha, const T* a, int lda, const T* beta, const T* b, int ldb, T* c, int ldc) {
    LOCK;
    auto s = stream_at(((Handle*)handle)->stream);
    counters[LAUNCHES]++;
    trace(kind_of(s), "geam");
    T x = *alpha, y = *beta;
    return enqueue(s, "geam", [=] {
        for (long j = 0; j < n; j++)
            for (long i = 0; i < m; i++) {
                T v = x * a[ta ? i * lda + j : j * lda + i];
                if (y != T(0)) v += y * b[tb ? i * ldb + j : j * ldb + i];
                c[j * ldc + i] = v;
            }
    }) ? EXECUTION_FAILED : SUCCESS;
}

template <class T>
int dot(void* handle, int n, const T* x, int dx, const T* y, int dy, T* out) {
    LOCK;
    auto& h = *(Handle*)handle;
    auto s = stream_at(h.stream);
    counters[LAUNCHES]++;
    trace(kind_of(s), "dot");
    cudaError_t e = enqueue(s, "dot", [=] {
        T total = 0;
        for (long i = 0; i < n; i++) total += x[i * dx] * y[i * dy];
        *out = total;
    });
    if (!h.pointer_mode) run_until(s, s->given);  // the result is on the host
    return e ? EXECUTION_FAILED : SUCCESS;
}

}  // namespace

API int cublasCreate_v2(void** h) { LOCK; *h = new Handle; return SUCCESS; }
API int cublasDestroy_v2(void* h) { delete (Handle*)h; return SUCCESS; }
API int cublasSetStream_v2(void* h, cudaStream_t s) {
    LOCK;
    auto p = (Handle*)h;
    p->stream = s;
    p->workspace = nullptr;  // the workspace of before belonged to the stream of before
    return stream_at(s) ? SUCCESS : INVALID_VALUE;
}
API int cublasGetStream_v2(void* h, cudaStream_t* s) { *s = ((Handle*)h)->stream; return SUCCESS; }
API int cublasSetWorkspace_v2(void* h, void* workspace, size_t size) {
    LOCK;
    if (!on_device(workspace) || (uintptr_t)workspace % 16) return INVALID_VALUE;
    auto p = (Handle*)h;
    p->workspace = workspace;
    p->size = size;
    return SUCCESS;
}
API int cublasSetPointerMode_v2(void* h, int mode) { ((Handle*)h)->pointer_mode = mode; return SUCCESS; }
API int cublasGetPointerMode_v2(void* h, int* mode) { *mode = ((Handle*)h)->pointer_mode; return SUCCESS; }
API int cublasSetMathMode(void* h, int mode) { ((Handle*)h)->math = mode; return SUCCESS; }
API int cublasGetMathMode(void* h, int* mode) { *mode = ((Handle*)h)->math; return SUCCESS; }
API int cublasGetVersion_v2(void*, int* v) { *v = 130000; return SUCCESS; }
API int cublasGetProperty(int, int* v) { *v = 13; return SUCCESS; }

#define MATRIX(x, type, step) Matrix{(const char*)x, type, ld##x, step, t##x != 0}
API int cublasGemmEx(void* h, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda, const void* b,
                     int type_b, int ldb, const void* beta, void* c, int type_c, int ldc, int compute, int) {
    int tc = 0;
    return gemm(h, m, n, k, alpha, MATRIX(a, type_a, 0), MATRIX(b, type_b, 0), beta, MATRIX(c, type_c, 0), 1, compute);
}
API int cublasGemmStridedBatchedEx(void* h, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda,
                                   long long step_a, const void* b, int type_b, int ldb, long long step_b, const void* beta, void* c,
                                   int type_c, int ldc, long long step_c, int count, int compute, int) {
    int tc = 0;
    return gemm(h, m, n, k, alpha, MATRIX(a, type_a, step_a), MATRIX(b, type_b, step_b), beta, MATRIX(c, type_c, step_c), count, compute);
}
API int cublasSgemm_v2(void* h, int ta, int tb, int m, int n, int k, const float* alpha, const float* a, int lda, const float* b, int ldb,
                       const float* beta, float* c, int ldc) {
    return cublasGemmEx(h, ta, tb, m, n, k, alpha, a, F32, lda, b, F32, ldb, beta, c, F32, ldc, 68, -1);
}
API int cublasSgemmEx(void* h, int ta, int tb, int m, int n, int k, const float* alpha, const void* a, int type_a, int lda, const void* b,
                      int type_b, int ldb, const float* beta, void* c, int type_c, int ldc) {
    return cublasGemmEx(h, ta, tb, m, n, k, alpha, a, type_a, lda, b, type_b, ldb, beta, c, type_c, ldc, 68, -1);
}
API int cublasDgemm_v2(void* h, int ta, int tb, int m, int n, int k, const double* alpha, const double* a, int lda, const double* b, int ldb,
                       const double* beta, double* c, int ldc) {
    return cublasGemmEx(h, ta, tb, m, n, k, alpha, a, F64, lda, b, F64, ldb, beta, c, F64, ldc, 70, -1);
}
API int cublasSgeam(void* h, int ta, int tb, int m, int n, const float* x, const float* a, int lda, const float* y, const float* b, int ldb, float* c, int ldc) { return geam(h, ta, tb, m, n, x, a, lda, y, b, ldb, c, ldc); }
API int cublasDgeam(void* h, int ta, int tb, int m, int n, const double* x, const double* a, int lda, const double* y, const double* b, int ldb, double* c, int ldc) { return geam(h, ta, tb, m, n, x, a, lda, y, b, ldb, c, ldc); }
API int cublasSdot_v2(void* h, int n, const float* x, int dx, const float* y, int dy, float* out) { return dot(h, n, x, dx, y, dy, out); }
API int cublasDdot_v2(void* h, int n, const double* x, int dx, const double* y, int dy, double* out) { return dot(h, n, x, dx, y, dy, out); }
