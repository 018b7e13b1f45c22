// What shim.cpp tells the sanitizers. ThreadSanitizer: every fiber is a thread, switching orders nothing, order_before and
// order_after do. AddressSanitizer: which stack is in use. Without a sanitizer these are empty.
#pragma once

#include <cstddef>

#ifdef RADBOX_SHIM_TSAN
extern "C" {
void *__tsan_create_fiber(unsigned flags);
void *__tsan_get_current_fiber(void);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_acquire(void *at);
void __tsan_release(void *at);
}
#endif
#ifdef RADBOX_SHIM_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void **saved, const void *bottom, std::size_t size);
void __sanitizer_finish_switch_fiber(void *saved, const void **old_bottom, std::size_t *old_size);
}
#endif

namespace shim {

#ifdef RADBOX_SHIM_TSAN

struct Watched {
    void *fiber;
};
inline void *watched_scheduler = nullptr;
constexpr unsigned kOrdersNothing = 1;

inline void watch_scheduler() { watched_scheduler = __tsan_get_current_fiber(); }
inline void created(Watched &watched) { watched.fiber = __tsan_create_fiber(0); }
inline void leave_scheduler(Watched &to, const void *, std::size_t) { __tsan_switch_to_fiber(to.fiber, kOrdersNothing); }
inline void entered_scheduler() {}
inline void leave_fiber(Watched &, bool) { __tsan_switch_to_fiber(watched_scheduler, kOrdersNothing); }
inline void entered_fiber(Watched &) {}
inline void order_before(void *at) { __tsan_release(at); }
inline void order_after(void *at) { __tsan_acquire(at); }

#else

inline void watch_scheduler() {}
inline void order_before(void *) {}
inline void order_after(void *) {}

#ifdef RADBOX_SHIM_ASAN

struct Watched {
    void *saved;
};
struct WatchedScheduler {
    void *saved;
    const void *bottom;
    std::size_t size;
};
inline WatchedScheduler watched_scheduler{};

inline void created(Watched &watched) { watched.saved = nullptr; }
inline void leave_scheduler(Watched &, const void *bottom, std::size_t size) {
    __sanitizer_start_switch_fiber(&watched_scheduler.saved, bottom, size);
}
inline void entered_scheduler() { __sanitizer_finish_switch_fiber(watched_scheduler.saved, nullptr, nullptr); }
inline void leave_fiber(Watched &from, bool for_good) {
    __sanitizer_start_switch_fiber(for_good ? nullptr : &from.saved, watched_scheduler.bottom, watched_scheduler.size);
}
inline void entered_fiber(Watched &to) {
    __sanitizer_finish_switch_fiber(to.saved, &watched_scheduler.bottom, &watched_scheduler.size);
}

#else

struct Watched {};
inline void created(Watched &) {}
inline void leave_scheduler(Watched &, const void *, std::size_t) {}
inline void entered_scheduler() {}
inline void leave_fiber(Watched &, bool) {}
inline void entered_fiber(Watched &) {}

#endif
#endif

}  // namespace shim
