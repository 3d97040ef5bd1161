// Drawing one id for each row of logits, by temperature, top-k, top-p, min-p and one uniform number (draw.py has the
// face). The filters are those of ayllu/model/sample.py, in its order. Each row is computed alone, in one order.
//
// R rows  V vocabulary
#include "vectors.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace {

using Vector = V;                                        // V is the vocabulary here

struct Row {
    long V;
    std::vector<float> x, mass, some;                    // logits over temperature, exp(x - top), what may be kept
    float top = 0;

    explicit Row(long V) : V(V), x(V + W), mass(V + W) {}

    template <typename X> void read_from(const X* logits, float temperature) {
        top = -INFINITY;
        for (long v = 0; v < V; v++) {
            x[v] = one(logits + v) / temperature;
            top = x[v] > top ? x[v] : top;
        }
        std::fill(x.begin() + V, x.end(), -INFINITY);    // to whole vectors
    }

    // exp(x - top) where x is at least `low`; gives their sum.
    double weigh(float low) {
        double total = 0;
        for (long v = 0; v < V; v += W) {
            const Vector now = load(x.data() + v), e = now >= low ? exponential(now - top) : Vector{};
            store(mass.data() + v, e);
            total += sum(e);
        }
        return total;
    }

    // The k-th largest. `some` holds what is above a bar that rises.
    float largest(long k) {
        float bar = -INFINITY;
        some.clear();
        for (long v = 0; v < V; v += W) {
            if (!any(load(x.data() + v) > bar)) continue;
            for (long i = v; i < std::min(v + W, V); i++)
                if (x[i] > bar) some.push_back(x[i]);
            if (long(some.size()) >= 2 * k + 64) {
                std::nth_element(some.begin(), some.begin() + k - 1, some.end(), std::greater<>());
                some.resize(k);
                bar = some[k - 1];
            }
        }
        if (long(some.size()) < k) return -INFINITY;
        std::nth_element(some.begin(), some.begin() + k - 1, some.end(), std::greater<>());
        return some[k - 1];
    }

    // The last of the fewest largest whose masses reach p of those from `low` on. Few are sorted: those above the first
    // level, as a part of the largest mass, from which on enough mass lies.
    float nucleus(float p, float low) {
        const double wanted = p * weigh(low);
        for (float level : {1.0f / 4, 1.0f / 16, 1.0f / 64, 1.0f / 256, 1.0f / 1024, 0.0f}) {
            double above = 0;
            for (long v = 0; v < V; v += W) {
                const Vector e = load(mass.data() + v);
                above += sum(e >= level ? e : Vector{});
            }
            if (above <= wanted && level > 0) continue;
            some.clear();
            for (long v = 0; v < V; v += W)
                if (any(load(mass.data() + v) >= level))
                    for (long i = v; i < std::min(v + W, V); i++)
                        if (mass[i] >= level && x[i] >= low) some.push_back(x[i]);
            break;
        }
        std::sort(some.begin(), some.end(), std::greater<>());
        double before = 0;
        size_t n = 0;
        for (; n < some.size() && before < wanted; n++) before += exponential(all(some[n] - top))[0];
        return n ? some[n - 1] : low;
    }

    // The first id up to which more than `u` of the mass lies.
    long draw(float low, double u) {
        const double target = u * weigh(low);
        double before = 0;
        long last = 0;
        for (long v = 0; v < V; v += W) {
            const double here = sum(load(mass.data() + v));
            if (before + here <= target) {
                before += here;
                continue;
            }
            for (long i = v; i < std::min(v + W, V); i++) {
                before += mass[i];
                if (mass[i] > 0) last = i;
                if (before > target) return i;
            }
        }
        return last;
    }
};

template <typename X>
void draw(const X* logits, const float* settings, const double* u, long R, long V, int64_t* ids, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Row row(V);
#pragma omp for schedule(dynamic)
        for (long r = 0; r < R; r++) {
            const float *set = settings + 4 * r, p = set[2], least = set[3];
            const long k = long(set[1]);
            row.read_from(logits + r * V, set[0]);
            float low = k > 0 ? row.largest(std::min(k, V)) : -INFINITY;
            if (p < 1) low = std::max(low, row.nucleus(p, low));
            if (least > 0) low = std::max(low, row.top + std::log(least));
            ids[r] = row.draw(low, u[r]);
        }
    }
}

}  // namespace

// ids (R,) from logits (R, V); settings (R, 4): temperature, top-k (0: all), top-p (1: all), min-p (0: all).
#define FACE(NAME, X)                                                                                                  \
    extern "C" void ayllu_draw_##NAME(const X* logits, const float* settings, const double* u, long R, long V,         \
                                      int64_t* ids, int threads) {                                                     \
        draw(logits, settings, u, R, V, ids, threads);                                                                 \
    }
FACE(bfloat16, Bf)
FACE(float32, float)
