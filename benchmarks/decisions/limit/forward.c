/* The floor: a forwarder with fastbridge's system calls and nothing else.
 *
 * Two interfaces, whatever arrives on one leaves by the other: TPACKET_V2 rings of 2 KiB slots for RX, frames sent
 * by sendmmsg straight from their slots on a socket of its own, vnet headers passed through, a spin of 50 us before
 * it sleeps in poll(). No frame is parsed, no address looked up, nothing counted, and frames larger than a slot are
 * dropped. What fastbridge takes beyond this is the price of being a switch.
 *
 *     forward IFACE IFACE        says "ready" on stdout, runs until it is stopped
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

enum { SLOT = 2048, BLOCK = 65536, SLOTS = 2048, BURST = 64, VNET = sizeof(struct virtio_net_hdr), SPIN_NS = 50000 };

struct port {
    int rx, tx;
    uint8_t *ring;
    uint32_t head, tail;
};

static void need(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static int open_socket(const char *name, int protocol, int ring)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(protocol)};
    struct tpacket_req request = {BLOCK, SLOTS * SLOT / BLOCK, SLOT, SLOTS};
    struct packet_mreq promiscuous = {.mr_type = PACKET_MR_PROMISC};
    int fd = socket(AF_PACKET, SOCK_RAW, 0), version = TPACKET_V2, on = 1;
    need(fd >= 0, "socket");
    address.sll_ifindex = promiscuous.mr_ifindex = if_nametoindex(name);
    need(address.sll_ifindex != 0, name);
    need(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) == 0, "PACKET_VNET_HDR");
    if (ring) {
        need(setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) == 0, "PACKET_VERSION");
        need(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) == 0, "PACKET_IGNORE_OUTGOING");
        need(setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous) == 0, "promiscuous");
        need(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof request) == 0, "PACKET_RX_RING");
    }
    need(bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "bind");
    return fd;
}

static struct port open_port(const char *name)
{
    struct port port = {.rx = open_socket(name, ETH_P_ALL, 1), .tx = open_socket(name, 0, 0)};
    port.ring = mmap(NULL, (size_t)SLOTS * SLOT, PROT_READ | PROT_WRITE, MAP_SHARED, port.rx, 0);
    need(port.ring != MAP_FAILED, "mmap");
    return port;
}

static struct tpacket2_hdr *slot_at(const struct port *port, uint32_t i)
{
    return (struct tpacket2_hdr *)(port->ring + (size_t)(i % SLOTS) * SLOT);
}

static int forward(struct port *in, const struct port *out)
{
    static struct mmsghdr messages[BURST];
    static struct iovec vectors[BURST];
    int n = 0, sent = 0;
    while (n < BURST) {
        struct tpacket2_hdr *slot = slot_at(in, in->head);
        if (!(__atomic_load_n(&slot->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER))
            break;
        in->head++;
        if (slot->tp_snaplen < slot->tp_len)
            continue;
        vectors[n].iov_base = (uint8_t *)slot + slot->tp_mac - VNET;
        vectors[n].iov_len = slot->tp_len + VNET;
        messages[n].msg_hdr.msg_iov = &vectors[n];
        messages[n].msg_hdr.msg_iovlen = 1;
        n++;
    }
    while (sent < n) {
        int done = sendmmsg(out->tx, messages + sent, n - sent, MSG_DONTWAIT);
        sent += done > 0 ? done : 1;
    }
    while (in->tail != in->head)
        __atomic_store_n(&slot_at(in, in->tail++)->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    return n;
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s IFACE IFACE\n", argv[0]);
        return 2;
    }
    struct port a = open_port(argv[1]), b = open_port(argv[2]);
    struct pollfd both[] = {{.fd = a.rx, .events = POLLIN}, {.fd = b.rx, .events = POLLIN}};
    uint64_t last = now();
    puts("ready");
    fflush(stdout);
    for (;;) {
        if (forward(&a, &b) + forward(&b, &a))
            last = now();
        else if (now() - last > SPIN_NS)
            poll(both, 2, -1);
    }
}
