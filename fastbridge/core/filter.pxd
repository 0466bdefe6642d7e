# Filter: classic BPF over one frame, as libpcap compiles it (pcap-filter(7), bpf_filter in the BSD manual bpf(4)).
#
# What was checked once (filters.pyx) ends: it only jumps forward, to a step that there is, and its last step returns. A
# load from behind the frame's end refuses the frame, and so does a division by zero.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from .ethernet cimport load16, load32
from .linux cimport (
    BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_B, BPF_DIV, BPF_H, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JGE,
    BPF_JGT, BPF_JMP, BPF_JSET, BPF_LD, BPF_LDX, BPF_LEN, BPF_LSH, BPF_MEM, BPF_MOD, BPF_MSH, BPF_MUL, BPF_NEG, BPF_OR,
    BPF_RET, BPF_RSH, BPF_ST, BPF_STX, BPF_SUB, BPF_TXA, BPF_W, BPF_X, BPF_XOR, sock_filter,
)

cdef enum:
    FILTER_MEMORY = 16          # words of scratch memory (BPF_MEMWORDS)


cdef inline bint load(const uint8_t *data, uint32_t kept, uint64_t at, uint16_t size, uint32_t *value) noexcept nogil:
    """Read a byte, a half-word or a word of the frame; False behind its end."""
    if size == BPF_W:
        if at + 4 > kept:
            return False
        value[0] = load32(data + at)
    elif size == BPF_H:
        if at + 2 > kept:
            return False
        value[0] = load16(data + at)
    else:
        if at + 1 > kept:
            return False
        value[0] = data[at]
    return True


cdef inline bint calculate(uint16_t operation, uint32_t operand, uint32_t *a) noexcept nogil:
    """False for a division by zero."""
    if operation == BPF_ADD:
        a[0] += operand
    elif operation == BPF_SUB:
        a[0] -= operand
    elif operation == BPF_MUL:
        a[0] *= operand
    elif operation == BPF_AND:
        a[0] &= operand
    elif operation == BPF_OR:
        a[0] |= operand
    elif operation == BPF_XOR:
        a[0] ^= operand
    elif operation == BPF_LSH:
        a[0] = a[0] << operand if operand < 32 else 0
    elif operation == BPF_RSH:
        a[0] = a[0] >> operand if operand < 32 else 0
    elif operation == BPF_NEG:
        a[0] = 0 - a[0]
    elif operand == 0:
        return False
    elif operation == BPF_DIV:
        a[0] = a[0] // operand
    else:
        a[0] = a[0] % operand
    return True


cdef inline uint32_t run_filter(
    const sock_filter *step, const uint8_t *data, uint32_t kept, uint32_t length
) noexcept nogil:
    """What the program returns for a frame of which `kept` bytes of `length` are here: 0 refuses it."""
    cdef uint32_t a = 0, x = 0, value, k
    cdef uint32_t memory[FILTER_MEMORY]
    cdef uint16_t kind, mode
    cdef bint taken
    memset(memory, 0, sizeof(memory))
    while True:
        kind, k = step.code & 7, step.k
        if kind == BPF_LD or kind == BPF_LDX:
            mode = step.code & 0xE0
            if mode == BPF_ABS or mode == BPF_IND:
                if not load(data, kept, <uint64_t>k + (x if mode == BPF_IND else 0), step.code & 0x18, &value):
                    return 0
            elif mode == BPF_MSH:
                if k >= kept:
                    return 0
                value = (<uint32_t>data[k] & 0xF) << 2
            elif mode == BPF_LEN:
                value = length
            elif mode == BPF_MEM:
                value = memory[k]
            else:                               # BPF_IMM
                value = k
            if kind == BPF_LD:
                a = value
            else:
                x = value
        elif kind == BPF_JMP:
            mode = step.code & 0xF0
            value = x if step.code & BPF_X else k
            if mode == BPF_JA:
                step += k
            else:
                if mode == BPF_JEQ:
                    taken = a == value
                elif mode == BPF_JGT:
                    taken = a > value
                elif mode == BPF_JGE:
                    taken = a >= value
                else:                           # BPF_JSET
                    taken = a & value != 0
                step += step.jt if taken else step.jf
        elif kind == BPF_ALU:
            if not calculate(step.code & 0xF0, x if step.code & BPF_X else k, &a):
                return 0
        elif kind == BPF_RET:
            return a if step.code & 0x18 == BPF_A else k
        elif kind == BPF_ST:
            memory[k] = a
        elif kind == BPF_STX:
            memory[k] = x
        elif step.code & 0xF8 == BPF_TXA:       # BPF_MISC
            a = x
        else:
            x = a
        step += 1
