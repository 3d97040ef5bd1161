// What stands between a model's products (pointwise.h: how; pointwise.py has the face), and the largest of a row.
//
// N tokens  D width  F feed-forward width  H heads  E head width  V vocabulary
#include "pointwise.h"

namespace {

template <typename X> void norm(const X* x, const X* weight, float eps, long N, long D, X* y, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long i = 0; i < N; i++) norm_token(x + i * D, weight, eps, D, y + i * D);
}

// x (N, H, E), rows `stride` apart, by turn (N, E).
template <typename X>
void turn(X* x, long stride, const X* cos, const X* sin, long N, long H, long E, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long i = 0; i < N; i++) turn_token(x + i * stride, cos + i * E, sin + i * E, H, E);
}

template <typename X> void gate(const X* x, long N, long F, X* y, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long i = 0; i < N; i++)
        for (long f = 0; f < F; f += W)
            put(y + i * F, f, F, gated<X>(part(x + 2 * i * F, f, F), part(x + (2 * i + 1) * F, f, F)));
}

// The first place of the largest number of each row; the first NaN is larger than all.
template <typename X> void largest_of(const X* x, long N, long columns, float* values, int64_t* places, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long i = 0; i < N; i++) {
        const X* row = x + i * columns;
        V top = all(-INFINITY);
        I where{}, at{}, odd{};                          // at: where this vector begins
        long v = 0;
        for (; v + W <= columns; v += W, at += int32_t(W)) {
            const V some = load(row + v);
            const I above = some > top;
            top = above ? some : top;
            where = above ? at : where;
            odd |= some != some;
        }
        float best = one(row);
        long place = 0;
        bool has_nan = best != best;
        for (long lane = 0; v > 0 && lane < W; lane++) {
            const long there = where[lane] + lane;
            if (top[lane] > best || (top[lane] == best && there < place)) best = top[lane], place = there;
            has_nan |= odd[lane] != 0;
        }
        for (; v < columns; v++) {
            const float now = one(row + v);
            if (now > best) best = now, place = v;
            has_nan |= now != now;
        }
        if (has_nan)
            for (place = 0; one(row + place) == one(row + place);) place++;
        values[i] = one(row + place);
        places[i] = place;
    }
}

}  // namespace

#define FACES(NAME, X)                                                                                                 \
    extern "C" void ayllu_norm_##NAME(const X* x, const X* weight, float eps, long N, long D, X* y, int threads) {     \
        norm(x, weight, eps, N, D, y, threads);                                                                        \
    }                                                                                                                  \
    extern "C" void ayllu_turn_##NAME(X* x, long stride, const X* cos, const X* sin, long N, long H, long E,           \
                                      int threads) {                                                                   \
        turn(x, stride, cos, sin, N, H, E, threads);                                                                   \
    }                                                                                                                  \
    extern "C" void ayllu_gate_##NAME(const X* x, long N, long F, X* y, int threads) { gate(x, N, F, y, threads); }    \
    extern "C" void ayllu_largest_##NAME(const X* x, long N, long columns, float* values, int64_t* places,             \
                                         int threads) {                                                                \
        largest_of(x, N, columns, values, places, threads);                                                            \
    }
FACES(bfloat16, Bf)
FACES(float32, float)
