// What stands between a model's products, one token at a time, each in one pass. Intermediate results are rounded to the
// model's own dtype where torch's operations round theirs, so that these differ from torch's by the order of a norm's
// sum and by exp alone. Each token is computed alone, in one order.
//
// D width  F feed-forward width  H heads  E head width
#pragma once

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

// RMSNorm of x (D,).
template <typename X> void norm_token(const X* x, const X* weight, float eps, long D, X* y) {
    V squares{};
    for (long d = 0; d < D; d += W) {
        const V some = part(x, d, D);
        squares += some * some;
    }
    const float scale = 1 / std::sqrt(sum(squares) / float(D) + eps);
    for (long d = 0; d < D; d += W) put(y, d, D, rounded<X>(part(x, d, D) * scale) * part(weight, d, D));
}

// x (H, E) by one turn (E,): x cos + (the other half of x) sin, where sin has its sign.
template <typename X> void turn_token(X* x, const X* cos, const X* sin, long H, long E) {
    const long half = E / 2;
    for (long h = 0; h < H; h++) {
        X *a = x + h * E, *b = a + half;
        for (long e = 0; e < half; e += W) {
            const V one = part(a, e, half), two = part(b, e, half);
            put(a, e, half, rounded<X>(one * part(cos, e, half)) + two * part(sin, e, half));
            put(b, e, half, rounded<X>(two * part(cos + half, e, half)) + one * part(sin + half, e, half));
        }
    }
}

// silu(g) u, of numbers that were rounded.
template <typename X> V gated(V g, V u) { return rounded<X>(g / (exponential(-g) + 1.0f)) * u; }

}  // namespace
