// 16 numbers at a time in the compiler's own vectors, which become AVX512 where the flags allow it, else whatever there
// is. A few things that g++ makes badly of them are said in AVX512's own words as well.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>

#ifdef __AVX512BW__
#include <immintrin.h>
#endif

typedef float V __attribute__((vector_size(64)));
typedef int32_t I __attribute__((vector_size(64)));
typedef uint16_t H16 __attribute__((vector_size(32)));
typedef int8_t B16 __attribute__((vector_size(16)));

constexpr long W = 16;                                   // numbers of a vector

// As bfloat16 is kept: the upper half of a float32.
struct Bf {
    uint16_t bits;
};

template <typename T> inline T read(const void* from) { T x; std::memcpy(&x, from, sizeof x); return x; }
template <typename T> inline void write(void* to, T x) { std::memcpy(to, &x, sizeof x); }
template <typename T, typename F> inline T cast(F x) { static_assert(sizeof(T) == sizeof(F)); return read<T>(&x); }

inline V all(float x) { return V{} + x; }
inline V load(const float* x) { return read<V>(x); }
#ifdef __AVX512BW__
inline V load(const Bf* x) { return V(_mm512_slli_epi32(_mm512_cvtepu16_epi32(read<__m256i>(x)), 16)); }
inline V load(const int8_t* x) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(read<__m128i>(x))); }
inline float sum(V x) { return _mm512_reduce_add_ps(x); }
inline float largest(V x) { return _mm512_reduce_max_ps(x); }
#else
inline V load(const Bf* x) { return cast<V>(__builtin_convertvector(read<H16>(x), I) << 16); }
inline V load(const int8_t* x) { return __builtin_convertvector(read<B16>(x), V); }
inline float sum(V x) {
    for (long half = W / 2; half; half /= 2)
        for (long i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}
inline float largest(V x) {
    for (long i = 1; i < W; i++) x[0] = x[i] > x[0] ? x[i] : x[0];
    return x[0];
}
#endif

inline float one(const float* x) { return *x; }
inline float one(const Bf* x) { return cast<float>(uint32_t(x->bits) << 16); }
inline float one(const int8_t* x) { return float(*x); }

// As a number of this kind, still in a float32: to the nearest, ties to even, as torch does; NaN stays NaN.
template <typename T> inline V rounded(V x) { return x; }
template <> inline V rounded<Bf>(V x) {
#ifdef __AVX512BF16__                                    // which makes zeros of numbers below 2^-126
    return V(_mm512_slli_epi32(_mm512_cvtepu16_epi32(__m256i(_mm512_cvtneps_pbh(x))), 16));
#endif
    const I bits = cast<I>(x), near = bits + 0x7fff + ((bits >> 16) & 1);
    return cast<V>((x == x ? near : bits | 0x400000) & ~0xffff);
}

inline void store(float* to, V x) { write(to, x); }
inline void store(Bf* to, V x) {
#ifdef __AVX512BF16__
    return write(to, _mm512_cvtneps_pbh(x));
#endif
    const I upper = cast<I>(rounded<Bf>(x)) >> 16;
#ifdef __AVX512BW__
    write(to, _mm512_cvtepi32_epi16(__m512i(upper)));
#else
    write(to, __builtin_convertvector(upper, H16));
#endif
}
inline void store_one(float* to, float x) { *to = x; }
inline void store_one(Bf* to, float x) { to->bits = uint16_t(cast<uint32_t>(rounded<Bf>(all(x))[0]) >> 16); }

// Whether a comparison holds in any lane.
inline bool any(I compared) {
#ifdef __AVX512DQ__
    return _mm512_movepi32_mask(__m512i(compared)) != 0;
#else
    for (long i = 0; i < W; i++)
        if (compared[i]) return true;
    return false;
#endif
}

inline V larger(V x, V y) { return x > y ? x : y; }

// exp(x) with a relative error under 3e-7; 0 below -87, and no more than e^88. e^f as a Taylor polynomial on
// [-ln 2 / 2, ln 2 / 2], times 2^n.
inline V exponential(V x) {
    const V low = all(-87.0f), high = all(88.0f), round = all(12582912.0f);   // 1.5 * 2^23: its last bit counts ones
    const V t = x < low ? low : x > high ? high : x;                          // NaN goes through
    const V shifted = t * 1.44269504f + round, n = shifted - round;
    const V f = (t - n * 0.693145752f) - n * 1.42860677e-6f;                  // ln 2 in two parts (Cody and Waite)
    V p = all(1.0f / 720);
    for (float c : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) p = p * f + c;
    const V scale = cast<V>((cast<I>(shifted) - cast<I>(round) + 127) << 23);
    return x < low ? V{} : p * scale;
}
