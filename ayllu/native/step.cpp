// One step of a Llama over bfloat16 weights in one call: all layers for the new tokens of any rows, and the head
// (step.py has the face). Results are rounded where torch's operations round theirs. A token's bits depend neither on
// the others nor on how many there are.
//
// N tokens  D width  F feed-forward width  H heads  G heads of keys  E head width  V vocabulary
#include "crew.h"
#include "lora.h"
#ifdef __AMX_BF16__
#include "mix_tiles.h"
#endif
#include "paged.h"
#include "pointwise.h"
#include "products.h"

#include <memory>

namespace {

struct Layer {
    const Bf *attention_norm, *ffn_norm;                 // (D,)
    Matrix qkv, wo, w13, w2;                             // w13: 32 columns of w1, then the same of w3, and so on
    void *keys, *values;                                 // (pages, size, G, E)
    float *key_scales, *value_scales;                    // (pages, size, G) where keys and values are bytes, else null
    long window;                                         // or 0
};

struct Shape {
    long layers, D, F, H, G, E, size;                    // size: of a page
    float eps;
    const Bf *embedding, *norm;                          // (V, D), (D,)
};

struct Tokens {
    long N;
    const int64_t *ids, *positions, *slots;              // (N,)
    const int32_t *begins, *tables;                      // (N,): where in the tables the pages of a token's row begin
    const Bf *cos, *sin;                                 // (positions, E)
    const Pair* pairs;                                   // of the loaded adapters, or null
    const int32_t* owners;                               // (N,): whose token it is (lora.h)
};

// Room for N tokens, up to a multiple of 32.
struct Room {
    Bf *x, *h, *qkv, *y, *gated;                         // (N, D), (N, D), (N, (H + 2 G) E), (N, H E), (N, F)
    Bf* both;                                            // (N, 2 F), in w13's order of columns, where adapters are used
};

thread_local std::unique_ptr<Tools> tools;

Crew& crew() {
    static Crew* one = new Crew([] { tools = std::make_unique<Tools>(); }, [] { tools.reset(); });   // never ends
    return *one;
}

// y (N, O) = x (N, K) times a matrix, plus `more` (N, O).
void multiply(Crew::Step& step, const Bf* x, long N, const Matrix& m, const Bf* more, Bf* y) {
    const Factor rows(x, N, m.K);
    step.share(m.units(), [&](long unit) {
        product(rows, N, m, unit, [&](long row, long column, const float* sums) {
            for (long c = 0; c < UNIT && column + c < m.O; c += W) {
                const long at = row * m.O + column + c, n = m.O - column - c;
                V sum = with_bias(m, column + c, n, sums + c);
                if (more) sum += part(more + at, 0, n);
                put(y + at, 0, n, sum);
            }
        });
    });
}

// y (N, F) = silu(x w1) * (x w3).
void multiply_gated(Crew::Step& step, const Bf* x, long N, const Matrix& m, Bf* y) {
    const Factor rows(x, N, m.K);
    step.share(m.units(), [&](long unit) {
        product(rows, N, m, unit, [&](long row, long column, const float* sums) {
            for (long c = 0; c < UNIT / 2; c += W) {
                const long n = m.O - column - c;
                const V g = rounded<Bf>(with_bias(m, column + c, n, sums + c));
                const V u = rounded<Bf>(with_bias(m, column + UNIT / 2 + c, n, sums + UNIT / 2 + c));
                store(y + row * (m.O / 2) + column / 2 + c, gated<Bf>(g, u));
            }
        });
    });
}

// y (N, F) of both (N, 2 F), whose columns stand as those of w13 do.
void gate(const Bf* both, long N, long F, Bf* y) {
    for (long i = 0; i < N * F; i += W) {
        const Bf* g = both + i / (UNIT / 2) * UNIT + i % (UNIT / 2);
        store(y + i, gated<Bf>(load(g), load(g + UNIT / 2)));
    }
}

#ifdef __AMX_BF16__
// Tokens that follow one another in a row, as many as are computed together.
std::vector<Group> groups(const Tokens& t, long most) {
    std::vector<Group> found;
    for (long i = 0; i < t.N; i++) {
        const bool follows = i && t.begins[i] == t.begins[i - 1] && t.positions[i] == t.positions[i - 1] + 1;
        if (follows && found.back().n < most) found.back().n++;
        else found.push_back({i, 1});
    }
    return found;
}

template <long E>
void mix(Crew::Step& step, const Pages<Bf>& pages, const Shape& s, const Layer& l, const Tokens& t, const Room& room) {
    const TileMix<E> mixed(pages, s.H);
    const std::vector<Group> all = groups(t, mixed.tokens());
    const long width = (s.H + 2 * s.G) * s.E;
    step.share(long(all.size()) * s.G, [&](long at) {
        const auto [i, n] = all[at / s.G];
        mixed(t.tables + t.begins[i], t.positions[i], n, l.window, at % s.G, room.qkv + i * width, width,
              room.y + i * s.H * s.E);
    });
}

#endif

template <typename T> void attend(Crew::Step& step, const Shape& s, const Layer& l, const Tokens& t, const Room& room) {
    const Pages<T> pages{(T*)l.keys, (T*)l.values, l.key_scales, l.value_scales, s.G, s.E, s.size};
    const Attention<Bf, T> attention{pages, s.H};
    const long width = (s.H + 2 * s.G) * s.E;
    for (long i = 0; i < t.N; i++) {
        Bf *q = room.qkv + i * width, *k = q + s.H * s.E;
        turn_token(q, t.cos + t.positions[i] * s.E, t.sin + t.positions[i] * s.E, s.H + s.G, s.E);
        keep_token(k, k + s.G * s.E, pages, t.slots[i]);
    }
#ifdef __AMX_BF16__
    if constexpr (std::is_same_v<T, Bf>)
        if (fits_tiles(pages)) return (s.E == 64 ? mix<64> : mix<0>)(step, pages, s, l, t, room);
#endif
    step.share(t.N * s.G, [&](long at) {
        const long i = at / s.G, g = at % s.G, position = t.positions[i];
        thread_local std::vector<float> some;
        some.resize(2 * s.H * s.E);
        attention(Token{t.tables + t.begins[i], position, first_seen(position, l.window)}, g, room.qkv + i * width,
                  room.y + i * s.H * s.E, some.data(), some.data() + s.H * s.E);
    });
}

void norm(const Bf* x, const Bf* weight, const Shape& s, long N, Bf* y) {
    for (long i = 0; i < N; i++) norm_token(x + i * s.D, weight, s.eps, s.D, y + i * s.D);
}

}  // namespace

// Asked for once, before all else.
extern "C" int ayllu_step_may_run() { return may_run(); }

// What the head takes, (N, D), into y.
extern "C" void ayllu_step(const Shape* shape, const Layer* layers, const Tokens* tokens, const Room* room, Bf* y,
                           int threads) {
    const Shape& s = *shape;
    const long N = tokens->N;
    const Tools mine;
    Crew::Step step(crew(), threads);
    for (long i = 0; i < N; i++) std::copy_n(s.embedding + tokens->ids[i] * s.D, s.D, room->x + i * s.D);
    const Adapters adapters{tokens->pairs, tokens->owners, s.layers};
    for (long n = 0; n < s.layers; n++) {
        const Layer& l = layers[n];
        const auto add = [&](const Bf* x, long K, std::initializer_list<Columns> parts, Bf* y, long width) {
            if (tokens->pairs) adapt(step, adapters, n, x, N, K, parts, y, width);
        };
        const long Q = s.H * s.E, G = s.G * s.E;
        norm(room->x, l.attention_norm, s, N, room->h);
        multiply(step, room->h, N, l.qkv, nullptr, room->qkv);
        add(room->h, s.D, {whole(WQ, Q, 0), whole(WK, G, Q), whole(WV, G, Q + G)}, room->qkv, Q + 2 * G);
        (l.key_scales ? attend<int8_t> : attend<Bf>)(step, s, l, *tokens, *room);
        multiply(step, room->y, N, l.wo, room->x, room->x);
        add(room->y, Q, {whole(WO, s.D, 0)}, room->x, s.D);
        norm(room->x, l.ffn_norm, s, N, room->h);
        if (tokens->pairs && (adapters.any(N, n, W1) || adapters.any(N, n, W3))) {
            multiply(step, room->h, N, l.w13, nullptr, room->both);
            add(room->h, s.D, {{W1, s.F, 0, UNIT / 2, UNIT}, {W3, s.F, UNIT / 2, UNIT / 2, UNIT}}, room->both, 2 * s.F);
            gate(room->both, N, s.F, room->gated);
        } else {
            multiply_gated(step, room->h, N, l.w13, room->gated);
        }
        multiply(step, room->gated, N, l.w2, room->x, room->x);
        add(room->gated, s.F, {whole(W2, s.D, 0)}, room->x, s.D);
    }
    norm(room->x, s.norm, s, N, y);
}

// y (N, O) = x (N, K) times a matrix, plus `more` (N, O) if there is one; tiles may read x up to the next multiple of 16
// rows.
extern "C" void ayllu_step_product(const Bf* x, long N, const Matrix* m, const Bf* more, Bf* y, int threads) {
    const Tools mine;
    Crew::Step step(crew(), threads);
    multiply(step, x, N, *m, more, y);
}
