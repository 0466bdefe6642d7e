# A filter's class, declared for taps.
cimport cython

from .linux cimport sock_filter


@cython.final
cdef class Filter:
    cdef sock_filter *steps
