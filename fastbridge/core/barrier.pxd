# Acquire, release and relaxed accesses, by the compiler's builtins. All data that two threads may touch at once (the
# ring's status words, flags of the loop, the FDB's buckets, a port's link) is read and written by these. Nothing
# else implies an order. On x86-64 all of them except add_release and swap are plain instructions.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from * nogil:
    """
    static inline uint32_t fb_load_acquire(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline uint64_t fb_load_acquire64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline uint16_t fb_load_acquire16(const uint16_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void fb_store_release(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline void fb_store_release64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline uint8_t fb_load8(const uint8_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline uint16_t fb_load16(const uint16_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline uint32_t fb_load32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline uint64_t fb_load64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void fb_store8(uint8_t *p, uint8_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline void fb_store16(uint16_t *p, uint16_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline void fb_store32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline void fb_store64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline void fb_fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
    static inline void fb_fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
    static inline void fb_fence_all(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    static inline void fb_add(uint32_t *p, uint32_t v) { __atomic_add_fetch(p, v, __ATOMIC_ACQ_REL); }
    static inline int fb_swap(uint64_t *p, uint64_t was, uint64_t is) {
        return __atomic_compare_exchange_n(p, &was, is, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
    static inline void fb_prefetch(const void *p) { __builtin_prefetch(p); }
    """
    uint32_t load_acquire "fb_load_acquire" (const uint32_t *p)
    uint64_t load_acquire64 "fb_load_acquire64" (const uint64_t *p)
    uint16_t load_acquire16 "fb_load_acquire16" (const uint16_t *p)
    void store_release "fb_store_release" (uint32_t *p, uint32_t v)
    void store_release64 "fb_store_release64" (uint64_t *p, uint64_t v)
    uint8_t load_relaxed8 "fb_load8" (const uint8_t *p)
    uint16_t load_relaxed16 "fb_load16" (const uint16_t *p)
    uint32_t load_relaxed32 "fb_load32" (const uint32_t *p)
    uint64_t load_relaxed64 "fb_load64" (const uint64_t *p)
    void store_relaxed8 "fb_store8" (uint8_t *p, uint8_t v)
    void store_relaxed16 "fb_store16" (uint16_t *p, uint16_t v)
    void store_relaxed32 "fb_store32" (uint32_t *p, uint32_t v)
    void store_relaxed64 "fb_store64" (uint64_t *p, uint64_t v)
    void fence_acquire "fb_fence_acquire" ()
    void fence_release "fb_fence_release" ()
    void fence_all "fb_fence_all" ()
    void add_release "fb_add" (uint32_t *p, uint32_t v)
    bint swap "fb_swap" (uint64_t *p, uint64_t was, uint64_t now)
    void prefetch "fb_prefetch" (const void *p)
