// What the kernels share: bfloat16 beside float32, exp, packing for a product, and memory that lies well.
#pragma once

#include <c10/util/BFloat16.h>
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
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

// 16 x 16 numbers of 32 bits to their transpose, by swapping quarters of ever smaller squares.
inline void transpose(__m512i (&rows)[16]) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#pragma GCC unroll 4
    for (int d = 8; d; d /= 2) {
        const __mmask16 right = _mm512_test_epi32_mask(lane, _mm512_set1_epi32(d));
        const __m512i step = _mm512_set1_epi32(d), other = _mm512_add_epi32(lane, _mm512_set1_epi32(16));
        const __m512i left = _mm512_mask_sub_epi32(lane, right, other, step);
        const __m512i rest = _mm512_mask_blend_epi32(right, _mm512_add_epi32(lane, step), other);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            if (!(i & d)) {
                const __m512i one = rows[i], two = rows[i + d];
                rows[i] = _mm512_permutex2var_epi32(one, left, two);
                rows[i + d] = _mm512_permutex2var_epi32(one, rest, two);
            }
    }
}

inline __mmask16 first_of_16(long n) { return n >= 16 ? 0xffff : n > 0 ? __mmask16((1 << n) - 1) : 0; }

// Pairs of features e to before e + 16 of rows r to before r + 16, a row to a lane. Zeros past n rows and E features.
inline void lanes_of_rows(const uint16_t* x, long stride, long r, long n, long e, long E, __m512i (&to)[16]) {
    const __mmask16 there = first_of_16(E / 2 - e);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        to[i] = r + i < n ? _mm512_maskz_loadu_epi32(there, x + (r + i) * stride + 2 * e) : _mm512_setzero_si512();
    transpose(to);
}

// x (n, E) by pairs of features, (E / 2, width, 2): the second factor of a product with x^T. Zeros past the end.
inline void pairs_of_features(const uint16_t* x, long stride, long n, long E, long width, uint32_t* to) {
    __m512i two[16];
    for (long r = 0; r < width; r += 16)
        for (long e = 0; e < E / 2; e += 16) {
            lanes_of_rows(x, stride, r, n, e, E, two);
            for (long k = e; k < std::min(e + 16, E / 2); k++) _mm512_store_si512(to + k * width + r, two[k - e]);
        }
}

// x (n, E) by pairs of rows, (width / 2, E, 2): the second factor of a product with x. Zeros past the end.
inline void pairs_of_rows(const uint16_t* x, long stride, long n, long E, long width, uint32_t* to) {
    for (long r = 0; r < width; r += 2)
        for (long e = 0; e < E; e++) {
            const uint32_t one = r < n ? x[r * stride + e] : 0, two = r + 1 < n ? x[(r + 1) * stride + e] : 0;
            to[r / 2 * E + e] = one | two << 16;
        }
}

// x (n, E) -> x^T (E, width). Zeros past the end.
inline void turn(const uint16_t* x, long stride, long n, long E, long width, uint16_t* to) {
    __m512i two[16];
    for (long r = 0; r < width; r += 16)
        for (long e = 0; e < E / 2; e += 16) {
            lanes_of_rows(x, stride, r, n, e, E, two);
            for (long k = e; k < std::min(e + 16, E / 2); k++) {
                uint16_t* row = to + 2 * k * width + r;
                _mm256_store_si256(reinterpret_cast<__m256i*>(row), _mm512_cvtepi32_epi16(two[k - e]));
                _mm256_store_si256(reinterpret_cast<__m256i*>(row + width),
                                   _mm512_cvtepi32_epi16(_mm512_srli_epi32(two[k - e], 16)));
            }
        }
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
