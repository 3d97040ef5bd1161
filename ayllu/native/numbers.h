// What the kernels share: bfloat16 beside float32, exp, packing for a product, and memory that lies well.
#pragma once

#include <c10/util/BFloat16.h>
#include <immintrin.h>
#include <sys/mman.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

using Bf16 = c10::BFloat16;

inline uint32_t bits(float x) { uint32_t u; std::memcpy(&u, &x, 4); return u; }
inline float from_bits(uint32_t u) { float x; std::memcpy(&x, &u, 4); return x; }

inline float wide(uint16_t h) { return from_bits(uint32_t(h) << 16); }
inline uint16_t narrow(float x) { return uint16_t((bits(x) + 0x8000) >> 16); }      // ties go up: one in 65,536

// 2^t with a relative error under 3e-6: 2^f by a polynomial fitted on [-1/2, 1/2], times 2^n; 0 and infinity as due.
inline __m512 power_of_2(__m512 t) {
    const __m512 n = _mm512_roundscale_ps(t, 0), f = _mm512_sub_ps(t, n);
    __m512 p = _mm512_set1_ps(0.00957009667f);
    for (float c : {0.0559178599f, 0.24024745f, 0.693121815f, 0.999999261f}) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
    return _mm512_scalef_ps(p, n);
}

// 16 numbers each of two rows, as bfloat16, interleaved: what the second factor of a product has.
inline __m512i pairs_of(__m512 one, __m512 two) {
    static const auto order = [] {
        std::array<uint16_t, 32> o;
        for (int i = 0; i < 32; i++) o[i] = uint16_t(i / 2 + i % 2 * 16);
        return o;
    }();
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(order.data()), __m512i(_mm512_cvtne2ps_pbh(two, one)));
}

// Memory of a kernel's own: aligned for tile loads, on huge pages where it is large.
template <typename T> struct Buffer {
    T* at;
    explicit Buffer(long n) {
        long bytes = n * long(sizeof(T)), align = bytes >= (1 << 22) ? 1 << 21 : 64;
        at = static_cast<T*>(std::aligned_alloc(align, (bytes + align - 1) / align * align));
        if (!at) throw std::bad_alloc();
        if (align > 64) madvise(at, bytes, MADV_HUGEPAGE);
    }
    ~Buffer() { std::free(at); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
};

template <typename T> const Bf16* low(const T* p) { return reinterpret_cast<const Bf16*>(p); }
