// The head's product, its cross-entropy and both gradients in one sweep over the vocabulary (head.py has the face).
//
//   S = x W^T        logits of a tile of tokens and a block of ids, which never leave the cache
//   P = exp(S - r)   r: the logit of the token's own label, known before: no pass for the maximum is needed
//   dx += P W        while P is at hand
// and for a chunk of tokens, when Z = sum(P) is known: dW^T += (x weight / Z)^T P, the only time P is read again.
// The label's own share, p - 1, is added apart in float32. brgemm is oneDNN's kernel for blocks that lie in the cache:
// its second factor holds two rows interleaved, (K / 2, N, 2), and all large factors are read as they lie.
//
// N tokens  C of a chunk  D width  V ids
#include "numbers.h"

#include <ATen/native/CPUBlas.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <vector>

using at::native::cpublas::brgemm;

namespace {

constexpr long TILE = 32;                                // tokens that go through the sweep together
constexpr long BLOCK = 512;                              // ids whose logits exist at once
constexpr long STRIP = 64;                               // ids whose gradient is formed at once
constexpr float LOG2_E = 1.44269504f;

struct Head {
    const uint16_t *x, *w;                               // (N, D), (V, D)
    const int64_t* labels;
    const float* weights;
    float z_loss;
    long N, D, V, C;
    float *each, *dx, *dw;                               // (N,), (N, D) or null, (V, D) or null
};

struct Row {                                             // a token's state through the sweep
    float reference, sum, own;                           // own: the label's logit as the product has it
};

// Memory for the large parts of a sweep, kept for the next one: the system would have to empty new pages each time.
template <typename T> T* kept(int part, long n) {
    thread_local std::map<int, std::pair<long, std::unique_ptr<Buffer<T>>>> parts;
    auto& [size, buffer] = parts[part];
    if (size < n) {
        buffer.reset();
        buffer = std::make_unique<Buffer<T>>(n);
        size = n;
    }
    return buffer->at;
}

// W in the two forms that a second factor has, by blocks of ids: (D / 2, m, 2) and (m / 2, D, 2); ids past V are zeros.
void pack(const Head& h, long v, long m, uint32_t* by_width, uint32_t* by_id) {
    const auto* w = reinterpret_cast<const uint32_t*>(h.w);
    for (long k = 0; k < m; k += 16)
        for (long d = 0; d < h.D / 2; d++)
            for (long i = k; i < k + 16; i++) by_width[d * m + i] = v + i < h.V ? w[(v + i) * h.D / 2 + d] : 0;
    if (!h.dx) return;
    for (long k = 0; k < m; k += 2)
        for (long d = 0; d < h.D; d++) {
            const uint32_t one = v + k < h.V ? h.w[(v + k) * h.D + d] : 0;
            const uint32_t two = v + k + 1 < h.V ? h.w[(v + k + 1) * h.D + d] : 0;
            by_id[k / 2 * h.D + d] = one | two << 16;
        }
}

// The label's logit by hand.
float reference(const Head& h, long n) {
    const uint16_t *x = h.x + n * h.D, *w = h.w + h.labels[n] * h.D;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long d = 0; d < h.D; d++) sum += wide(x[d]) * wide(w[d]);
    return sum;
}

// Two rows of S (2, m) to P, as they lie and interleaved by strips; what they sum to.
void powers(const float* __restrict s, long m, Row* two, uint16_t* __restrict rows, uint32_t* __restrict pairs,
            long strip) {
    const __m512 factor = _mm512_set1_ps(LOG2_E);
    const __m512 r[2] = {_mm512_set1_ps(two[0].reference * LOG2_E), _mm512_set1_ps(two[1].reference * LOG2_E)};
    __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()}, e[2][2];
    for (long v = 0; v < m; v += 32) {
        for (int i = 0; i < 2; i++) {
            for (int k = 0; k < 2; k++) {
                e[i][k] = power_of_2(_mm512_fmsub_ps(_mm512_load_ps(s + i * m + v + 16 * k), factor, r[i]));
                sum[i] = _mm512_add_ps(sum[i], e[i][k]);
            }
            _mm512_store_si512(rows + i * m + v, __m512i(_mm512_cvtne2ps_pbh(e[i][1], e[i][0])));
        }
        for (int k = 0; k < 2; k++)
            _mm512_store_si512(pairs + v / STRIP * strip + v % STRIP + 16 * k, pairs_of(e[0][k], e[1][k]));
    }
    for (int i = 0; i < 2; i++) two[i].sum += _mm512_reduce_add_ps(sum[i]);
}

// P of the label is emptied, for `finish` adds its gradient.
void take_label(const Head& h, long n, long v, long m, const float* s, Row& row, uint16_t* p, uint16_t* pairs,
                long strip) {
    const long label = h.labels[n] - v;
    if (label < 0 || label >= m) return;
    row.own = s[label];
    p[label] = 0;
    pairs[(label / STRIP * strip + label % STRIP) * 2 + n % 2] = 0;
}

// The loss, dx, and what dW needs: the factor of the token's row of P, and of the label's own row.
bool finish(const Head& h, long n, const Row& row, const float* by_x, float& scale, float& label) {
    const float log_z = std::log(row.sum) + row.reference, growth = 1 + 2 * h.z_loss * log_z;
    h.each[n] = h.weights[n] * (log_z - row.own + h.z_loss * log_z * log_z);
    scale = h.weights[n] * growth / row.sum;
    label = h.weights[n] * (growth * std::exp(row.own - row.reference) / row.sum - 1);
    if (h.dx) {
        const uint16_t* w = h.w + h.labels[n] * h.D;
        for (long d = 0; d < h.D; d++) h.dx[n * h.D + d] = scale * by_x[d] + label * wide(w[d]);
    }
    return row.sum < 1e30f;
}

// dW's strip (D, STRIP), turned, and the labels' own rows.
void turn(const Head& h, long v, const float* strip) {
    for (long d = 0; d < h.D; d += 16)
        for (long i = v; i < std::min(v + STRIP, h.V); i++)
            for (long k = d; k < std::min(d + 16, h.D); k++) h.dw[i * h.D + k] = strip[k * STRIP + i - v];
}

}  // namespace

// 0: done; 1: a logit lies so far above its label's that float32 can't hold it: the caller takes another way.
extern "C" int ayllu_head_loss(const uint16_t* x, const uint16_t* w, const int64_t* labels, const float* weights,
                               float z_loss, long N, long D, long V, long C, float* each, float* dx, float* dw,
                               int threads) {
    const Head h{x, w, labels, weights, z_loss, N, D, V, C, each, dx, dw};
    const long padded = (V + STRIP - 1) / STRIP * STRIP, strip = C / 2 * STRIP;
    auto *by_width = kept<uint32_t>(0, D / 2 * padded), *by_id = kept<uint32_t>(1, dx ? padded / 2 * D : 1);
    auto* pairs = kept<uint32_t>(2, padded / STRIP * strip);
    auto* turned = kept<float>(0, dw ? padded * D : 1);
    Buffer<uint16_t> scaled(D * C), rows((N + TILE) * D);
    Buffer<float> by_x(C * D), scale(C), label(N);
    std::vector<Row> state(C);
    std::memcpy(rows.at, x, N * D * 2);
    std::memset(rows.at + N * D, 0, TILE * D * 2);       // tokens past the end: rows of zeros, weighted with zero
    bool fits = true;
#pragma omp parallel num_threads(threads)
    {
        Buffer<float> s(TILE * BLOCK);
        Buffer<uint16_t> p(TILE * BLOCK);
        const long me = omp_get_thread_num(), all = omp_get_num_threads();
#pragma omp for schedule(static)
        for (long v = 0; v < padded; v += BLOCK)
            pack(h, v, std::min(BLOCK, padded - v), by_width + v * D / 2, by_id + v * D / 2);
        for (long first = 0; first < N; first += C) {
            const long here = std::min(C, N - first), used = (here + TILE - 1) / TILE;
            const long from = used * me / all * TILE, to = used * (me + 1) / all * TILE, end = std::min(to, here);
            for (long t = from; t < to; t++) state[t] = {t < end ? reference(h, first + t) : 0, 0, 0};
            for (long v = 0; v < padded; v += BLOCK) {
                const long m = std::min(BLOCK, padded - v);
                for (long t = from; t < to; t += TILE) {
                    auto* strips = pairs + v / STRIP * strip + t / 2 * STRIP;
                    brgemm(TILE, m, D, D, m, m, false, low(rows.at + (first + t) * D), low(by_width + v * D / 2), s.at);
                    for (long i = 0; v + m > V && i < TILE; i++)             // no such ids: exp is 0
                        std::fill(s.at + i * m + V - v, s.at + (i + 1) * m, -1e30f);
                    for (long i = 0; i < TILE; i += 2) {
                        auto* two = strips + i / 2 * STRIP;
                        powers(s.at + i * m, m, &state[t + i], p.at + i * m, two, strip);
                        for (long k = i; k < std::min(i + 2, end - t); k++)
                            take_label(h, first + t + k, v, m, s.at + k * m, state[t + k], p.at + k * m,
                                       reinterpret_cast<uint16_t*>(two), strip);
                    }
                    if (dx)
                        brgemm(TILE, D, m, m, D, D, v > 0, low(p.at), low(by_id + v * D / 2), by_x.at + t * D);
                }
            }
            for (long t = from; t < end; t++)
                if (!finish(h, first + t, state[t], by_x.at + t * D, scale.at[t], label.at[first + t])) fits = false;
            if (!dw) continue;
            for (long t = from; t < to; t++)
                for (long d = 0; d < D; d++)
                    scaled.at[d * C + t] = t < end ? narrow(scale.at[t] * wide(x[(first + t) * D + d])) : 0;
#pragma omp barrier
#pragma omp for schedule(static)
            for (long v = 0; v < padded; v += STRIP) {
                brgemm(D, STRIP, used * TILE, C, STRIP, STRIP, first > 0, low(scaled.at), low(pairs + v / STRIP * strip),
                       turned + v * D);
                if (first + C >= N) turn(h, v, turned + v * D);
            }
        }
        at::native::cpublas::brgemm_release();
    }
    for (long n = 0; dw && n < N; n++)
        for (long d = 0; d < D; d++) dw[labels[n] * D + d] += label.at[n] * wide(x[n * D + d]);
    return fits ? 0 : 1;
}
