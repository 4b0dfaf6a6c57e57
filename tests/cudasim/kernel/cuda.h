// What NVRTC knows by itself, for g++: with it a kernel in CUDA C++ is a function of the host.
#pragma once

#include <math.h>

#include <cfloat>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0
#define __host__
#define __device__
#define __global__
#define __constant__ static
#define __shared__ static
#define __restrict__ __restrict
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

// ---------------------------------------------------------------- threads

struct SimDim { unsigned x, y, z; };
struct SimContext { SimDim thread, block, block_dim, grid_dim; char* dynamic; };  // as in device/kernels.cpp
extern "C" SimContext* const sim_context;
extern "C" void sim_barrier();
#define threadIdx (sim_context->thread)
#define blockIdx (sim_context->block)
#define blockDim (sim_context->block_dim)
#define gridDim (sim_context->grid_dim)
#define warpSize 32
static inline void __syncthreads() { sim_barrier(); }
static inline void __syncwarp(unsigned = ~0u) { sim_barrier(); }
static inline void __threadfence() {}

template <class T> static inline T atomicAdd(T* p, T v) { T old = *p; *p = old + v; return old; }
template <class T> static inline T atomicMax(T* p, T v) { T old = *p; if (old < v) *p = v; return old; }
template <class T> static inline T atomicMin(T* p, T v) { T old = *p; if (v < old) *p = v; return old; }
template <class T> static inline T atomicOr(T* p, T v) { T old = *p; *p = old | v; return old; }
template <class T> static inline T atomicAnd(T* p, T v) { T old = *p; *p = old & v; return old; }
template <class T> static inline T atomicExch(T* p, T v) { T old = *p; *p = v; return old; }
template <class T> static inline T atomicCAS(T* p, T expected, T v) { T old = *p; if (old == expected) *p = v; return old; }

// ---------------------------------------------------------------- types and functions

typedef unsigned int uint;
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct double2 { double x, y; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline double2 make_double2(double x, double y) { return {x, y}; }

template <class To, class From> static inline To sim_bits(From a) {
    static_assert(sizeof(To) == sizeof(From));
    To b;
    memcpy(&b, &a, sizeof b);
    return b;
}
static inline int __float_as_int(float a) { return sim_bits<int>(a); }
static inline unsigned __float_as_uint(float a) { return sim_bits<unsigned>(a); }
static inline float __int_as_float(int a) { return sim_bits<float>(a); }
static inline float __uint_as_float(unsigned a) { return sim_bits<float>(a); }
static inline long long __double_as_longlong(double a) { return sim_bits<long long>(a); }
static inline double __longlong_as_double(long long a) { return sim_bits<double>(a); }

template <class T> static inline T __ldg(const T* p) { return *p; }
static inline int __popc(unsigned a) { return __builtin_popcount(a); }
static inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
static inline int __clz(int a) { return a ? __builtin_clz(a) : 32; }
static inline int __clzll(long long a) { return a ? __builtin_clzll(a) : 64; }
static inline int __ffs(int a) { return __builtin_ffs(a); }
static inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
static inline float rsqrt(float a) { return 1.0f / sqrtf(a); }
static inline double rsqrt(double a) { return 1.0 / ::sqrt(a); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float normcdff(float a) { return 0.5f * erfcf(-a * 0.70710678f); }

#define SIM_ORDERED(T) \
    static inline T min(T a, T b) { return b < a ? b : a; } \
    static inline T max(T a, T b) { return a < b ? b : a; }
SIM_ORDERED(int) SIM_ORDERED(unsigned) SIM_ORDERED(long) SIM_ORDERED(unsigned long)
SIM_ORDERED(long long) SIM_ORDERED(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

// ---------------------------------------------------------------- launches

// Arguments are copied when a kernel is launched or captured, and used when it runs.
enum { SIM_BIND, SIM_RUN, SIM_DROP };
template <class... A, size_t... I>
static void* sim_act(void (*kernel)(A...), int action, void* p, std::index_sequence<I...>) {
    typedef std::tuple<std::remove_const_t<A>...> Arguments;
    if (action == SIM_BIND) return new Arguments(*(std::remove_const_t<A>*)((void**)p)[I]...);
    if (action == SIM_RUN) std::apply(kernel, *(Arguments*)p);
    if (action == SIM_DROP) delete (Arguments*)p;
    return nullptr;
}
template <class... A> static void* sim_act(void (*kernel)(A...), int action, void* p) {
    return sim_act(kernel, action, p, std::index_sequence_for<A...>());
}
#define SIM_KERNEL(f) extern "C" void* sim_kernel_##f(int action, void* p) { return sim_act(&f, action, p); }
