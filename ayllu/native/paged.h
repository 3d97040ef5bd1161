// Attention of single tokens over keys and values that lie in pages, where they lie.
//
// One token and one head of keys at a time, with the heads of queries that share it, by blocks of BLOCK slots with a
// running softmax (arXiv:2205.14135); all in float32. Blocks begin at multiples of BLOCK in the row, and each token is
// computed alone: its bits depend neither on what else there is, nor on the size of the pages.
//
// N tokens  H heads  G heads of keys  E head width  Q query heads that are computed together
#pragma once

#include "vectors.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

namespace {

constexpr long BLOCK = 64, AHEAD = 8;                    // slots

// T: as keys and values lie; of bytes, x = number * scale, one scale for each slot and head.
template <typename T> struct Pages {
    T *keys, *values;                                    // (pages, size, G, E)
    float *key_scales, *value_scales;                    // (pages, size, G), or null
    long G, E, size;

    long place(long slot, long g) const { return slot * G + g; }

    // Where the head's numbers of n tokens from position `begin` on lie, in a row with these pages.
    void find(const int32_t* row, long begin, long n, long g, long* places) const {
        long page = begin / size, i = begin % size;
        for (long j = 0; j < n; j++) {
            places[j] = place(row[page] * size + i, g);
            if (++i == size) i = 0, page++;
        }
    }
};

// One token: the pages of its row, and where it stands; it sees what stands in [first, at].
struct Token {
    const int32_t* pages;
    long at, first;
};

inline long first_seen(long at, long window) { return window > 0 ? std::max(0L, at - window + 1) : 0; }

template <typename To, typename From> void keep(const From* x, long E, To* to, float* scale) {
    if constexpr (!std::is_same_v<To, int8_t>) {
        std::memcpy(to, x, E * sizeof(To));
    } else {
        float most = 0;
        for (long e = 0; e < E; e++) most = std::max(most, std::fabs(one(x + e)));
        *scale = std::max(most / 127, 1e-30f);
        for (long e = 0; e < E; e++) to[e] = int8_t(std::nearbyint(one(x + e) / *scale));
    }
}

template <typename T> void fetch(const T* x, long E) {
    for (long e = 0; e < E; e += 64 / long(sizeof(T))) __builtin_prefetch(x + e);
}

template <long Q, typename T> void dots(const float* const (&q)[Q], const T* k, long E, float* scores) {
    V sums[Q] = {};
    long e = 0;
    for (; e + W <= E; e += W) {
        const V x = load(k + e);
        for (long i = 0; i < Q; i++) sums[i] += load(q[i] + e) * x;
    }
    for (long i = 0; i < Q; i++) scores[i * BLOCK] = sum(sums[i]);
    for (; e < E; e++)
        for (long i = 0; i < Q; i++) scores[i * BLOCK] += q[i][e] * one(k + e);
}

// Scores of n slots to their weights, with the largest score so far; gives what the sums so far are worth still.
float weigh(float* scores, long n, float& best, float& total) {
    std::fill(scores + n, scores + BLOCK, -INFINITY);
    V top = load(scores), added{};
    for (long j = W; j < BLOCK; j += W) top = larger(load(scores + j), top);
    const float before = best;
    best = std::max(best, largest(top));
    for (long j = 0; j < BLOCK; j += W) {
        const V p = exponential(load(scores + j) - best);
        store(scores + j, p);
        added += p;
    }
    const float left = exponential(all(before - best))[0];
    total = total * left + sum(added);
    return left;
}

// E is known when compiling, or 0: then it's `width`. query: (Q, width) scaled; sums: (Q, width), the result.
template <long E0, long Q, typename T>
void mix(const Pages<T>& pages, const Token& token, long g, const float* query, float* sums) {
    const long E = E0 ? E0 : pages.E;
    const float* q[Q];
    float best[Q], total[Q] = {}, left[Q];
    alignas(64) float scores[Q * BLOCK];
    for (long i = 0; i < Q; i++) q[i] = query + i * E, best[i] = -INFINITY;
    std::fill(sums, sums + Q * E, 0.0f);
    for (long from = token.first / BLOCK * BLOCK; from <= token.at; from += BLOCK) {
        const long begin = std::max(from, token.first), n = std::min(from + BLOCK, token.at + 1) - begin;
        long places[BLOCK];
        pages.find(token.pages, begin, n, g, places);
        for (long j = 0; j < n; j++) {
            fetch(pages.keys + places[std::min(j + AHEAD, n - 1)] * E, E);
            fetch(pages.values + places[j] * E, E);
            dots<Q>(q, pages.keys + places[j] * E, E, scores + j);
        }
        if constexpr (std::is_same_v<T, int8_t>)
            for (long j = 0; j < n; j++)
                for (long i = 0; i < Q; i++) scores[i * BLOCK + j] *= pages.key_scales[places[j]];
        for (long i = 0; i < Q; i++) left[i] = weigh(scores + i * BLOCK, n, best[i], total[i]);
        if constexpr (std::is_same_v<T, int8_t>)
            for (long j = 0; j < n; j++)
                for (long i = 0; i < Q; i++) scores[i * BLOCK + j] *= pages.value_scales[places[j]];
        long e = 0;
        for (; e + W <= E; e += W) {
            V y[Q];
            for (long i = 0; i < Q; i++) y[i] = load(sums + i * E + e) * left[i];
            for (long j = 0; j < n; j++) {
                const V x = load(pages.values + places[j] * E + e);
                for (long i = 0; i < Q; i++) y[i] += x * scores[i * BLOCK + j];
            }
            for (long i = 0; i < Q; i++) store(sums + i * E + e, y[i]);
        }
        for (; e < E; e++)
            for (long i = 0; i < Q; i++) {
                float y = sums[i * E + e] * left[i];
                for (long j = 0; j < n; j++) y += one(pages.values + places[j] * E + e) * scores[i * BLOCK + j];
                sums[i * E + e] = y;
            }
    }
    for (long i = 0; i < Q; i++)
        for (long e = 0; e < E; e++) sums[i * E + e] /= total[i];
}

template <typename T> using Mix = void (*)(const Pages<T>&, const Token&, long, const float*, float*);

template <long E, typename T> Mix<T> mix_of(long Q) {
    return Q == 4 ? mix<E, 4, T> : Q == 2 ? mix<E, 2, T> : mix<E, 1, T>;
}

// Writes the keys and values (G, E) of one token to a slot.
template <typename X, typename T> void keep_token(const X* k, const X* v, const Pages<T>& pages, long slot) {
    for (long g = 0, E = pages.E; g < pages.G; g++) {
        const long to = pages.place(slot, g);
        keep(k + g * E, E, pages.keys + to * E, pages.key_scales + to);
        keep(v + g * E, E, pages.values + to * E, pages.value_scales + to);
    }
}

// What one token's query heads (H, E) that share head g of the keys get, into the same places of y. query, sums: room
// for H E numbers.
template <typename X, typename T> struct Attention {
    const Pages<T>& pages;
    long H, Q = H / pages.G % 4 == 0 ? 4 : H / pages.G % 2 == 0 ? 2 : 1;
    Mix<T> run = pages.E == 64 ? mix_of<64, T>(Q) : pages.E == 128 ? mix_of<128, T>(Q) : mix_of<0, T>(Q);
    float root = 1 / std::sqrt(float(pages.E));

    void operator()(const Token& token, long g, const X* q, X* y, float* query, float* sums) const {
        const long E = pages.E, shared = H / pages.G;
        for (long h = g * shared; h < (g + 1) * shared; h += Q) {
            for (long e = 0; e < Q * E; e++) query[e] = one(q + h * E + e) * root;
            run(pages, token, g, query, sums);
            long e = 0;
            for (; e + W <= Q * E; e += W) store(y + h * E + e, load(sums + e));
            for (; e < Q * E; e++) store_one(y + h * E + e, sums[e]);
        }
    }
};

}  // namespace
