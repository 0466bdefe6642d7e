"""Filters, programs in classic BPF, checked."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free

from .filter cimport FILTER_MEMORY, run_filter
from .linux cimport (
    BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_B, BPF_DIV, BPF_H, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JGE,
    BPF_JGT, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_LEN, BPF_LSH, BPF_MEM, BPF_MISC, BPF_MOD, BPF_MSH, BPF_MUL,
    BPF_NEG, BPF_OR, BPF_RET, BPF_RSH, BPF_ST, BPF_STX, BPF_SUB, BPF_TAX, BPF_TXA, BPF_W, BPF_X, BPF_XOR, sock_filter,
)

_OPERATIONS = (BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_MOD, BPF_AND, BPF_OR, BPF_XOR, BPF_LSH, BPF_RSH)
_CODES = frozenset([
    *(BPF_LD | size | mode for size in (BPF_W, BPF_H, BPF_B) for mode in (BPF_ABS, BPF_IND)),
    BPF_LD | BPF_IMM, BPF_LD | BPF_MEM, BPF_LD | BPF_W | BPF_LEN,
    BPF_LDX | BPF_IMM, BPF_LDX | BPF_MEM, BPF_LDX | BPF_W | BPF_LEN, BPF_LDX | BPF_B | BPF_MSH,
    BPF_ST, BPF_STX, BPF_ALU | BPF_NEG, BPF_JMP | BPF_JA, BPF_RET | BPF_K, BPF_RET | BPF_A,
    BPF_MISC | BPF_TAX, BPF_MISC | BPF_TXA,
    *(BPF_ALU | operation | source for operation in _OPERATIONS for source in (BPF_K, BPF_X)),
    *(BPF_JMP | test | source for test in (BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET) for source in (BPF_K, BPF_X)),
])
_STORES = (BPF_ST, BPF_STX, BPF_LD | BPF_MEM, BPF_LDX | BPF_MEM)
_DIVISIONS = (BPF_ALU | BPF_DIV | BPF_K, BPF_ALU | BPF_MOD | BPF_K)


@cython.final
cdef class Filter:
    """A program in classic BPF, (code, jt, jf, k) each step. Raises ValueError for one that may not end, or that
    touches what is not there."""

    def __cinit__(self, program):
        cdef list steps = list(program)
        cdef uint32_t i
        check(steps)
        self.steps = <sock_filter *>calloc(len(steps), sizeof(sock_filter))
        if self.steps == NULL:
            raise MemoryError(f"no memory for a filter of {len(steps)} steps")
        for i, (code, jt, jf, k) in enumerate(steps):
            self.steps[i].code, self.steps[i].jt, self.steps[i].jf, self.steps[i].k = code, jt, jf, k

    def __dealloc__(self):
        free(self.steps)

    def run(self, bytes frame, uint32_t length):
        """What the program returns for the first bytes of a frame of this length; 0: the filter refuses it."""
        return run_filter(self.steps, <const uint8_t *><const char *>frame, <uint32_t>len(frame), length)


cdef check(list steps):
    """Raise ValueError unless the program ends, and touches only what there is."""
    count = len(steps)
    if not 0 < count <= 4096:
        raise ValueError(f"a filter has 1 … 4096 steps, not {count}")
    for place, (code, jt, jf, k) in enumerate(steps):
        left = count - place - 1
        jump = k if code == (BPF_JMP | BPF_JA) else max(jt, jf) if code & 7 == BPF_JMP else 0
        if code not in _CODES:
            raise ValueError(f"step {place} of the filter has no known code: {code:#x}")
        if jump >= left and code & 7 != BPF_RET:
            raise ValueError(f"step {place} of the filter leads behind its end")
        if code in _STORES and k >= FILTER_MEMORY:
            raise ValueError(f"step {place} of the filter uses memory that there is not: {k}")
        if code in _DIVISIONS and k == 0:
            raise ValueError(f"step {place} of the filter divides by zero")
