// Memory for torch's large CPU tensors: one stretch of addresses, the smallest hole that fits, neighbours joined again.
//
// A training step asks for the same sizes again and again. glibc's malloc keeps what is freed, too, but for aligned
// memory it wants a hole larger than what was freed, and small things settle in between: a third lay idle.

#include <c10/core/CPUAllocator.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <utility>

namespace {

constexpr size_t LEAST = 64 << 10;   // bytes; what is smaller is malloc's
constexpr size_t LINE = 64, APART = 5 * LINE;   // equal sizes in a row would begin at the same place of their pages

struct Pool {
    std::mutex lock;
    char *begin = nullptr, *fresh = nullptr, *end = nullptr;   // from `fresh` on nothing was ever asked for
    std::map<char*, size_t> holes;
    std::set<std::pair<size_t, char*>> by_size;
    std::map<char*, size_t> taken;

    Pool() {
        const size_t size = size_t(sysconf(_SC_PHYS_PAGES)) * size_t(sysconf(_SC_PAGESIZE));
        void* got = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (got == MAP_FAILED) return;
        madvise(got, size, MADV_HUGEPAGE);   // what lies side by side wastes none
        begin = fresh = static_cast<char*>(got);
        end = begin + size;
    }

    void add_hole(char* at, size_t size) { holes[at] = size, by_size.insert({size, at}); }

    auto fill(std::map<char*, size_t>::iterator hole) {
        by_size.erase({hole->second, hole->first});
        return holes.erase(hole);
    }

    char* take(size_t n) {   // null: no room
        const std::lock_guard<std::mutex> held(lock);
        const size_t size = (n + LINE - 1) / LINE * LINE + APART;
        const auto found = by_size.lower_bound({size, nullptr});
        char* at = fresh;
        if (found != by_size.end()) {
            const auto [most, place] = *found;
            at = place;
            fill(holes.find(at));
            if (most > size) add_hole(at + size, most - size);
        } else if (size <= size_t(end - fresh)) {
            fresh += size;
        } else {
            return nullptr;
        }
        taken[at] = size;
        return at;
    }

    void give(char* at) {
        const std::lock_guard<std::mutex> held(lock);
        const auto was = taken.find(at);
        size_t size = was->second;
        taken.erase(was);
        auto next = holes.lower_bound(at);
        if (next != holes.end() && next->first == at + size) size += next->second, next = fill(next);
        if (next != holes.begin() && std::prev(next)->first + std::prev(next)->second == at) {
            at = std::prev(next)->first, size += std::prev(next)->second;
            fill(std::prev(next));
        }
        if (at + size == fresh)
            fresh = at;
        else
            add_hole(at, size);
    }
};

Pool& pool() {
    static Pool* made = new Pool;   // never destroyed: tensors may outlive everything else
    return *made;
}

void free_any(void* at) {
    char* place = static_cast<char*>(at);
    if (place >= pool().begin && place < pool().end)
        pool().give(place);
    else
        std::free(at);
}

struct Allocator final : c10::Allocator {
    c10::DataPtr allocate(size_t n) override {
        void* at = n < LEAST ? nullptr : pool().take(n);
        if (!at && n && posix_memalign(&at, LINE, n)) TORCH_CHECK(false, "no memory for a tensor of ", n, " bytes");
        return {at, at, &free_any, c10::Device(c10::DeviceType::CPU)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &free_any; }
    void copy_data(void* to, const void* from, size_t n) const override { std::memcpy(to, from, n); }
};

}  // namespace

extern "C" void ayllu_pool() {   // from here on; tensors that exist keep what they have
    static Allocator* own = [] {
        pthread_atfork([] { pool().lock.lock(); }, [] { pool().lock.unlock(); }, [] { pool().lock.unlock(); });
        return new Allocator;
    }();
    c10::SetCPUAllocator(own, UINT8_MAX);
}
