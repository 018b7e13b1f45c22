#include "pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace radbox {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSpins = 2000;  // some 30-80 microseconds: longer than an item, much shorter than a time slice
constexpr double kStall_s = 200e-6;  // a wait that is this much longer than half a run: somebody lost a core
constexpr int64_t kRunsAlone = 128;  // two reports' worth of tokens until the workers get another chance
constexpr int64_t kChunksPerThread = 4;  // finer than one each, so that a late thread costs a quarter of its share
constexpr uint64_t kSerialBits = 0xffffffff;

double seconds_since(Clock::time_point began) { return std::chrono::duration<double>(Clock::now() - began).count(); }

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");  // tens of cycles; `yield` is none on a Cortex-A76
#endif
}

uint64_t serial_of(uint64_t ticket) { return ticket >> 32; }
uint64_t chunks_in(uint64_t ticket) { return (ticket >> 16) & 0xffff; }
uint64_t taken_of(uint64_t ticket) { return ticket & 0xffff; }
bool has_chunk(uint64_t ticket) { return taken_of(ticket) < chunks_in(ticket); }

void futex(std::atomic<uint32_t> &word, int operation, uint32_t value) {
    static_assert(sizeof word == sizeof(uint32_t), "a futex is 32 bits");
    syscall(SYS_futex, reinterpret_cast<uint32_t *>(&word), operation, value, nullptr, nullptr, 0);
}

}  // namespace

Pool::Pool(int threads) : threads_(threads), process_(getpid()) {
    workers_.reserve(static_cast<size_t>(threads));
    try {
        for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { worker(thread); });
    } catch (...) {
        stop();  // a thread that still runs may not be destroyed
        throw;
    }
}

Pool::~Pool() {
    if (getpid() == process_)
        stop();
    else  // A fork has this object but not its threads, whose handles point to stacks that others may have by now:
        static_cast<void>(new std::vector<std::thread>(std::move(workers_)));  // neither join nor detach may look there.
}

void Pool::stop() {
    stopping_.store(true);
    changes_.fetch_add(1);
    futex(changes_, FUTEX_WAKE_PRIVATE, INT_MAX);
    for (std::thread &thread : workers_) thread.join();
}

int64_t Pool::chunks_of(int64_t items) const { return std::min(items, kChunksPerThread * threads_); }

void Pool::run(const int64_t *items, int64_t count, Work work, void *context) {
    if (threads_ == 1 || runs_alone_ > 0) {
        for (int64_t stage = 0; stage < count; ++stage) work(context, stage, 0, items[stage], 0);
        runs_alone_ = std::max<int64_t>(runs_alone_ - 1, 0);
        return;
    }
    const Clock::time_point began = Clock::now();
    items_ = items, count_ = count, work_ = work, context_ = context;
    first_serial_ = (serial_of(ticket_.load(std::memory_order_relaxed)) + 1) & kSerialBits;
    const uint64_t end = (first_serial_ + static_cast<uint64_t>(count)) & kSerialBits;
    open(first_serial_, chunks_of(items[0]));
    work_until(end, 0);
    usual_run_s_ += (seconds_since(began) - usual_run_s_) / 16.0;
}

// Serial numbers wrap after 2^32 stages: only their equality and differences count.
void Pool::open(uint64_t serial, int64_t chunks) {
    finished_.store(0, std::memory_order_relaxed);
    ticket_.store((serial & kSerialBits) << 32 | static_cast<uint64_t>(chunks) << 16);
    // Emptied by who wakes them: one system call per run, however long they take to get up. Emptied before `changes_`
    // moves on: a thread that counted itself in between read `changes_` before that and will not sleep on it. (The other
    // way round it could be struck off the list, then fall asleep, and the stage after the next would wake nobody.)
    if (sleepers_.load() == 0 || sleepers_.exchange(0) == 0) return;
    changes_.fetch_add(1);
    futex(changes_, FUTEX_WAKE_PRIVATE, INT_MAX);
}

// Take chunks, whatever the stage, until the stage `end` is open; `end` of a worker is a serial that never comes.
void Pool::work_until(uint64_t end, int thread) {
    while (true) {
        uint64_t ticket = ticket_.load(std::memory_order_acquire);
        if (serial_of(ticket) == end || stopping_.load(std::memory_order_relaxed)) return;
        if (!has_chunk(ticket)) {
            wait_for_change(ticket, thread);
            continue;
        }
        if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
        // Holding a chunk: the run cannot end before it is finished.
        const auto stage = static_cast<int64_t>((serial_of(ticket) - first_serial_) & kSerialBits);
        const auto chunks = static_cast<int64_t>(chunks_in(ticket)), chunk = static_cast<int64_t>(taken_of(ticket));
        const int64_t items = items_[stage];
        work_(context_, stage, items * chunk / chunks, items * (chunk + 1) / chunks, thread);
        if (finished_.fetch_add(1, std::memory_order_acq_rel) + 1 == chunks)
            open(serial_of(ticket) + 1, stage + 1 < count_ ? chunks_of(items_[stage + 1]) : 0);
    }
}

void Pool::worker(int thread) {
    while (!stopping_.load()) work_until(UINT64_MAX, thread);
}

void Pool::wait_for_change(uint64_t seen, int thread) {
    for (int spin = 0; spin < kSpins; ++spin) {
        const uint64_t ticket = ticket_.load(std::memory_order_relaxed);
        if (ticket != seen) return;
        pause();
    }
    const Clock::time_point began = Clock::now();
    const uint32_t changes = changes_.load();
    sleepers_.fetch_add(1);
    if (ticket_.load() == seen && !stopping_.load()) futex(changes_, FUTEX_WAIT_PRIVATE, changes);
    if (thread == 0) note_stall(seconds_since(began));
}

void Pool::note_stall(double waited_s) {
    if (waited_s > usual_run_s_ / 2.0 + kStall_s) runs_alone_ = kRunsAlone;
}

}  // namespace radbox
