// What adapters add to products: for a token x (K,) whose adapter has A (R, K) and B (R, O), which holds the scale, y (O,)
// becomes y + (x A^T) B. Each token is computed alone, in one order, and rounded where torch's operations round.
#pragma once

#include "crew.h"
#include "pointwise.h"

#include <vector>

namespace {

struct Pair {
    const Bf *a, *b;                                     // (R, K), (R, O)
    long rank;                                           // 0: the adapter leaves this product as it is
};

enum Part { WQ, WK, WV, WO, W1, W3, W2, PARTS };

struct Adapters {
    const Pair* pairs;                                   // (slots, layers, PARTS)
    const int32_t* owners;                               // (N,): the slot of each token's adapter, -1: none
    long layers;

    const Pair& of(long token, long layer, long part) const {
        return pairs[(owners[token] * layers + layer) * PARTS + part];
    }
    bool any(long N, long layer, long part) const {
        for (long i = 0; i < N; i++)
            if (owners[i] >= 0 && of(i, layer, part).rank) return true;
        return false;
    }
};

// Where a part's output o lies in a row of y: `chunk` of them side by side from `at` on, then the next `skip` further.
struct Columns {
    long part, O, at, chunk, skip;
};

// Of a part whose outputs stand side by side.
inline Columns whole(long part, long O, long at) { return {part, O, at, O, O}; }

// z (R,) = x A^T.
inline void down(const float* x, const Pair& p, long K, float* z) {
    for (long r = 0; r < p.rank; r++) {
        V some{};
        for (long k = 0; k < K; k += W) some += load(p.a + r * K + k) * load(x + k);
        z[r] = rounded<Bf>(all(sum(some)))[0];
    }
}

// y += z B; K is a multiple of 32, and so are the chunks where there are several.
inline void up(const float* z, const Pair& p, const Columns& c, Bf* y) {
    for (long o = 0; o < c.O; o += W) {
        V some{};
        for (long r = 0; r < p.rank; r++) some += part(p.b + r * c.O, o, c.O) * z[r];
        Bf* row = y + c.at + o / c.chunk * c.skip + o % c.chunk;
        put(row, 0, c.O - o, rounded<Bf>(some) + part(row, 0, c.O - o));
    }
}

// y (N, width) with what the adapters of the tokens x (N, K) add to some parts of it.
inline void adapt(Crew::Step& step, const Adapters& adapters, long layer, const Bf* x, long N, long K,
                  std::initializer_list<Columns> parts, Bf* y, long width) {
    step.share(N, [&](long i) {
        if (adapters.owners[i] < 0) return;
        thread_local std::vector<float> room;
        bool is_read = false;
        for (const Columns& c : parts) {
            const Pair& pair = adapters.of(i, layer, c.part);
            if (!pair.rank) continue;
            if (long(room.size()) < K + pair.rank) room.resize(K + pair.rank), is_read = false;
            if (!is_read)
                for (long k = 0; k < K; k += W) store(room.data() + k, load(x + i * K + k));
            is_read = true;
            down(room.data(), pair, K, room.data() + K);
            up(room.data() + K, pair, c, y + i * width);
        }
    });
}

}  // namespace
