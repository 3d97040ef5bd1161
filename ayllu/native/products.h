// Products of few rows with a matrix of bfloat16, so that each weight is read once, at the speed of memory: by AMX's tiles
// where the flags allow them (tiles.h), else by vectors of whatever width there is (lanes.h).
//
// Weights lie packed (step.py): for 64 columns at a time, and each 32 of K, four tiles of 16 x 16 pairs. A row's sums are
// formed in one order whatever other rows there are, so its bits depend on it alone.
//
// N rows  K numbers in  O numbers out
#pragma once

#include "pointwise.h"

#include <algorithm>

namespace {

constexpr long UNIT = 64;                                // columns that are formed together
constexpr long DEEP = 32;                                // numbers of K in a tile
constexpr long TILE = 16 * DEEP;                         // numbers of a tile

struct Matrix {
    const Bf* at;                                        // (O / 64, K / 32, 4, 16, 16, 2)
    const Bf* bias;                                      // (O,), or null
    long K, O;

    long units() const { return (O + UNIT - 1) / UNIT; }
};

}  // namespace

#ifdef __AMX_BF16__
#include "tiles.h"
#else
#include "lanes.h"
#endif

namespace {

// 64 columns of x (N, K) times a matrix: `end(row, column, sums)` gets them row by row.
template <typename End> void product(const Factor& x, long N, const Matrix& m, long unit, End end) {
    alignas(64) float sums[TOGETHER][UNIT];
    const Bf* w = m.at + unit * UNIT * m.K;
    for (long i = 0; i < N;) {
        const long rows = std::min(together(N - i), N - i);
        sums_of(x, i, rows, w, m.K, sums);
        for (long r = 0; r < rows; r++) end(i + r, unit * UNIT, sums[r]);
        i += rows;
    }
}

// 16 sums with the bias of their columns, of which there are n.
inline V with_bias(const Matrix& m, long column, long n, const float* sums) {
    return m.bias ? load(sums) + part(m.bias + column, 0, n) : load(sums);
}

}  // namespace
