// Products of few rows with a matrix of bfloat16 by AMX, so that each weight is read once, at the speed of memory.
//
// Weights lie packed (step.py): for 64 columns at a time, and each 32 of K, four tiles of 16 x 16 pairs. Rows are taken
// by 16 or 32; a row's sums are formed in one order whatever other rows there are, so its bits depend on it alone.
//
// N rows  K numbers in  O numbers out
#pragma once

#include "pointwise.h"

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

namespace {

constexpr long UNIT = 64;                                // columns that are formed together
constexpr long ROWS = 32;                                // rows that are formed together
constexpr long DEEP = 32;                                // numbers of K in a tile
constexpr long TILE = 16 * DEEP;                         // numbers of a tile
constexpr long AHEAD_TILES = 8;

// A constant, so that no store to it can be left out before it is loaded, as g++ 12 does.
struct alignas(64) Config {
    uint8_t palette = 1, start = 0, none[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr Config CONFIG;

// Tiles are this thread's as long as this lives.
struct Tiles {
    Tiles() { _tile_loadconfig(&CONFIG); }
    ~Tiles() { _tile_release(); }
};

// Whether Linux lets this process use tiles.
inline bool may_use_tiles() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }   // ARCH_REQ_XCOMP_PERM, XTILEDATA

struct Matrix {
    const Bf* at;                                        // (O / 64, K / 32, 4, 16, 16, 2)
    const Bf* bias;                                      // (O,), or null
    long K, O;

    long units() const { return (O + UNIT - 1) / UNIT; }
};

inline void fetch_tile(const Bf* tile) {
    for (long i = 0; i < TILE; i += 32) __builtin_prefetch(tile + i);
}

// Up to 16 rows of x, `stride` numbers apart, by 64 columns.
inline void sums_of_16(const Bf* x, long stride, const Bf* w, long K, float (*sums)[UNIT]) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (long k = 0; k < K; k += DEEP, w += 4 * TILE) {
        for (long i = 0; i < 4; i++) fetch_tile(w + (AHEAD_TILES + i) * TILE);
        _tile_loadd(4, x + k, stride * 2);
        _tile_loadd(5, w, 64);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, w + TILE, 64);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, w + 2 * TILE, 64);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, w + 3 * TILE, 64);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, sums[0], UNIT * 4);
    _tile_stored(1, sums[0] + 16, UNIT * 4);
    _tile_stored(2, sums[0] + 32, UNIT * 4);
    _tile_stored(3, sums[0] + 48, UNIT * 4);
}

// Up to 32 rows by 64 columns, half of them at a time.
inline void sums_of_32(const Bf* x, long stride, const Bf* w, long K, float (*sums)[UNIT]) {
    for (long half = 0; half < 2; half++) {
        const Bf* at = w + 2 * half * TILE;
        float* to = sums[0] + 32 * half;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (long k = 0; k < K; k += DEEP, at += 4 * TILE) {
            for (long i = 0; i < 2; i++) fetch_tile(at + (AHEAD_TILES + i) * TILE);
            _tile_loadd(4, x + k, stride * 2);
            _tile_loadd(5, x + 16 * stride + k, stride * 2);
            _tile_loadd(6, at, 64);
            _tile_loadd(7, at + TILE, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, to, UNIT * 4);
        _tile_stored(1, to + 16, UNIT * 4);
        _tile_stored(2, to + 16 * UNIT, UNIT * 4);
        _tile_stored(3, to + 16 * UNIT + 16, UNIT * 4);
    }
}

// 64 columns of x (N, K) times a matrix: `end(row, column, sums)` gets them row by row. x may be
// read up to the next multiple of 16 rows.
template <typename End> void product(const Bf* x, long N, const Matrix& m, long unit, End end) {
    alignas(64) float sums[ROWS][UNIT];
    const Bf* w = m.at + unit * UNIT * m.K;
    asm volatile("" ::: "memory");                       // g++ 12 doesn't know that loads of tiles read memory
    for (long i = 0; i < N; i += ROWS) {
        const long rows = std::min(ROWS, N - i);
        (rows > 16 ? sums_of_32 : sums_of_16)(x + i * m.K, m.K, w, m.K, sums);
        asm volatile("" ::: "memory");
        for (long r = 0; r < rows; r++) end(i + r, unit * UNIT, sums[r]);
    }
}

// 16 sums with the bias of their columns, of which there are n.
inline V with_bias(const Matrix& m, long column, long n, const float* sums) {
    return m.bias ? load(sums) + part(m.bias + column, 0, n) : load(sums);
}

}  // namespace
