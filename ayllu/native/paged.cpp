// Attention of single tokens over pages (paged.h: how; paged.py has the face), a token and a head of keys to a thread.
#include "paged.h"

namespace {

template <typename X, typename T>
void attend(const X* q, const X* k, const X* v, const long* strides, Pages<T> pages, const int64_t* slots,
            const int32_t* tokens, const int32_t* tables, long n_tokens, long n_slots, long H, long window, X* y,
            int threads) {
    const Attention<X, T> attention{pages, H};
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<float> query(H * pages.E), sums(H * pages.E);
#pragma omp for schedule(static)
        for (long i = 0; i < n_slots; i++) keep_token(k + i * strides[1], v + i * strides[2], pages, slots[i]);
#pragma omp for collapse(2) schedule(dynamic)
        for (long i = 0; i < n_tokens; i++)
            for (long g = 0; g < pages.G; g++) {
                const int32_t* told = tokens + 3 * i;    // which of the N, its position, where its pages begin
                const Token token{tables + told[2], told[1], first_seen(told[1], window)};
                attention(token, g, q + told[0] * strides[0], y + told[0] * H * pages.E, query.data(), sums.data());
            }
    }
}

}  // namespace

// Writes k and v (n_slots, G, E) to `slots`, then y (N, H, E) for the `tokens` (n_tokens, 3). X: q, k, v and y are
// bfloat16 or float32; T: so is what lies in pages, or it is bytes. strides: from a token to the next one of q, k and v.
#define FACE(NAME, X, T)                                                                                               \
    extern "C" void NAME(const X* q, const X* k, const X* v, const long* strides, T* keys, T* values,                 \
                         float* key_scales, float* value_scales, const int64_t* slots, const int32_t* tokens,          \
                         const int32_t* tables, const long* sizes, X* y, int threads) {                                \
        const auto [n_tokens, n_slots, H, G, E, size, window] = reinterpret_cast<const long(&)[7]>(*sizes);            \
        attend(q, k, v, strides, Pages<T>{keys, values, key_scales, value_scales, G, E, size}, slots, tokens, tables,  \
               n_tokens, n_slots, H, window, y, threads);                                                              \
    }
FACE(ayllu_paged_bfloat16, Bf, Bf)
FACE(ayllu_paged_float32, float, float)
FACE(ayllu_paged_bfloat16_int8, Bf, int8_t)
FACE(ayllu_paged_float32_int8, float, int8_t)
