// Attention and its backward pass in bfloat16, where each token sees one stretch of keys (attention.py has the face).
//
// One row and head of keys at a time, with the heads of queries that share it, by blocks of query tokens; keys that no
// token of a block sees are left out. Products lie transposed, one query token to a lane, so that softmax's sums run
// down and not across vectors, and what one product gives is what the next one reads:
//   S^T = K Q^T, P^T = exp(S^T / sqrt(E) - L)                 L: log of the sum of exp, kept by the forward pass
//   dP^T = V dY^T, dS^T = P^T (dP^T - delta) / sqrt(E)        delta: sum(dY Y) of each query token
//   dV += P^T dY, dK += dS^T Q, dQ^T = K^T dS^T               (FlashAttention-2, arXiv:2307.08691, algorithm 2)
//
// B rows  T tokens  H heads  G heads of keys  E head width  M query tokens of a block  J key tokens that a block sees
#include "numbers.h"

#include <ATen/native/CPUBlas.h>
#include <omp.h>

#include <algorithm>
#include <cmath>

using at::native::cpublas::brgemm;

namespace {

constexpr long M = 64;                                   // query tokens of a block: 4 vectors
constexpr long STEP = 32;                                // blocks' keys begin and end at multiples: few kinds of products
constexpr float LOG2_E = 1.44269504f;

struct Shape {
    long B, T, H, G, E;
    long row() const { return H * E; }                   // from a token to the next one, in (B, T, H, E)
    long key_row() const { return G * E; }
    long width() const { return (T + M - 1) / M * M; }
};

// Query tokens i to before i + n of a row, and the keys that they see: those from `from` on.
struct Block {
    long i, n, from, keys, J;                            // J: keys, made even
    alignas(64) int32_t first[M] = {}, count[M] = {};    // keys of each token, from `from`; lanes past n see none

    // first_key, end_key (T,): the stretch of keys of each token of the row; null: all keys up to the token itself.
    Block(const Shape& s, long i, const int32_t* first_key, const int32_t* end_key) : i(i), n(std::min(M, s.T - i)) {
        long low = first_key ? i : 0, high = i + n;
        for (long t = i; first_key && t < i + n; t++) {
            low = std::min(low, long(first_key[t]));
            high = std::max(high, long(end_key[t]));
        }
        from = low / STEP * STEP;
        keys = std::min((high + STEP - 1) / STEP * STEP, s.T) - from;
        J = keys + keys % 2;
        for (long t = 0; t < n; t++) {
            first[t] = int32_t((first_key ? first_key[i + t] : 0) - from);
            count[t] = int32_t((end_key ? end_key[i + t] : i + t + 1) - from) - first[t];
        }
    }

    // Which of 16 tokens from lane c on see key j: j - first < count, in numbers without a sign.
    __mmask16 see(long j, long c) const {
        const __m512i place = _mm512_sub_epi32(_mm512_set1_epi32(int(j)), _mm512_load_si512(first + c));
        return _mm512_cmplt_epu32_mask(place, _mm512_load_si512(count + c));
    }

    // The even stretch of keys outside which lanes c to before `to` see none.
    void stretch(long c, long to, long& begin, long& end) const {
        begin = J, end = 0;
        for (long t = c; t < std::min(to, n); t++) {
            begin = std::min(begin, long(first[t]) / 2 * 2);
            end = std::max(end, (first[t] + long(count[t]) + 1) / 2 * 2);
        }
        begin = std::min(begin, end);
    }
};

__m512 exp2_where(__mmask16 seen, __m512 t) { return _mm512_maskz_mov_ps(seen, power_of_2(t)); }

// One vector each of rows begin to before end, `stride` vectors apart, is emptied.
void empty(void* at, long begin, long end, long stride) {
    for (long j = begin; j < end; j++) _mm512_store_si512(static_cast<__m512i*>(at) + j * stride, _mm512_setzero_si512());
}

// X^T (E, M), each token's numbers times its factor, to the rows of X.
void write_turned(const float* turned, const float* factors, long n, long E, long row, uint16_t* to) {
    __m512i two[16];
    for (long t = 0; t < n; t += 16) {
        const __m512 factor = _mm512_load_ps(factors + t);
        for (long e = 0; e < E; e += 32) {
            for (long k = 0; k < 16; k++)
                two[k] = e + 2 * k >= E ? _mm512_setzero_si512() : pairs_of(
                    _mm512_mul_ps(_mm512_load_ps(turned + (e + 2 * k) * M + t), factor),
                    _mm512_mul_ps(_mm512_load_ps(turned + (e + 2 * k + 1) * M + t), factor));
            transpose(two);
            for (long i = t; i < std::min(t + 16, n); i++)
                _mm512_mask_storeu_epi32(to + i * row + e, first_of_16((E - e) / 2), two[i - t]);
        }
    }
}

// sum(x y) of two rows.
float dot(const uint16_t* x, const uint16_t* y, long E) {
    __m512 sum = _mm512_setzero_ps();
    for (long e = 0; e < E; e += 32) {
        const __mmask16 there = first_of_16((E - e) / 2);
        sum = _mm512_dpbf16_ps(sum, __m512bh(_mm512_maskz_loadu_epi32(there, x + e)),
                               __m512bh(_mm512_maskz_loadu_epi32(there, y + e)));
    }
    return _mm512_reduce_add_ps(sum);
}

}  // namespace

// y (B, T, H, E) and, in units of log 2 and of scaled scores, L (B, H, T). q: (B, T, H, E); k, v: (B, T, G, E);
// first_key, end_key: (B, T), or null.
extern "C" void ayllu_attention(const uint16_t* q, const uint16_t* k, const uint16_t* v, const int32_t* first_key,
                                const int32_t* end_key, long B, long T, long H, long G, long E, uint16_t* y,
                                float* log_sums, int threads) {
    const Shape s{B, T, H, G, E};
    const long width = s.width();
#pragma omp parallel num_threads(threads)
    {
        Buffer<float> scores(width * M), out(E * M);
        Buffer<uint32_t> queries(E / 2 * M), p(width / 2 * M);
        Buffer<uint16_t> values(E * width);
        const __m512 factor = _mm512_set1_ps(LOG2_E / std::sqrt(float(E)));
#pragma omp for collapse(2) schedule(static)
        for (long b = 0; b < B; b++)
            for (long g = 0; g < G; g++) {
                const long at = (b * T * G + g) * E;
                turn(v + at, s.key_row(), T, E, width, values.at);
                for (long i = 0; i < T; i += M) {
                    const Block block(s, i, first_key ? first_key + b * T : nullptr, end_key ? end_key + b * T : nullptr);
                    for (long h = g * (H / G); h < (g + 1) * (H / G); h++) {
                        const long here = ((b * T + i) * H + h) * E;
                        alignas(64) float shares[M];
                        float* log_sum = log_sums + (b * H + h) * T + i;
                        pairs_of_features(q + here, s.row(), block.n, E, M, queries.at);
                        brgemm(block.keys, M, E, s.key_row(), M, M, false, low(k + at + block.from * s.key_row()),
                               low(queries.at), scores.at);
                        for (long c = 0; c < M; c += 16) {
                            __m512 top = _mm512_set1_ps(-1e30f), total = _mm512_setzero_ps();
                            long begin, end;
                            block.stretch(c, c + 16, begin, end);
                            for (long j = begin; j < end; j++)
                                top = _mm512_mask_max_ps(top, block.see(j, c), top, _mm512_load_ps(scores.at + j * M + c));
                            top = _mm512_mul_ps(top, factor);
                            empty(p.at + c, 0, begin / 2, M / 16);
                            for (long j = begin; j < end; j += 2) {
                                __m512 e[2];
                                for (long o = 0; o < 2; o++) {
                                    e[o] = exp2_where(block.see(j + o, c), _mm512_fmsub_ps(
                                        _mm512_load_ps(scores.at + (j + o) * M + c), factor, top));
                                    total = _mm512_add_ps(total, e[o]);
                                }
                                _mm512_store_si512(p.at + j / 2 * M + c, pairs_of(e[0], e[1]));
                            }
                            empty(p.at + c, end / 2, block.J / 2, M / 16);
                            alignas(64) float tops[16], totals[16];
                            _mm512_store_ps(tops, top);
                            _mm512_store_ps(totals, total);
                            _mm512_store_ps(shares + c, _mm512_div_ps(_mm512_set1_ps(1), total));
                            for (long t = c; t < std::min(c + 16, block.n); t++)
                                log_sum[t] = tops[t - c] + std::log2(totals[t - c]);
                        }
                        brgemm(E, M, block.J, width, M, M, false, low(values.at + block.from), low(p.at), out.at);
                        write_turned(out.at, shares, block.n, E, s.row(), y + here);
                    }
                }
            }
        at::native::cpublas::brgemm_release();
    }
}

// dq, dk and dv, shaped as q, k and v, from dy, and what the forward pass was given and gave.
extern "C" void ayllu_attention_backward(const uint16_t* q, const uint16_t* k, const uint16_t* v, const uint16_t* y,
                                         const uint16_t* dy, const float* log_sums, const int32_t* first_key,
                                         const int32_t* end_key, long B, long T, long H, long G, long E, uint16_t* dq,
                                         uint16_t* dk, uint16_t* dv, int threads) {
    const Shape s{B, T, H, G, E};
    const long width = s.width();
    const float root = 1 / std::sqrt(float(E));
#pragma omp parallel num_threads(threads)
    {
        Buffer<float> scores(width * M), by_p(width * M), by_k(T * E), by_v(T * E), by_q(E * M);
        Buffer<uint32_t> query_features(E / 2 * M), query_tokens(M / 2 * E), out_features(E / 2 * M),
            out_tokens(M / 2 * E), pairs(width / 2 * M);
        Buffer<uint16_t> keys(E * width), p(width * M), ds(width * M);
        const __m512 factor = _mm512_set1_ps(LOG2_E * root), scale = _mm512_set1_ps(root);
        alignas(64) float ones[M];
        std::fill(ones, ones + M, 1.0f);
#pragma omp for collapse(2) schedule(static)
        for (long b = 0; b < B; b++)
            for (long g = 0; g < G; g++) {
                const long at = (b * T * G + g) * E;
                turn(k + at, s.key_row(), T, E, width, keys.at);
                std::fill(by_k.at, by_k.at + T * E, 0.0f);
                std::fill(by_v.at, by_v.at + T * E, 0.0f);
                for (long i = 0; i < T; i += M) {
                    const Block block(s, i, first_key ? first_key + b * T : nullptr, end_key ? end_key + b * T : nullptr);
                    const long seen = at + block.from * s.key_row(), n = block.n;
                    for (long h = g * (H / G); h < (g + 1) * (H / G); h++) {
                        const long here = ((b * T + i) * H + h) * E;
                        alignas(64) float delta[M] = {}, logs[M] = {};
                        for (long t = 0; t < n; t++) {
                            const long place = here + t * s.row();
                            delta[t] = dot(dy + place, y + place, E);
                            logs[t] = log_sums[(b * H + h) * T + i + t];
                        }
                        pairs_of_features(q + here, s.row(), n, E, M, query_features.at);
                        pairs_of_features(dy + here, s.row(), n, E, M, out_features.at);
                        pairs_of_rows(q + here, s.row(), n, E, M, query_tokens.at);
                        pairs_of_rows(dy + here, s.row(), n, E, M, out_tokens.at);
                        brgemm(block.keys, M, E, s.key_row(), M, M, false, low(k + seen), low(query_features.at), scores.at);
                        brgemm(block.keys, M, E, s.key_row(), M, M, false, low(v + seen), low(out_features.at), by_p.at);
                        for (long c = 0; c < M; c += 32) {
                            long begin, end;
                            block.stretch(c, c + 32, begin, end);
                            for (auto [from, to] : {std::pair(0L, begin), std::pair(end, block.J)}) {
                                empty(p.at + c, from, to, M / 32);
                                empty(ds.at + c, from, to, M / 32);
                                empty(pairs.at + c, from / 2, to / 2, M / 16);
                                empty(pairs.at + c + 16, from / 2, to / 2, M / 16);
                            }
                            for (long j = begin; j < end; j += 2) {
                                __m512 e[2][2], d[2][2];
                                for (long o = 0; o < 2; o++) {
                                    for (long l = 0; l < 2; l++) {
                                        const long lane = c + 16 * l, cell = (j + o) * M + lane;
                                        const __mmask16 sees = block.see(j + o, lane);
                                        e[o][l] = exp2_where(sees, _mm512_fmsub_ps(
                                            _mm512_load_ps(scores.at + cell), factor, _mm512_load_ps(logs + lane)));
                                        d[o][l] = _mm512_maskz_mul_ps(sees, _mm512_mul_ps(e[o][l], scale), _mm512_sub_ps(
                                            _mm512_load_ps(by_p.at + cell), _mm512_load_ps(delta + lane)));
                                    }
                                    _mm512_store_si512(p.at + (j + o) * M + c,
                                                       __m512i(_mm512_cvtne2ps_pbh(e[o][1], e[o][0])));
                                    _mm512_store_si512(ds.at + (j + o) * M + c,
                                                       __m512i(_mm512_cvtne2ps_pbh(d[o][1], d[o][0])));
                                }
                                for (long l = 0; l < 2; l++)
                                    _mm512_store_si512(pairs.at + j / 2 * M + c + 16 * l, pairs_of(d[0][l], d[1][l]));
                            }
                        }
                        brgemm(block.keys, E, M, M, E, E, true, low(p.at), low(out_tokens.at), by_v.at + block.from * E);
                        brgemm(block.keys, E, M, M, E, E, true, low(ds.at), low(query_tokens.at), by_k.at + block.from * E);
                        brgemm(E, M, block.J, width, M, M, false, low(keys.at + block.from), low(pairs.at), by_q.at);
                        write_turned(by_q.at, ones, n, E, s.row(), dq + here);
                    }
                }
                for (long t = 0; t < T; t++)
                    for (long e = 0; e < E; e++) {
                        dk[at + t * s.key_row() + e] = narrow(by_k.at[t * E + e]);
                        dv[at + t * s.key_row() + e] = narrow(by_v.at[t * E + e]);
                    }
            }
        at::native::cpublas::brgemm_release();
    }
}
