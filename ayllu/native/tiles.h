// The sums of products.h by AMX's tiles, 16 or 32 rows at a time.
#pragma once

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr long AHEAD_TILES = 8;
constexpr long TOGETHER = 32;                            // rows that are formed together, at most

// A constant, so that no store to it can be left out before it is loaded, as g++ 12 does.
struct alignas(64) Config {
    uint8_t palette = 1, start = 0, none[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr Config CONFIG;

// What a thread needs to compute: tiles are its own as long as this lives.
struct Tools {
    Tools() { _tile_loadconfig(&CONFIG); }
    ~Tools() { _tile_release(); }
};

// Whether Linux lets this process use tiles.
inline bool may_run() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }   // ARCH_REQ_XCOMP_PERM, XTILEDATA

// Of which rows are taken: x (N, K), which may be read up to the next multiple of 16 rows.
struct Factor {
    const Bf* at;
    long K;
    Factor(const Bf* x, long, long K) : at(x), K(K) {}
};

inline long together(long) { return TOGETHER; }

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

inline void sums_of(const Factor& x, long row, long rows, const Bf* w, long K, float (*sums)[UNIT]) {
    asm volatile("" ::: "memory");                       // g++ 12 doesn't know that loads of tiles read memory
    (rows > 16 ? sums_of_32 : sums_of_16)(x.at + row * K, K, w, K, sums);
    asm volatile("" ::: "memory");
}

}  // namespace
