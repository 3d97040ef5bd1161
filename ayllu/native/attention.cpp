// Causal attention and its backward pass in bfloat16 (attention.py has the face).
//
// One row and head at a time, by blocks of query tokens. Products lie transposed, one query token to a lane, so that
// softmax's sums run down and not across vectors, and what one product gives is what the next one reads:
//   S^T = K Q^T, P^T = exp(S^T / sqrt(E) - L)                 L: log of the sum of exp, kept by the forward pass
//   dP^T = V dY^T, dS^T = P^T (dP^T - delta) / sqrt(E)        delta: sum(dY Y) of each query token
//   dV += P^T dY, dK += dS^T Q, dQ^T = K^T dS^T               (FlashAttention-2, arXiv:2307.08691, algorithm 2)
//
// B rows  T tokens  H heads  E head width  M query tokens of a block  J key tokens that a block sees
#include "numbers.h"

#include <ATen/native/CPUBlas.h>
#include <omp.h>

#include <algorithm>
#include <cmath>

using at::native::cpublas::brgemm;

namespace {

constexpr long M = 64;                                   // query tokens of a block: 4 vectors
constexpr float LOG2_E = 1.44269504f;

struct Shape {
    long B, T, H, E;
    long row() const { return H * E; }                   // from a token to the next one, in (B, T, H, E)
};

// Which of 16 query tokens from `query` on see key `key`.
__mmask16 sees(long key, long query) {
    const long hidden = key - query;                     // lanes before this one lie before the key
    return hidden <= 0 ? 0xffff : hidden >= 16 ? 0 : __mmask16(0xffff << hidden);
}

__m512 exp2_where(__mmask16 seen, __m512 t) { return _mm512_maskz_mov_ps(seen, power_of_2(t)); }

// Y^T's block (E, M) to rows of Y, divided by the sums; L of each token.
void write_out(const float* turned_y, const float* largest, const float* sum, const Shape& s, long n, uint16_t* y,
               float* log_sum) {
    for (long t = 0; t < n; t++) {
        log_sum[t] = largest[t] + std::log2(sum[t]);
        for (long e = 0; e < s.E; e++) y[t * s.row() + e] = narrow(turned_y[e * M + t] / sum[t]);
    }
}

}  // namespace

// y (B, T, H, E) and, in units of log 2 and of scaled scores, L (B, H, T). q, k, v: (B, T, H, E).
extern "C" void ayllu_attention(const uint16_t* q, const uint16_t* k, const uint16_t* v, long B, long T, long H, long E,
                                uint16_t* y, float* log_sums, int threads) {
    const Shape s{B, T, H, E};
    const long width = (T + M - 1) / M * M;
    const float scale = LOG2_E / std::sqrt(float(E));
#pragma omp parallel num_threads(threads)
    {
        Buffer<float> scores(width * M), out(E * M);
        Buffer<uint32_t> queries(E / 2 * M), p(width / 2 * M);
        Buffer<uint16_t> values(E * width);
        const __m512 factor = _mm512_set1_ps(scale);
#pragma omp for collapse(2) schedule(static)
        for (long b = 0; b < B; b++)
            for (long h = 0; h < H; h++) {
                const long at = (b * T * H + h) * E;
                turn(v + at, s.row(), T, E, width, values.at);
                for (long i = 0; i < T; i += M) {
                    const long n = std::min(M, T - i), J = i + n + (i + n) % 2;
                    alignas(64) float largest[M], sum[M];
                    pairs_of_features(q + at + i * s.row(), s.row(), n, E, M, queries.at);
                    brgemm(i + n, M, E, s.row(), M, M, false, low(k + at), low(queries.at), scores.at);
                    for (long c = 0; c < M; c += 16) {
                        __m512 top = _mm512_set1_ps(-1e30f), total = _mm512_setzero_ps();
                        for (long j = 0; j < i + n; j++)
                            top = _mm512_mask_max_ps(top, sees(j, i + c), top, _mm512_load_ps(scores.at + j * M + c));
                        top = _mm512_mul_ps(top, factor);
                        for (long j = 0; j < J; j += 2) {
                            __m512 e[2];
                            for (long o = 0; o < 2; o++) {
                                e[o] = j + o < i + n ? exp2_where(sees(j + o, i + c), _mm512_fmsub_ps(
                                    _mm512_load_ps(scores.at + (j + o) * M + c), factor, top)) : _mm512_setzero_ps();
                                total = _mm512_add_ps(total, e[o]);
                            }
                            _mm512_store_si512(p.at + j / 2 * M + c, pairs_of(e[0], e[1]));
                        }
                        _mm512_store_ps(largest + c, top);
                        _mm512_store_ps(sum + c, total);
                    }
                    brgemm(E, M, J, width, M, M, false, low(values.at), low(p.at), out.at);
                    write_out(out.at, largest, sum, s, n, y + at + i * s.row(), log_sums + (b * H + h) * T + i);
                }
            }
        at::native::cpublas::brgemm_release();
    }
}

// dq, dk and dv (B, T, H, E) from dy, and what the forward pass gave.
extern "C" void ayllu_attention_backward(const uint16_t* q, const uint16_t* k, const uint16_t* v, const uint16_t* y,
                                         const uint16_t* dy, const float* log_sums, long B, long T, long H, long E,
                                         uint16_t* dq, uint16_t* dk, uint16_t* dv, int threads) {
    const Shape s{B, T, H, E};
    const long width = (T + M - 1) / M * M;
    const float root = 1 / std::sqrt(float(E));
#pragma omp parallel num_threads(threads)
    {
        Buffer<float> scores(width * M), by_p(width * M), by_k(T * E), by_v(T * E), by_q(E * M);
        Buffer<uint32_t> query_features(E / 2 * M), query_tokens(M / 2 * E), out_features(E / 2 * M),
            out_tokens(M / 2 * E), pairs(width / 2 * M);
        Buffer<uint16_t> keys(E * width), p(width * M), ds(width * M);
        const __m512 factor = _mm512_set1_ps(LOG2_E * root), scale = _mm512_set1_ps(root);
#pragma omp for collapse(2) schedule(static)
        for (long b = 0; b < B; b++)
            for (long h = 0; h < H; h++) {
                const long at = (b * T * H + h) * E;
                const float* log_sum = log_sums + (b * H + h) * T;
                turn(k + at, s.row(), T, E, width, keys.at);
                for (long block = (T - 1) / M; block >= 0; block--) {    // the last sees all keys: it begins their sums
                    const long i = block * M, n = std::min(M, T - i), J = i + n + (i + n) % 2;
                    const bool adds = i + n < T;
                    alignas(64) float delta[M] = {}, logs[M] = {};
                    for (long t = 0; t < n; t++) {
                        const long place = at + (i + t) * s.row();
                        float sum = 0;
#pragma omp simd reduction(+ : sum)
                        for (long e = 0; e < E; e++) sum += wide(dy[place + e]) * wide(y[place + e]);
                        delta[t] = sum;
                        logs[t] = log_sum[i + t];
                    }
                    pairs_of_features(q + at + i * s.row(), s.row(), n, E, M, query_features.at);
                    pairs_of_features(dy + at + i * s.row(), s.row(), n, E, M, out_features.at);
                    pairs_of_rows(q + at + i * s.row(), s.row(), n, E, M, query_tokens.at);
                    pairs_of_rows(dy + at + i * s.row(), s.row(), n, E, M, out_tokens.at);
                    brgemm(i + n, M, E, s.row(), M, M, false, low(k + at), low(query_features.at), scores.at);
                    brgemm(i + n, M, E, s.row(), M, M, false, low(v + at), low(out_features.at), by_p.at);
                    for (long j = 0; j < J; j += 2)
                        for (long c = 0; c < M; c += 32) {
                            __m512 e[2][2], d[2][2];
                            for (long o = 0; o < 2; o++) {
                                for (long l = 0; l < 2; l++) {
                                    const long lane = c + 16 * l, cell = (j + o) * M + lane;
                                    const __mmask16 seen = j + o < i + n ? sees(j + o, i + lane) : 0;
                                    e[o][l] = exp2_where(seen, _mm512_fmsub_ps(_mm512_load_ps(scores.at + cell), factor,
                                                                               _mm512_load_ps(logs + lane)));
                                    d[o][l] = _mm512_maskz_mul_ps(seen, _mm512_mul_ps(e[o][l], scale), _mm512_sub_ps(
                                        _mm512_load_ps(by_p.at + cell), _mm512_load_ps(delta + lane)));
                                }
                                _mm512_store_si512(p.at + (j + o) * M + c, __m512i(_mm512_cvtne2ps_pbh(e[o][1], e[o][0])));
                                _mm512_store_si512(ds.at + (j + o) * M + c, __m512i(_mm512_cvtne2ps_pbh(d[o][1], d[o][0])));
                            }
                            for (long l = 0; l < 2; l++)
                                _mm512_store_si512(pairs.at + j / 2 * M + c + 16 * l, pairs_of(d[0][l], d[1][l]));
                        }
                    brgemm(i + n, E, M, M, E, E, adds, low(p.at), low(out_tokens.at), by_v.at);
                    brgemm(i + n, E, M, M, E, E, adds, low(ds.at), low(query_tokens.at), by_k.at);
                    brgemm(E, M, J, width, M, M, false, low(keys.at), low(pairs.at), by_q.at);
                    for (long t = 0; t < n; t++)
                        for (long e = 0; e < E; e++) dq[at + (i + t) * s.row() + e] = narrow(by_q.at[e * M + t]);
                }
                for (long t = 0; t < T; t++)
                    for (long e = 0; e < E; e++) {
                        dk[at + t * s.row() + e] = narrow(by_k.at[t * E + e]);
                        dv[at + t * s.row() + e] = narrow(by_v.at[t * E + e]);
                    }
            }
        at::native::cpublas::brgemm_release();
    }
}
