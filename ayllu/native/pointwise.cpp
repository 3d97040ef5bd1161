// What stands between a model's products, each in one pass (pointwise.py has the face). Intermediate results are rounded
// to the model's own dtype where torch's operations round theirs, so that these differ from torch's by the order of a
// norm's sum and by exp alone. Each row is computed alone, in one order.
//
// N tokens  D width  F feed-forward width  H heads  E head width  V vocabulary
#include "vectors.h"

#include <algorithm>
#include <cmath>

namespace {

// The 16 numbers from `at` on of a row of n, zeros past the end.
template <typename X> V part(const X* row, long at, long n) {
    if (at + W <= n) return load(row + at);
    X some[W] = {};
    std::copy(row + at, row + n, some);
    return load(some);
}

template <typename X> void put(X* row, long at, long n, V x) {
    if (at + W <= n) return store(row + at, x);
    X some[W];
    store(some, x);
    std::copy(some, some + n - at, row + at);
}

template <typename X> void norm(const X* x, const X* weight, float eps, long N, long D, X* y, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long i = 0; i < N; i++) {
        const X* row = x + i * D;
        V squares{};
        for (long d = 0; d < D; d += W) {
            const V some = part(row, d, D);
            squares += some * some;
        }
        const float scale = 1 / std::sqrt(sum(squares) / float(D) + eps);
        for (long d = 0; d < D; d += W)
            put(y + i * D, d, D, rounded<X>(part(row, d, D) * scale) * part(weight, d, D));
    }
}

// x (N, H, E), rows `stride` apart, by turn (N, E): x cos + (the other half of x) sin, where sin has its sign.
template <typename X>
void turn(X* x, long stride, const X* cos, const X* sin, long N, long H, long E, int threads) {
    const long half = E / 2;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long i = 0; i < N; i++)
        for (long h = 0; h < H; h++) {
            X *a = x + i * stride + h * E, *b = a + half;
            const X *c = cos + i * E, *s = sin + i * E;
            for (long e = 0; e < half; e += W) {
                const V one = part(a, e, half), two = part(b, e, half);
                put(a, e, half, rounded<X>(one * part(c, e, half)) + two * part(s, e, half));
                put(b, e, half, rounded<X>(two * part(c + half, e, half)) + one * part(s + half, e, half));
            }
        }
}

template <typename X> void gate(const X* x, long N, long F, X* y, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long i = 0; i < N; i++)
        for (long f = 0; f < F; f += W) {
            const V g = part(x + 2 * i * F, f, F), silu = g / (exponential(-g) + 1.0f);
            put(y + i * F, f, F, rounded<X>(silu) * part(x + (2 * i + 1) * F, f, F));
        }
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
