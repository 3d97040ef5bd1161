// The gradient of a linear layer's weight in bfloat16 (linear.py has the face): dW = dY^T x. dY^T is turned and x is
// packed chunk by chunk in the cache; torch's product has a transposed factor there, which costs it half its speed.
//
// N tokens  I numbers in  O numbers out
#include "numbers.h"

#include <ATen/native/CPUBlas.h>
#include <omp.h>

#include <algorithm>

using at::native::cpublas::brgemm;

namespace {

constexpr long BLOCK = 64;                               // rows of dW that are formed at once
constexpr long CHUNK = 512;                              // tokens that lie in the cache

void store(const float* from, long n, uint16_t* to) {
    for (long i = 0; i < n; i += 16) {
        const __mmask16 there = n - i >= 16 ? 0xffff : __mmask16((1 << (n - i)) - 1);
        const __m512 sum = _mm512_maskz_loadu_ps(there, from + i);
        _mm256_mask_storeu_epi16(to + i, there, __m256i(_mm512_cvtneps_pbh(sum)));
    }
}

}  // namespace

// dw (O, I) from dy (N, O) and x (N, I), summed in float32.
extern "C" void ayllu_weight_gradient(const uint16_t* dy, const uint16_t* x, long N, long I, long O, uint16_t* dw,
                                      int threads) {
#pragma omp parallel num_threads(threads)
    {
        const long blocks = (O + BLOCK - 1) / BLOCK, me = omp_get_thread_num(), all = omp_get_num_threads();
        const long from = blocks * me / all * BLOCK, rows = std::min(blocks * (me + 1) / all * BLOCK, O) - from;
        if (rows > 0) {
            Buffer<uint32_t> tokens(CHUNK / 2 * I);
            Buffer<uint16_t> turned(rows * CHUNK);
            Buffer<float> sum(rows * I);
            for (long n = 0; n < N; n += CHUNK) {
                const long here = std::min(CHUNK, N - n), width = (here + 15) / 16 * 16;
                pairs_of_rows(x + n * I, I, here, I, width, tokens.at);
                turn(dy + n * O + from, O, here, rows, width, turned.at);
                for (long o = 0; o < rows; o += BLOCK)
                    brgemm(std::min(BLOCK, rows - o), I, width, width, I, I, n > 0, low(turned.at + o * width),
                           low(tokens.at), sum.at + o * I);
            }
            store(sum.at, rows * I, dw + from * I);
        }
        at::native::cpublas::brgemm_release();
    }
}
