// AMX's instructions for tiles of bfloat16 said in plain C++, so that the code for tiles is tested on any CPU.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define __AMX_BF16__ 1
#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig soft::configure
#define _tile_release soft::release
#define _tile_zero soft::zero
#define _tile_loadd soft::load_tile
#define _tile_stored soft::store_tile
#define _tile_dpbf16ps soft::multiply

namespace soft {

inline thread_local uint32_t tiles[8][16][16];

inline void configure(const void*) {}
inline void release() { std::memset(tiles, 0xff, sizeof tiles); }             // NaN, to whoever uses one afterwards
inline void zero(int t) { std::memset(tiles[t], 0, sizeof tiles[t]); }
inline void load_tile(int t, const void* from, long stride) {
    for (long r = 0; r < 16; r++) std::memcpy(tiles[t][r], (const char*)from + r * stride, 64);
}
inline void store_tile(int t, void* to, long stride) {
    for (long r = 0; r < 16; r++) std::memcpy((char*)to + r * stride, tiles[t][r], 64);
}
inline float number(uint32_t bits) { float x; std::memcpy(&x, &bits, 4); return x; }

// C (16, 16) += A (16, 16 pairs) B (16 pairs, 16)
inline void multiply(int c, int a, int b) {
    for (long m = 0; m < 16; m++)
        for (long n = 0; n < 16; n++) {
            float sum = number(tiles[c][m][n]);
            for (long k = 0; k < 16; k++) {
                const uint32_t x = tiles[a][m][k], y = tiles[b][k][n];
                sum += number(x << 16) * number(y << 16) + number(x & 0xffff0000u) * number(y & 0xffff0000u);
            }
            std::memcpy(&tiles[c][m][n], &sum, 4);
        }
}

}  // namespace soft
