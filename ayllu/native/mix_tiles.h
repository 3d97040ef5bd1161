// The attention of paged.h by AMX, for keys and values of bfloat16 in pages of whole tiles: up to 8 queries at a time,
// which are heads of one token or of tokens that follow one another in a row, so that a prompt reads its keys once for
// some tokens. Weights are split into two bfloat16 whose sum holds 16 bits of them, so that only sums' order differs
// from paged.h. A query's bits depend on it and its row alone: what it may not see has the weight 0.
//
// E head width  Q queries
#pragma once

#include "paged.h"
#include "products.h"

#include <array>

namespace {

constexpr long QUERIES = 8, SLOTS = 16;                  // of a tile
constexpr long WIDEST = 256;

template <typename T> bool fits_tiles(const Pages<T>& pages) {
    return std::is_same_v<T, Bf> && pages.E % DEEP == 0 && pages.E <= WIDEST && pages.size % SLOTS == 0;
}

// Tokens of a step that follow one another in one row.
struct Group {
    long first, n;
};

// One thread's room.
struct alignas(64) MixRoom {
    uint32_t q[WIDEST / 2][16];                          // pairs of numbers by queries
    float scores[SLOTS][16], weights[QUERIES][BLOCK];
    uint16_t halves[BLOCK / DEEP][2 * QUERIES][DEEP];    // of weights: 8 rows, then the same of what is left of them
    uint16_t v[WIDEST / 16][BLOCK / DEEP][16][DEEP];     // pairs of slots by numbers
    float some[2 * QUERIES][DEEP], y[QUERIES][WIDEST];
};

inline const __m512i* lower_and_upper() {
    alignas(64) static const auto order = [] {
        std::array<uint16_t, 64> o;
        for (int i = 0; i < 64; i++) o[i] = uint16_t(i / 2 + i % 2 * 32);
        return o;
    }();
    return reinterpret_cast<const __m512i*>(order.data());
}

// E0: the head width where it is known when compiling, else 0.
template <long E0> class TileMix {
  public:
    TileMix(const Pages<Bf>& pages, long H)
        : pages(pages), E1(pages.E), shared(H / pages.G), heads(std::min(shared, QUERIES)), width(H * pages.E),
          step(pages.G * pages.E) {}

    // Tokens of a row that are computed together.
    long tokens() const { return shared > QUERIES ? 1 : QUERIES / heads; }

    // What the query heads that share head g of the keys get, of n tokens of a row that stand from `at` on. q: of the
    // first token, `stride` numbers before the next one's; y: (n, H E).
    void operator()(const int32_t* row, long at, long n, long window, long g, const Bf* q, long stride, Bf* y) const {
        static thread_local MixRoom room{};
        const long E = head();
        for (long h = g * shared; h < (g + 1) * shared; h += heads)
            mix(room, row, at, n, window, g, std::min(heads, (g + 1) * shared - h), q + h * E, stride, y + h * E);
    }

  private:
    void mix(MixRoom& r, const int32_t* row, long at, long n, long window, long g, long some, const Bf* q, long stride,
             Bf* y) const {
        const long E = head(), Q = n * some;
        const float root = 1 / std::sqrt(float(E));
        float best[QUERIES], total[QUERIES] = {}, left[QUERIES];
        for (long i = 0; i < Q; i++) {
            best[i] = -1e30f;                            // finite: it may see nothing of the first block
            std::fill_n(r.y[i], E, 0.0f);
            const Bf* from = q + i / some * stride + i % some * E;
            for (long e = 0; e < E / 2; e++) r.q[e][i] = read<uint32_t>(from + 2 * e);
        }
        const long first = first_seen(at, window), end = at + n;
        for (long from = first / BLOCK * BLOCK; from < end; from += BLOCK) {
            const long seen = std::max(first - from, 0L), slots = std::min(end - from, BLOCK);
            const Bf *keys[BLOCK / SLOTS], *values[BLOCK / SLOTS];
            for (long t = 0, to = from; to < from + slots; t++, to += SLOTS) {
                const long place = pages.place(row[to / pages.size] * pages.size + to % pages.size, g) * E;
                keys[t] = pages.keys + place, values[t] = pages.values + place;
            }
            for (long t = 0; t * SLOTS < slots; t++) {
                for (long j = 0; j < SLOTS; j++) fetch(values[t] + j * step, E);
                score(r, keys[t], t, Q, root);
            }
            pack(r, values, seen, slots);
            for (long i = 0; i < Q; i++) {
                const long here = at + i / some, begin = first_seen(here, window) - from;
                if (begin > 0) std::fill_n(r.weights[i], std::min(begin, BLOCK), -INFINITY);
                left[i] = weigh(r.weights[i], std::clamp(here + 1 - from, 0L, BLOCK), best[i], total[i]);
                split(r, i);
            }
            add(r, Q, slots, left);
        }
        for (long i = 0; i < Q; i++)
            for (long e = 0; e < E; e += W)
                store(y + i / some * width + i % some * E + e, load(r.y[i] + e) / total[i]);
    }

    // Of the 16 slots whose keys these are, into tile t of the weights.
    void score(MixRoom& r, const Bf* keys, long t, long Q, float root) const {
        asm volatile("" ::: "memory");                   // g++ 12 doesn't know that loads of tiles read memory
        _tile_zero(0);
        for (long e = 0; e < head(); e += DEEP) {
            _tile_loadd(4, keys + e, step * 2);
            _tile_loadd(5, r.q[e / 2], 64);
            _tile_dpbf16ps(0, 4, 5);
        }
        _tile_stored(0, r.scores, 64);
        asm volatile("" ::: "memory");
        const __m512i line = _mm512_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240);
        for (long i = 0; i < Q; i++)
            store(r.weights[i] + t * SLOTS, V(_mm512_i32gather_ps(line, r.scores[0] + i, 4)) * root);
    }

    // Values of the slots [seen, slots) of a block; zeros for the others, whatever lies there.
    void pack(MixRoom& r, const Bf* const* values, long seen, long slots) const {
        const __m512i lower = lower_and_upper()[0], upper = lower_and_upper()[1], none{};
        for (long j = 0; j < (slots + DEEP - 1) / DEEP * DEEP; j += 2) {
            const Bf* from = values[std::min(j, slots - 1) / SLOTS] + j % SLOTS * step;
            const bool has_one = j >= seen && j < slots, has_two = j + 1 >= seen && j + 1 < slots;
            uint16_t* to = r.v[0][j / DEEP][j % DEEP / 2];
            for (long e = 0; e < head(); e += DEEP, to += 2 * sizeof(r.v[0]) / 2) {
                const __m512i one = has_one ? read<__m512i>(from + e) : none;
                const __m512i two = has_two ? read<__m512i>(from + step + e) : none;
                write(to, _mm512_permutex2var_epi16(one, lower, two));
                write(to + sizeof(r.v[0]) / 2, _mm512_permutex2var_epi16(one, upper, two));
            }
        }
    }

    static void split(MixRoom& r, long i) {
        for (long j = 0; j < BLOCK; j += W) {
            const V p = load(r.weights[i] + j), upper = rounded<Bf>(p);
            store((Bf*)&r.halves[j / DEEP][i][j % DEEP], upper);
            store((Bf*)&r.halves[j / DEEP][QUERIES + i][j % DEEP], p - upper);
        }
    }

    // y = y left + weights values.
    void add(MixRoom& r, long Q, long slots, const float* left) const {
        for (long e = 0; e < head(); e += DEEP) {
            asm volatile("" ::: "memory");
            _tile_zero(0);
            _tile_zero(1);
            for (long k = 0; k * DEEP < slots; k++) {
                _tile_loadd(4, r.halves[k], 64);
                _tile_loadd(6, r.v[e / 16][k], 64);
                _tile_loadd(7, r.v[e / 16 + 1][k], 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
            }
            _tile_stored(0, r.some, DEEP * 4);
            _tile_stored(1, r.some[0] + 16, DEEP * 4);
            asm volatile("" ::: "memory");
            for (long i = 0; i < Q; i++)
                for (long c = 0; c < DEEP; c += W)
                    store(r.y[i] + e + c, load(r.y[i] + e + c) * left[i] +
                                              (load(r.some[i] + c) + load(r.some[QUERIES + i] + c)));
        }
    }

    long head() const { return E0 ? E0 : E1; }

    const Pages<Bf>& pages;
    const long E1, shared, heads, width, step;           // step: numbers from one slot to the next
};

}  // namespace
