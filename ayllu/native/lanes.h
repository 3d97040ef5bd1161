// The sums of products.h by vectors: bfloat16 is widened as it is read, by a shift or a mask, and all else is float32.
#pragma once

#include <array>
#include <utility>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr long VECTOR_BYTES = 64, SUMS = 24;             // SUMS: as many as the registers hold beside what is multiplied
#elif defined(__AVX__)
constexpr long VECTOR_BYTES = 32, SUMS = 12;
#elif defined(__aarch64__)
constexpr long VECTOR_BYTES = 16, SUMS = 24;
#else
constexpr long VECTOR_BYTES = 16, SUMS = 12;
#endif
constexpr long LANES = VECTOR_BYTES / 4, FETCHED = 4096;
constexpr long MOST_ROWS = SUMS / 2, FEW_ROWS = SUMS / 4;   // that are formed together, in 2 or 4 vectors of columns
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

// R rows of x by 64 columns, ACROSS vectors of them at a time. Sums are formed pair by pair along K, whatever R and the
// vectors' width are.
template <long R> void sums_of_rows(const float* x, const Bf* w, long K, float (*sums)[UNIT]) {
    constexpr long ACROSS = R <= FEW_ROWS ? 4 : 2;
    for (long c = 0; c < UNIT; c += ACROSS * LANES) {
        Wide y[R][ACROSS] = {};
        const Bf* tile = w + c / 16 * TILE + c % 16 * 2;
        for (long k = 0; k < K; k += DEEP, tile += 4 * TILE)
            for (long j = 0; j < DEEP; j += 2) {
                Pairs both[ACROSS];
                Wide some[ACROSS];
#pragma GCC unroll 4
                for (long s = 0; s < ACROSS; s++) {
                    const Bf* at = tile + s * LANES / 16 * TILE + s * LANES % 16 * 2 + j * 16;
                    __builtin_prefetch(at + FETCHED);
                    both[s] = read<Pairs>(at);
                    some[s] = cast<Wide>(both[s] << 16);
                }
#pragma GCC unroll 12
                for (long r = 0; r < R; r++) {
                    const float here = x[r * K + k + j];
#pragma GCC unroll 4
                    for (long s = 0; s < ACROSS; s++) y[r][s] += some[s] * here;
                }
#pragma GCC unroll 4
                for (long s = 0; s < ACROSS; s++) some[s] = cast<Wide>(both[s] & 0xffff0000u);
#pragma GCC unroll 12
                for (long r = 0; r < R; r++) {
                    const float here = x[r * K + k + j + 1];
#pragma GCC unroll 4
                    for (long s = 0; s < ACROSS; s++) y[r][s] += some[s] * here;
                }
            }
        for (long r = 0; r < R; r++)
            for (long s = 0; s < ACROSS; s++) write(sums[r] + c + s * LANES, y[r][s]);
    }
}

using Sums = void (*)(const float*, const Bf*, long, float (*)[UNIT]);

template <long... R> constexpr std::array<Sums, sizeof...(R)> all_sums(std::integer_sequence<long, R...>) {
    return {sums_of_rows<R + 1>...};
}

inline void sums_of(const Factor& x, long row, long rows, const Bf* w, long K, float (*sums)[UNIT]) {
    static constexpr auto of = all_sums(std::make_integer_sequence<long, MOST_ROWS>{});
    of[rows - 1](x.at + row * K, w, K, sums);
}

}  // namespace
