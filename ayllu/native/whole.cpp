// Attention where each place sees all of them, in float32, as encoders have it (whole.py has the face):
//
//   S = Q K^T / sqrt(E)   P = exp(S - max S)   Y = P V / sum P
//
// K^T in blocks of 64 keys and V, padded to whole vectors, lie in the cache of the core that works on their head, and so
// do the scores of the 48 queries that it answers together; both products keep 6 rows by 4 vectors in registers.
//
// B texts  N places of one  H heads  E head width
#include "vectors.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace {

constexpr long ROWS = 6, ACROSS = 4;                     // of a product, in registers: 24 vectors of sums
constexpr long QUERIES = 8 * ROWS;                       // that are answered together
constexpr long BLOCK = ACROSS * W;                       // keys
constexpr long NEAR = 128;                               // values of a pass: 32 KB of them at a head width of 64

constexpr long whole(long n, long of) { return (n + of - 1) / of * of; }

// c (R, A vectors) = a (R, K) b (K, A vectors), added to what c has if it `goes_on`; rows of a, b and c lie `as`, `bs` and
// `cs` numbers apart.
template <long R, long A>
void product(const float* a, long as, const float* b, long bs, long K, bool goes_on, float* c, long cs) {
    V sums[R][A] = {};
    if (goes_on)
        for (long r = 0; r < R; r++)
            for (long j = 0; j < A; j++) sums[r][j] = load(c + r * cs + j * W);
    for (long k = 0; k < K; k++, b += bs) {
        V some[A];
#pragma GCC unroll 4
        for (long j = 0; j < A; j++) some[j] = load(b + j * W);
#pragma GCC unroll 6
        for (long r = 0; r < R; r++) {
            const float here = a[r * as + k];
#pragma GCC unroll 4
            for (long j = 0; j < A; j++) sums[r][j] += some[j] * here;
        }
    }
    for (long r = 0; r < R; r++)
        for (long j = 0; j < A; j++) store(c + r * cs + j * W, sums[r][j]);
}

using Product = void (*)(const float*, long, const float*, long, long, bool, float*, long);

template <long... I> constexpr std::array<Product, sizeof...(I)> products(std::integer_sequence<long, I...>) {
    return {product<I / ACROSS + 1, I % ACROSS + 1>...};
}

// As `product`, for any number of rows and of vectors across up to ACROSS.
void multiply(const float* a, long as, long rows, const float* b, long bs, long across, long K, bool goes_on, float* c,
              long cs) {
    static constexpr auto of = products(std::make_integer_sequence<long, ROWS * ACROSS>{});
    for (long r = 0; r < rows; r += ROWS)
        of[(std::min(ROWS, rows - r) - 1) * ACROSS + across - 1](a + r * as, as, b, bs, K, goes_on, c + r * cs, cs);
}

// One core's memory and what it does with it.
struct Attention {
    const long N, E, step, width, apart;                 // step: numbers from one place of q, k and v to the next
    std::vector<float> keys, values, queries, scores, sums;

    Attention(long N, long E, long step)
        : N(N), E(E), step(step), width(whole(E, W)), apart(whole(N, W) + W),  // W: no two rows at equal places of the cache
          keys(whole(N, BLOCK) * E), values(N * width), queries(QUERIES * E), scores(QUERIES * apart),
          sums(QUERIES * width) {}

    void keep(const float* k, const float* v) {
        for (long n = 0; n < N; n++) {
            float* key = keys.data() + n / BLOCK * BLOCK * E + n % BLOCK;
            for (long e = 0; e < E; e++) key[e * BLOCK] = k[n * step + e];
            std::copy_n(v + n * step, E, values.data() + n * width);
        }
    }

    // Scores to weights, in place; gives what their sum is divided by.
    float weigh(float* row) const {
        std::fill(row + N, row + whole(N, W), -std::numeric_limits<float>::infinity());
        V most = load(row), sum_of = {};
        for (long n = W; n < N; n += W) most = larger(load(row + n), most);
        const float best = largest(most);
        for (long n = 0; n < N; n += W) {
            const V p = exponential(load(row + n) - best);
            store(row + n, p);
            sum_of += p;
        }
        return 1 / sum(sum_of);
    }

    // y (rows, E), `y_step` numbers apart, of the queries q.
    void answer(const float* q, long rows, float* y, long y_step) {
        const float scale = 1 / std::sqrt(float(E));
        for (long r = 0; r < rows; r++)
            for (long e = 0; e < E; e++) queries[r * E + e] = q[r * step + e] * scale;
        for (long n = 0; n < N; n += BLOCK)
            multiply(queries.data(), E, rows, keys.data() + n * E, BLOCK, whole(std::min(BLOCK, N - n), W) / W, E, false,
                     scores.data() + n, apart);
        float part[QUERIES];
        for (long r = 0; r < rows; r++) part[r] = weigh(scores.data() + r * apart);
        for (long n = 0; n < N; n += NEAR)
            for (long e = 0; e < width; e += BLOCK)
                multiply(scores.data() + n, apart, rows, values.data() + n * width + e, width,
                         std::min(ACROSS, (width - e) / W), std::min(NEAR, N - n), n > 0, sums.data() + e, width);
        for (long r = 0; r < rows; r++)
            for (long e = 0; e < E; e++) y[r * y_step + e] = sums[r * width + e] * part[r];
    }
};

}  // namespace

// y (B, N, H, E) of qkv (B, N, 3, H, E).
extern "C" void ayllu_attend_whole(const float* qkv, long B, long N, long H, long E, float* y, int threads) {
    const long step = 3 * H * E, all = whole(N, QUERIES) / QUERIES;
    const long parts = std::clamp(whole(4 * threads, B * H) / (B * H), 1L, all);   // of a head's queries
    const long many = whole(all, parts) / parts * QUERIES;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Attention attention(N, E, step);
#pragma omp for collapse(3) schedule(dynamic)
        for (long b = 0; b < B; b++)
            for (long h = 0; h < H; h++)
                for (long p = 0; p < parts; p++) {
                    const float* q = qkv + b * N * step + h * E;
                    attention.keep(q + H * E, q + 2 * H * E);
                    for (long n = p * many; n < std::min(N, (p + 1) * many); n += QUERIES)
                        attention.answer(q + n * step, std::min({QUERIES, N - n, (p + 1) * many - n}),
                                         y + ((b * N + n) * H + h) * E, H * E);
                }
    }
}
