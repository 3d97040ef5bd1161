// Work that other threads may share. Whoever has work never waits for another to come, only for what one has begun:
// where the other cores are busy with something else, as beside a server, it does all by itself at its own speed.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>

namespace {

// Waiting that leaves the core's other thread its turn.
inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

class Crew {
  public:
    // A step of `threads` threads at most; one at a time, a second caller works alone.
    class Step {
      public:
        Step(Crew& crew, int threads) : crew(crew), leads(threads > 1 && crew.busy.try_lock()) {
            if (leads) crew.call(threads - 1);
        }
        ~Step() {
            if (!leads) return;
            crew.wanted.store(0, std::memory_order_release);
            crew.busy.unlock();
        }
        // Does part(0) to part(n - 1), begun in this order, by any thread.
        template <typename Part> void share(long n, const Part& part) {
            if (!leads || n < 2) {
                for (long i = 0; i < n; i++) part(i);
            } else {
                crew.share(n, [](const void* p, long i) { (*static_cast<const Part*>(p))(i); }, &part);
            }
        }
        Step(const Step&) = delete;
        Step& operator=(const Step&) = delete;

      private:
        Crew& crew;
        const bool leads;
    };

    // `enter` and `leave`: around a helper's share of a step.
    Crew(void (*enter)(), void (*leave)()) : enter(enter), leave(leave) {}

  private:
    using Run = void (*)(const void*, long);
    static constexpr uint64_t LEFT = 0xffffffff;         // the parts that nobody has taken; above, which piece of work

    void call(int helpers) {
        for (; n_helpers < helpers; n_helpers++) std::thread([this, me = n_helpers] { help(me); }).detach();
        wanted.store(helpers, std::memory_order_release);
        steps.fetch_add(1, std::memory_order_release);
        steps.notify_all();
    }

    void share(long n, Run does, const void* on) {
        run.store(does, std::memory_order_relaxed);      // no part is left of the work before: nobody reads these now
        what.store(on, std::memory_order_relaxed);
        parts.store(n, std::memory_order_relaxed);
        done.store(0, std::memory_order_relaxed);
        state.store((number++ << 32) | uint64_t(n), std::memory_order_release);
        while (take()) {}
        while (done.load(std::memory_order_acquire) != n) relax();
    }

    // Does one part, if there is one.
    bool take() {
        uint64_t now = state.load(std::memory_order_acquire);
        if (!(now & LEFT)) return false;
        const Run does = run.load(std::memory_order_relaxed);
        const void* on = what.load(std::memory_order_relaxed);
        const long n = parts.load(std::memory_order_relaxed);
        if (!state.compare_exchange_strong(now, now - 1, std::memory_order_acq_rel)) return true;   // another came first
        does(on, n - long(now & LEFT));                  // in the order in which memory is read best
        done.fetch_add(1, std::memory_order_release);
        return true;
    }

    void help(int me) {
        for (int seen = 0;;) {
            steps.wait(seen, std::memory_order_acquire);
            seen = steps.load(std::memory_order_acquire);
            if (wanted.load(std::memory_order_acquire) <= me) continue;
            enter();
            while (wanted.load(std::memory_order_acquire) > me)
                if (!take()) relax();
            leave();
        }
    }

    void (*const enter)();
    void (*const leave)();
    std::mutex busy;
    int n_helpers = 0;
    uint64_t number = 1;
    std::atomic<int> steps{0}, wanted{0};
    std::atomic<Run> run{nullptr};
    std::atomic<const void*> what{nullptr};
    std::atomic<long> parts{0}, done{0};
    alignas(64) std::atomic<uint64_t> state{0};
};

}  // namespace
