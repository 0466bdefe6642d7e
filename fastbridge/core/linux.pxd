# All externs: every constant, struct and function that the core takes from the headers of the kernel and of libc. They
# come from the real headers, with only the fields that are used. So there is one place to check the ABI, as in uvloop's
# includes/system.pxd.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from "<fcntl.h>" nogil:
    int O_RDONLY, O_CLOEXEC
    int open(const char *path, int flags)

cdef extern from "<endian.h>" nogil:
    uint16_t be16toh(uint16_t value)
    uint32_t be32toh(uint32_t value)

cdef extern from "<errno.h>" nogil:
    int errno
    int EAGAIN, EINTR, EMSGSIZE, ENETDOWN, ENOBUFS, ENOMEM, ENXIO

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *buf, size_t count)
    ssize_t write(int fd, const void *buf, size_t count)
    ssize_t pread(int fd, void *buf, size_t count, long offset)
    int close(int fd)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_THREAD_CPUTIME_ID
    int clock_gettime(int clock, timespec *time)
    int clock_nanosleep(int clock, int flags, const timespec *request, timespec *remain)
    int TIMER_ABSTIME

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef extern from "<sys/mman.h>" nogil:
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS
    void *MAP_FAILED
    void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t length)
    int MADV_DONTNEED
    int madvise(void *address, size_t length, int advice)

cdef extern from "<sys/eventfd.h>" nogil:
    int EFD_NONBLOCK, EFD_CLOEXEC
    int eventfd(unsigned int initial, int flags)

cdef extern from "<sys/epoll.h>" nogil:
    int EPOLLIN, EPOLLERR, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    union epoll_data:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maximum, int timeout_ms)

cdef extern from "<sys/timerfd.h>" nogil:
    struct itimerspec:
        timespec it_interval, it_value
    int TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *value, itimerspec *before)

cdef extern from "<sys/ioctl.h>" nogil:
    unsigned long SIOCGIFMTU, SIOCGIFNAME
    int ioctl(int fd, unsigned long request, void *argument)

cdef extern from "<net/if.h>" nogil:
    struct ifreq:
        int ifr_ifindex
        int ifr_mtu

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    struct mmsghdr:
        msghdr msg_hdr
    int SOL_SOCKET, SO_ERROR, SO_ATTACH_FILTER, MSG_DONTWAIT, MSG_TRUNC
    int getsockname(int fd, sockaddr *address, socklen_t *length)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *length)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
    ssize_t recv(int fd, void *buf, size_t length, int flags)
    int sendmmsg(int fd, mmsghdr *messages, unsigned int count, int flags)

cdef extern from "<linux/virtio_net.h>" nogil:
    # It is before every frame that enters or leaves a PACKET_VNET_HDR socket, in host byte order.
    struct virtio_net_hdr:
        uint8_t flags
        uint8_t gso_type
        uint16_t hdr_len
        uint16_t gso_size
        uint16_t csum_start
        uint16_t csum_offset
    int VIRTIO_NET_HDR_F_NEEDS_CSUM
    int VIRTIO_NET_HDR_GSO_ECN
    int VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6
    int VIRTIO_NET_HDR_GSO_UDP_L4 "5"       # since 6.2, and not in older headers

cdef extern from "<linux/filter.h>" nogil:
    struct sock_filter:
        uint16_t code
        uint8_t jt, jf
        uint32_t k
    struct sock_fprog:
        unsigned short len
        sock_filter *filter
    uint16_t BPF_LD, BPF_LDX, BPF_ST, BPF_STX, BPF_ALU, BPF_JMP, BPF_RET, BPF_MISC
    uint16_t BPF_W, BPF_H, BPF_B, BPF_IMM, BPF_ABS, BPF_IND, BPF_MEM, BPF_LEN, BPF_MSH
    uint16_t BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_MOD, BPF_AND, BPF_OR, BPF_XOR, BPF_LSH, BPF_RSH, BPF_NEG
    uint16_t BPF_JA, BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET, BPF_K, BPF_X, BPF_A, BPF_TAX, BPF_TXA

cdef extern from "<linux/if_packet.h>" nogil:
    struct sockaddr_ll:
        int sll_ifindex
    struct tpacket_req:
        unsigned int tp_block_size, tp_block_nr, tp_frame_size, tp_frame_nr
    struct tpacket2_hdr:
        uint32_t tp_status
        uint32_t tp_len, tp_snaplen
        uint32_t tp_sec, tp_nsec
        uint16_t tp_mac
        uint16_t tp_vlan_tci, tp_vlan_tpid
    struct tpacket_stats:
        unsigned int tp_packets, tp_drops
    int SOL_PACKET "263"
    int PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION, PACKET_COPY_THRESH, PACKET_VNET_HDR, TPACKET_V2
    int PACKET_IGNORE_OUTGOING, PACKET_ADD_MEMBERSHIP, PACKET_DROP_MEMBERSHIP, PACKET_MR_PROMISC
    int PACKET_FANOUT, PACKET_FANOUT_FLAG_UNIQUEID
    int PACKET_FANOUT_FLAG_IGNORE_OUTGOING "0x4000"      # since 5.17, and not in older headers
    uint32_t TP_STATUS_KERNEL, TP_STATUS_USER, TP_STATUS_COPY, TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID
    uint32_t TP_STATUS_TS_SOFTWARE
