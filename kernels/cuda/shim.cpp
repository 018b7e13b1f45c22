// The scheduler behind shim.h: fibers (ucontext) on one thread. Built without ThreadSanitizer's instrumentation, since
// what it does is not the kernels' doing; it tells the sanitizers which fiber runs and what a barrier orders.
#include "shim.h"
#include "shim_watch.h"

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>

namespace shim {
namespace {

constexpr unsigned kLanes = 32;
constexpr std::size_t kStackBytes = 64 * 1024;
enum class State { runnable, at_barrier, at_exchange, done };

// Made once and used by block after block: creating one is dear to ThreadSanitizer.
struct Stack {
    std::unique_ptr<char[]> bytes{new char[kStackBytes]};
    Watched watched{};
};

struct Fiber {
    ucontext_t context;
    Stack *stack = nullptr;
    State state = State::runnable;
    unsigned exchanges = 0, barriers = 0;
    std::uint32_t offered[2] = {0, 0};  // by parity: a lane may be one exchange ahead of its partner
};

struct Block {
    Index index{};
    std::unique_ptr<unsigned char[]> shared;
    std::vector<Fiber> fibers;
    char barrier[2] = {0, 0};  // addresses by parity, for ThreadSanitizer
};

struct Running {
    const Kernel *kernel;
    const Argument *arguments;
    Index grid;
    Block *block;
    unsigned thread;
    char started, finished;  // their addresses order a launch after what went before and before what follows
} running;

ucontext_t scheduler;

// Neighbouring blocks run on stacks of their own, so nothing orders them; only each kStackSets-th block shares one.
constexpr std::size_t kStackSets = 3;
std::vector<std::unique_ptr<Stack>> stacks[kStackSets];

std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

Fiber &current() { return running.block->fibers[running.thread]; }

[[noreturn]] void give_up(const char *what) {
    const Block &block = *running.block;
    unsigned counts[4] = {};
    for (const Fiber &fiber : block.fibers) ++counts[static_cast<int>(fiber.state)];
    std::fprintf(stderr, "shim: %s in %s, block %u %u %u: %u threads at a barrier, %u at a shuffle, %u returned\n", what,
                 running.kernel->name.c_str(), block.index.x, block.index.y, block.index.z,
                 counts[static_cast<int>(State::at_barrier)], counts[static_cast<int>(State::at_exchange)],
                 counts[static_cast<int>(State::done)]);
    std::_Exit(3);
}

void to_scheduler(Fiber &from) {
    leave_fiber(from.stack->watched, from.state == State::done);
    swapcontext(&from.context, &scheduler);
    entered_fiber(from.stack->watched);
}

void to_fiber(Fiber &to) {
    leave_scheduler(to.stack->watched, to.stack->bytes.get(), kStackBytes);
    swapcontext(&scheduler, &to.context);
    entered_scheduler();
}

void fiber_main() {
    Fiber &self = current();
    entered_fiber(self.stack->watched);
    order_after(&running.started);
    running.kernel->call(running.kernel->function, running.arguments);
    order_before(&running.finished);
    self.state = State::done;
    to_scheduler(self);
    std::abort();
}

// All of `count` fibers from `first` are in `state`: let them go on.
bool release(Block &block, unsigned first, unsigned count, State state) {
    for (unsigned t = first; t < first + count; ++t)
        if (block.fibers[t].state != state) return false;
    for (unsigned t = first; t < first + count; ++t) block.fibers[t].state = State::runnable;
    return true;
}

void start(Fiber &fiber, Stack &stack) {
    fiber.stack = &stack;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack.bytes.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
}

void run_block(Block &block, std::vector<std::unique_ptr<Stack>> &set) {
    const unsigned threads = static_cast<unsigned>(block.fibers.size());
    running.block = &block;
    for (unsigned t = 0; t < threads; ++t) {
        if (set.size() <= t) {
            set.push_back(std::make_unique<Stack>());
            created(set.back()->watched);
        }
        start(block.fibers[t], *set[t]);
    }
    for (bool backwards = false;; backwards = !backwards) {  // no order of threads may matter
        bool moved = false;
        for (unsigned i = 0; i < threads; ++i) {
            running.thread = backwards ? threads - 1 - i : i;
            if (current().state != State::runnable) continue;
            moved = true;
            to_fiber(current());
        }
        for (unsigned warp = 0; warp < threads; warp += kLanes) moved |= release(block, warp, kLanes, State::at_exchange);
        moved |= release(block, 0, threads, State::at_barrier);
        bool done = true;
        for (const Fiber &fiber : block.fibers) done = done && fiber.state == State::done;
        if (done) break;
        if (!moved) give_up("expected all threads to meet, got a block that cannot go on");
    }
}

std::string check(const Kernel &kernel, Index grid, unsigned threads, const std::vector<Argument> &arguments) {
    if (threads == 0 || threads % kLanes || threads > 1024)
        return "expected a block of whole warps up to 1024 threads, got " + std::to_string(threads);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535)
        return "expected a grid of 1 to 65535 blocks, got " + std::to_string(grid.x) + " " + std::to_string(grid.y) + " " +
               std::to_string(grid.z);
    if (arguments.size() != kernel.sizes.size())
        return "expected " + std::to_string(kernel.sizes.size()) + " arguments, got " + std::to_string(arguments.size());
    for (std::size_t i = 0; i < arguments.size(); ++i)
        if (arguments[i].size != kernel.sizes[i])
            return "expected argument " + std::to_string(i) + " of " + std::to_string(kernel.sizes[i]) + " bytes, got " +
                   std::to_string(arguments[i].size);
    return "";
}

}  // namespace

Index thread_index() { return {running.thread, 0, 0}; }
Index block_index() { return running.block->index; }
Index grid_size() { return running.grid; }
void *shared_memory() { return running.block->shared.get(); }

void synchronize_block() {
    Fiber &self = current();
    char *barrier = &running.block->barrier[self.barriers % 2];
    order_before(barrier);
    ++self.barriers;
    self.state = State::at_barrier;
    to_scheduler(self);
    order_after(barrier);
}

// A shuffle orders no memory accesses, so the sanitizer is told nothing.
std::uint32_t exchange(std::uint32_t mask, std::uint32_t bits, int lane_mask) {
    Fiber &self = current();
    const unsigned thread = running.thread, parity = self.exchanges % 2;
    if (mask != 0xffffffffu || lane_mask <= 0 || lane_mask >= static_cast<int>(kLanes))
        give_up("expected a shuffle of all 32 lanes, got another");
    self.offered[parity] = bits;
    ++self.exchanges;
    self.state = State::at_exchange;
    to_scheduler(self);
    return running.block->fibers[thread ^ static_cast<unsigned>(lane_mask)].offered[parity];
}

float half_to_float(unsigned short bits) {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
    const std::uint32_t exponent = (bits >> 10) & 31u, fraction = bits & 1023u;
    std::uint32_t word;
    if (exponent == 31) {
        word = sign | 0x7f800000u | (fraction << 13);
    } else if (exponent > 0) {
        word = sign | ((exponent + 112u) << 23) | (fraction << 13);
    } else {
        const float tiny = std::ldexp(static_cast<float>(fraction), -24);
        std::memcpy(&word, &tiny, sizeof word);
        word |= sign;
    }
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
}

unsigned short float_to_half(float value) {
    std::uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    const auto sign = static_cast<std::uint16_t>((word >> 16) & 0x8000u);
    word &= 0x7fffffffu;
    if (word > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
    if (word >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 65520 and above round to infinity
    if (word < 0x38800000u) {                                                    // below 2^-14: a multiple of 2^-24
        float magnitude;
        std::memcpy(&magnitude, &word, sizeof magnitude);
        return static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(std::nearbyintf(magnitude * 16777216.0f)));
    }
    const std::uint32_t rounded = word + 0xfffu + ((word >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

void add_kernel(Kernel kernel) {
    const std::string name = kernel.name;
    kernels().emplace(name, std::move(kernel));
}

std::string launch(const std::string &name, Index grid, unsigned threads, std::size_t shared_bytes,
                   const std::vector<Argument> &arguments) {
    const auto found = kernels().find(name);
    if (found == kernels().end()) return "expected a kernel that was built, got " + name;
    std::string wrong = check(found->second, grid, threads, arguments);
    if (!wrong.empty()) return name + ": " + wrong;
    running.kernel = &found->second;
    running.arguments = arguments.data();
    running.grid = grid;
    watch_scheduler();
    // Kept until the launch has ended: memory that two blocks used in turn would look ordered, or shared, to a sanitizer.
    std::vector<std::unique_ptr<Block>> blocks;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blocks.push_back(std::make_unique<Block>());
                Block &block = *blocks.back();
                block.index = {x, y, z};
                block.shared.reset(new unsigned char[shared_bytes]);
                std::memset(block.shared.get(), 0xff, shared_bytes);
                order_before(&running.started);
                block.fibers.resize(threads);
                run_block(block, stacks[blocks.size() % kStackSets]);
            }
    order_after(&running.finished);
    return "";
}

}  // namespace shim
