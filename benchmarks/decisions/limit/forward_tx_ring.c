/* The floor, sending by TX rings: what fastbridge could gain by them (core/transmit.pxd has none, and says why).
 *
 * As forward.c, but for the way out: each frame is copied, vnet header first, into a slot of the egress port's
 * TPACKET_V2 TX ring, and one send() tells the kernel of a batch. A frame that finds its slot busy is dropped.
 *
 *     forward_tx_ring IFACE IFACE        says "ready" on stdout, runs until it is stopped
 */
#define main main_by_sendmmsg /* the rest of it is what is compared with, and used here */
#include "forward.c"
#undef main

enum { DATA = TPACKET2_HDRLEN - sizeof(struct sockaddr_ll) };

struct tx_port {
    struct port port;
    uint8_t *slots;
    uint32_t next;
};

static struct tx_port open_tx_port(const char *name)
{
    struct tx_port out = {.port = open_port(name)};
    struct tpacket_req request = {BLOCK, SLOTS * SLOT / BLOCK, SLOT, SLOTS};
    int version = TPACKET_V2, on = 1, fd = out.port.tx;
    need(setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) == 0, "PACKET_VERSION");
    need(setsockopt(fd, SOL_PACKET, PACKET_LOSS, &on, sizeof on) == 0, "PACKET_LOSS");
    need(setsockopt(fd, SOL_PACKET, PACKET_TX_RING, &request, sizeof request) == 0, "PACKET_TX_RING");
    out.slots = mmap(NULL, (size_t)SLOTS * SLOT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    need(out.slots != MAP_FAILED, "mmap");
    return out;
}

static struct tpacket2_hdr *free_slot(struct tx_port *out)
{
    struct tpacket2_hdr *slot = (struct tpacket2_hdr *)(out->slots + (size_t)(out->next % SLOTS) * SLOT);
    uint32_t status = __atomic_load_n(&slot->tp_status, __ATOMIC_ACQUIRE);
    return status & (TP_STATUS_SEND_REQUEST | TP_STATUS_SENDING) ? NULL : slot;
}

static int forward_by_ring(struct port *in, struct tx_port *out)
{
    int n = 0;
    for (; n < BURST; n++) {
        struct tpacket2_hdr *slot = slot_at(in, in->head), *to;
        if (!(__atomic_load_n(&slot->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER))
            break;
        in->head++;
        to = free_slot(out);
        if (to && slot->tp_snaplen == slot->tp_len && slot->tp_len + VNET <= SLOT - DATA) {
            memcpy((uint8_t *)to + DATA, (uint8_t *)slot + slot->tp_mac - VNET, slot->tp_len + VNET);
            to->tp_len = slot->tp_len + VNET;
            __atomic_store_n(&to->tp_status, TP_STATUS_SEND_REQUEST, __ATOMIC_RELEASE);
            out->next++;
        }
        __atomic_store_n(&slot->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    }
    in->tail = in->head;
    if (n)
        send(out->port.tx, NULL, 0, MSG_DONTWAIT);
    return n;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s IFACE IFACE\n", argv[0]);
        return 2;
    }
    struct tx_port a = open_tx_port(argv[1]), b = open_tx_port(argv[2]);
    struct pollfd both[] = {{.fd = a.port.rx, .events = POLLIN}, {.fd = b.port.rx, .events = POLLIN}};
    uint64_t last = now();
    puts("ready");
    fflush(stdout);
    for (;;) {
        if (forward_by_ring(&a.port, &b) + forward_by_ring(&b.port, &a))
            last = now();
        else if (now() - last > SPIN_NS)
            poll(both, 2, -1);
    }
}
