// Threads that share the items of one stage after another. They live as long as their decoder and sleep between calls.
//
// Nobody waits for a thread, only for items: whoever finishes a stage's last item opens the next stage. A worker that the
// system has not scheduled (a box whose cores are busy) holds up nothing that it has not begun. If one is taken off its
// core with an item in hand, the caller does the next runs alone.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace radbox {

class Pool {
public:
    // Does items first..last of a stage; `thread` of 0..threads-1 is the caller's scratch.
    using Work = void (*)(void *context, int64_t stage, int64_t first, int64_t last, int thread);

    // Throws std::system_error if the system gives it fewer threads.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    // Runs stages 0..count-1 in order, stage s having items[s] items. The caller works too; returns when all is done.
    void run(const int64_t *items, int64_t count, Work work, void *context);

    int threads() const { return threads_; }

private:
    void work_until(uint64_t end, int thread);
    void worker(int thread);
    void open(uint64_t serial, int64_t chunks);
    void wait_for_change(uint64_t seen, int thread);
    void note_stall(double waited_s);
    void stop();
    int64_t chunks_of(int64_t items) const;

    const int threads_;
    const pid_t process_;
    std::vector<std::thread> workers_;

    // Written by the caller before the first stage opens, read only by who holds a chunk of this run.
    const int64_t *items_ = nullptr;
    int64_t count_ = 0;
    Work work_ = nullptr;
    void *context_ = nullptr;
    uint64_t first_serial_ = 0;
    double usual_run_s_ = 0.0;  // the caller's: a moving average
    int64_t runs_alone_ = 0;    // how many of the next runs it does without workers

    // The open stage's serial number (upper 32 bits), its chunks (16) and how many of them are taken (16).
    alignas(64) std::atomic<uint64_t> ticket_{0};
    alignas(64) std::atomic<int64_t> finished_{0};
    alignas(64) std::atomic<uint32_t> changes_{0};
    std::atomic<uint32_t> sleepers_{0};  // since somebody last woke them
    std::atomic<bool> stopping_{false};
};

}  // namespace radbox
