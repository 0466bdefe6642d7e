# Token buckets, each in one word.
#
# The generic cell rate algorithm (ITU-T I.371 annex A). It keeps no tokens, but the time at which the bucket will be
# full again. So a check is one comparison and one addition, and nothing is ever refilled. Workers that share a port
# share its buckets by one compare-and-swap.
from libc.stdint cimport uint64_t

from .barrier cimport load_relaxed64, swap

cdef struct TokenBucket:
    uint64_t full_at        # ns; the bucket is full from then on
    uint64_t interval       # ns until one token is back; 0: no limit
    uint64_t depth          # ns until the whole burst is back


cdef inline void set_rate(TokenBucket *bucket, double rate, double burst) noexcept nogil:
    """Allow `rate` a second and `burst` at once. A rate of 0 or less is no limit.

    Times end at 1e18 ns, 32 years, so that sums of a few of them fit into 64 bits."""
    bucket.interval = <uint64_t>max(1.0, min(1e9 / rate, 1e18)) if rate > 0 else 0
    bucket.depth = <uint64_t>min(<double>bucket.interval * burst, 1e18)
    bucket.full_at = 0


cdef inline bint take_token(TokenBucket *bucket, uint64_t now) noexcept nogil:
    """Whether one more is allowed at `now` (ns). If so, take its token."""
    cdef uint64_t full_at, was
    if bucket.interval == 0:
        return True
    while True:
        was = load_relaxed64(&bucket.full_at)
        full_at = (was if was > now else now) + bucket.interval
        if full_at > now + bucket.depth:
            return False
        if swap(&bucket.full_at, was, full_at):
            return True
