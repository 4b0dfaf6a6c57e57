// CUDA's float16 for g++, as far as CuPy's float16 needs it.
#pragma once

struct __half_raw { unsigned short x; };
struct __half {
    _Float16 value;
    __half() {}
    __half(float a) : value((_Float16)a) {}
    explicit __half(const __half_raw& raw) { memcpy(&value, &raw.x, sizeof value); }
    template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> explicit __half(T a) : value((_Float16)a) {}
    operator float() const { return (float)value; }
    operator __half_raw() const { return {sim_bits<unsigned short>(value)}; }
};
typedef __half half;
static inline unsigned short __half_as_ushort(half a) { return sim_bits<unsigned short>(a.value); }
static inline half __ushort_as_half(unsigned short bits) { return half(__half_raw{bits}); }
