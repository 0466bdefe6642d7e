# Acquire and release, by the compiler's builtins: the ring's status words and the flags shared by two
# threads are read with load_acquire and written with store_release, nowhere else is ordering implied.
from libc.stdint cimport uint32_t

cdef extern from * nogil:
    """
    static inline uint32_t fb_load_acquire(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void fb_store_release(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline void fb_add(uint32_t *p, uint32_t v) { __atomic_add_fetch(p, v, __ATOMIC_ACQ_REL); }
    static inline void fb_prefetch(const void *p) { __builtin_prefetch(p); }
    """
    uint32_t load_acquire "fb_load_acquire" (const uint32_t *p)
    void store_release "fb_store_release" (uint32_t *p, uint32_t v)
    void add_release "fb_add" (uint32_t *p, uint32_t v)
    void prefetch "fb_prefetch" (const void *p)
