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
constexpr long LANES = VECTOR_BYTES / 4;
constexpr long MOST_ROWS = SUMS / 2, FEW_ROWS = SUMS / 4;   // that are formed together, in 2 or 4 vectors of columns
constexpr long TOGETHER = 3 * MOST_ROWS;                 // rows that go over the weights while these are near
constexpr long NEAR = 64;                                // numbers of K of such weights, which are 8 KB
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
inline long together(long N, long most = TOGETHER) {
    const long parts = (N + most - 1) / most;
    return (N + parts - 1) / parts;
}

// Where the s-th vector of columns begins in a row of tiles.
constexpr long place(long s) { return s * LANES / 16 * TILE + s * LANES % 16 * 2; }

// Sums of R rows of x, `stride` numbers apart, by 64 columns, ACROSS vectors of them at a time, over `deep` numbers of K;
// `goes_on`: more of those that are there. They are formed pair by pair along K, whatever R, `deep` and the vectors' width
// are. Weights are fetched while those NEAR numbers of K before them are multiplied, so that memory and sums don't wait
// for each other: all that a pass reads next, or where passes follow one another, SHARED, a vector of it each.
template <long R, bool SHARED>
void sums_of_rows(const float* x, long stride, const Bf* w, long deep, long pass, bool goes_on, float (*sums)[UNIT]) {
    constexpr long ACROSS = R <= FEW_ROWS ? 4 : 2;
    for (long c = 0; c < UNIT; c += ACROSS * LANES) {
        Wide y[R][ACROSS] = {};
        if (goes_on)
            for (long r = 0; r < R; r++)
                for (long s = 0; s < ACROSS; s++) y[r][s] = read<Wide>(sums[r] + c + s * LANES);
        const Bf* tile = w + c / 16 * TILE + c % 16 * 2;
        for (long k = 0; k < deep; k += DEEP, tile += 4 * TILE)
            for (long j = 0; j < DEEP; j += 2) {
                Pairs both[ACROSS];
                Wide some[ACROSS];
                if (SHARED) __builtin_prefetch(tile + place(pass % ACROSS) + j * 16 + NEAR * UNIT);
#pragma GCC unroll 4
                for (long s = 0; s < ACROSS; s++) {
                    const Bf* at = tile + place(s) + j * 16;
                    if (!SHARED) __builtin_prefetch(at + NEAR * UNIT);
                    both[s] = read<Pairs>(at);
                    some[s] = cast<Wide>(both[s] << 16);
                }
#pragma GCC unroll 12
                for (long r = 0; r < R; r++) {
                    const float here = x[r * stride + k + j];
#pragma GCC unroll 4
                    for (long s = 0; s < ACROSS; s++) y[r][s] += some[s] * here;
                }
#pragma GCC unroll 4
                for (long s = 0; s < ACROSS; s++) some[s] = cast<Wide>(both[s] & 0xffff0000u);
#pragma GCC unroll 12
                for (long r = 0; r < R; r++) {
                    const float here = x[r * stride + k + j + 1];
#pragma GCC unroll 4
                    for (long s = 0; s < ACROSS; s++) y[r][s] += some[s] * here;
                }
            }
        for (long r = 0; r < R; r++)
            for (long s = 0; s < ACROSS; s++) write(sums[r] + c + s * LANES, y[r][s]);
    }
}

using Sums = void (*)(const float*, long, const Bf*, long, long, bool, float (*)[UNIT]);

template <bool SHARED, long... R>
constexpr std::array<Sums, sizeof...(R)> all_sums(std::integer_sequence<long, R...>) {
    return {sums_of_rows<R + 1, SHARED>...};
}

// Few rows go over all of K at once, and so do those that find the weights in the cache; else all rows go over a near
// piece of the weights by turns.
inline void sums_of(const Factor& x, long row, long rows, const Bf* w, long K, float (*sums)[UNIT]) {
    constexpr auto sizes = std::make_integer_sequence<long, MOST_ROWS>{};
    static constexpr auto alone = all_sums<false>(sizes), shared = all_sums<true>(sizes);
    const long most = together(rows, MOST_ROWS), deep = row || rows <= FEW_ROWS ? K : NEAR;
    const auto& of = rows > most && deep == NEAR ? shared : alone;
    for (long k = 0; k < K; k += deep)
        for (long i = 0; i < rows; i += most) {
            const long some = std::min(most, rows - i);
            of[some - 1](x.at + (row + i) * K + k, K, w + k * UNIT, std::min(deep, K - k), i / most, k > 0, sums + i);
        }
}

}  // namespace
