// The sums of products.h by vectors: bfloat16 is widened as it is read, by a shift or a mask, and all else is float32.
#pragma once

#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr long VECTOR_BYTES = 64, ACROSS = 4;            // ACROSS: vectors of columns that are formed together, so that
#elif defined(__AVX__)                                   // the sums of MOST_ROWS rows fill most of the registers
constexpr long VECTOR_BYTES = 32, ACROSS = 2;
#elif defined(__aarch64__)
constexpr long VECTOR_BYTES = 16, ACROSS = 4;
#else
constexpr long VECTOR_BYTES = 16, ACROSS = 2;
#endif
constexpr long MOST_ROWS = 6, LANES = VECTOR_BYTES / 4, FETCHED = 4096;
typedef float Wide __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t Pairs __attribute__((vector_size(VECTOR_BYTES)));

struct Tools {};                                         // a thread needs none

inline bool may_run() { return true; }

// x (N, K) in float32, for whoever computes; until this thread makes the next one.
struct Factor {
    const float* at;
    Factor(const Bf* x, long N, long K) {
        thread_local std::vector<float> room;
        if (long(room.size()) < N * K) room.resize(N * K);
        for (long i = 0; i < N * K; i += W) store(room.data() + i, load(x + i));
        at = room.data();
    }
};

// Rows that are formed together of N that are left: as many as there is room for, in equal parts.
inline long together(long N) {
    const long parts = (N + MOST_ROWS - 1) / MOST_ROWS;
    return (N + parts - 1) / parts;
}

// R rows of x by 64 columns. Sums are formed pair by pair along K, whatever R and the vectors' width are.
template <long R> void sums_of_rows(const float* x, const Bf* w, long K, float (*sums)[UNIT]) {
    for (long c = 0; c < UNIT; c += ACROSS * LANES) {
        Wide y[R][ACROSS] = {};
        const Bf* tile = w + c / 16 * TILE + c % 16 * 2;
        for (long k = 0; k < K; k += DEEP, tile += 4 * TILE)
            for (long j = 0; j < DEEP; j += 2) {
#pragma GCC unroll 4
                for (long s = 0; s < ACROSS; s++) {
                    const Bf* at = tile + s * LANES / 16 * TILE + s * LANES % 16 * 2 + j * 16;
                    if (!c) __builtin_prefetch(at + FETCHED);
                    const Pairs both = read<Pairs>(at);
                    const Wide one = cast<Wide>(both << 16), two = cast<Wide>(both & 0xffff0000u);
#pragma GCC unroll 6
                    for (long r = 0; r < R; r++) {
                        y[r][s] += one * x[r * K + k + j];
                        y[r][s] += two * x[r * K + k + j + 1];
                    }
                }
            }
        for (long r = 0; r < R; r++)
            for (long s = 0; s < ACROSS; s++) write(sums[r] + c + s * LANES, y[r][s]);
    }
}

inline void sums_of(const Factor& x, long row, long rows, const Bf* w, long K, float (*sums)[UNIT]) {
    static constexpr decltype(&sums_of_rows<1>) of[MOST_ROWS] = {sums_of_rows<1>, sums_of_rows<2>, sums_of_rows<3>,
                                                                 sums_of_rows<4>, sums_of_rows<5>, sums_of_rows<6>};
    of[rows - 1](x.at + row * K, w, K, sums);
}

}  // namespace
