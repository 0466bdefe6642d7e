# The memory of links: where a port keeps them, and how they go.
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from .link cimport NOBODY, Link, free_queue
from .linux cimport pthread_mutex_destroy
from .port cimport MAX_PORTS, Port, PortLinks


cdef inline bint make_places(Port *port, uint32_t ingress, uint32_t egress) noexcept nogil:
    """Make the places of a port's links, with those of pairs if need be. False: no memory."""
    if port.links == NULL:
        port.links = <PortLinks *>calloc(1, sizeof(PortLinks))
    if port.links != NULL and port.links.pairs == NULL and ingress != <uint32_t>NOBODY and egress != <uint32_t>NOBODY:
        port.links.pairs = <Link **>calloc(MAX_PORTS, sizeof(Link *))
        return port.links.pairs != NULL
    return port.links != NULL


cdef inline Link **slot_of(PortLinks *links, uint32_t ingress, uint32_t egress) noexcept nogil:
    """The place of a link, by its ports; NULL: the port has no pairs."""
    if egress == <uint32_t>NOBODY:
        return &links.from_pod
    if ingress == <uint32_t>NOBODY:
        return &links.to_pod
    return NULL if links.pairs == NULL else &links.pairs[ingress]


cdef inline bint is_on(const Link *link) noexcept nogil:
    return link != NULL and not link.leaving


cdef inline void free_link(Link **slot) noexcept nogil:
    """Free a link that no frame is on, if there is one."""
    if slot[0] == NULL:
        return
    free_queue(slot[0])
    pthread_mutex_destroy(&slot[0].mutex)
    free(slot[0])
    slot[0] = NULL


cdef inline void free_links(Port *port, uint32_t ports) noexcept nogil:
    """Free all links of a port; no frame is on them. ports: how many indices are in use or once were."""
    cdef PortLinks *links = port.links
    cdef uint32_t i
    if links == NULL:
        return
    free_link(&links.to_pod)
    free_link(&links.from_pod)
    for i in range(ports if links.pairs != NULL else 0):
        free_link(&links.pairs[i])
    free(links.pairs)
    free(links)
    port.links = NULL


cdef inline bint tidy_link(Link **slot, uint32_t *left) noexcept nogil:
    """Free a link that was taken off, if it is empty; else count it. Returns whether there is a link still."""
    if slot[0] != NULL and slot[0].leaving:
        if slot[0].waiting == 0:
            free_link(slot)
        else:
            left[0] += 1
    return slot[0] != NULL


cdef inline uint32_t tidy_port(Port *port, uint32_t ports) noexcept nogil:
    """Free the links of a port that were taken off and are empty. Returns how many that were taken off are left."""
    cdef PortLinks *links = port.links
    cdef uint32_t i, left = 0
    cdef bint there
    if links == NULL:
        return 0
    there = tidy_link(&links.to_pod, &left)
    there = tidy_link(&links.from_pod, &left) or there
    for i in range(ports if links.pairs != NULL else 0):
        there = tidy_link(&links.pairs[i], &left) or there
    if not there:
        free_links(port, ports)
    return left
