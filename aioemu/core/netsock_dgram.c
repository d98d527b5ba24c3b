/* netsock_dgram.c: one frame a datagram: UDP, multicast, unix datagrams. Datagrams that cannot go are lost, as on a wire;
 * a socket whose queue is full makes the NIC wait. */
#include <errno.h>
#include <string.h>

#include "netsock.h"

enum { SLOT = CORE_FRAME_MAX + 1 }; /* a datagram that fills it was too long */

/* ---- sending -------------------------------------------------------------------------------------------------------- */

/* A unix socket without a connection is always writable by epoll's account, whatever its peer's queue: come back later
 * and later. Others say when they have room. */
static void wait_for_room(struct core_netsock *s) {
    s->waits = true;
    if (s->to_size && s->to.ss_family == AF_UNIX) {
        int64_t longer = s->retry_ns * 2;
        s->retry_ns = longer < NETSOCK_RETRY_MIN_NS   ? NETSOCK_RETRY_MIN_NS
                      : longer > NETSOCK_RETRY_MAX_NS ? NETSOCK_RETRY_MAX_NS
                                                      : longer;
    }
}

/* The first datagram did not go: it is lost, unless waiting helps. */
static int failed(struct core_netsock *s, const struct core_frame *frame) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        wait_for_room(s);
        return 0;
    }
    core_port_drop_in(&s->port, errno == EMSGSIZE ? CORE_DROP_TOO_LONG : CORE_DROP_HOST, frame->size);
    return 1;
}

static int send_batch(struct core_netsock *s, const struct core_frame *frames, int count) {
    struct mmsghdr messages[NETSOCK_BATCH];
    for (int i = 0; i < count; i++) {
        messages[i] = (struct mmsghdr){
            .msg_hdr = {.msg_name = s->to_size ? &s->to : NULL,
                        .msg_namelen = s->to_size,
                        .msg_iov = (struct iovec *)(frames[i].iov + 1),
                        .msg_iovlen = frames[i].count - 1},
        };
    }
    int sent;
    do {
        sent = sendmmsg(s->fd, messages, (unsigned)count, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        return failed(s, frames);
    }
    s->retry_ns = 0;
    return sent;
}

/* ---- receiving ------------------------------------------------------------------------------------------------------ */

static int receive_batch(struct core_netsock *s) {
    struct mmsghdr messages[NETSOCK_DATAGRAMS];
    struct iovec slots[NETSOCK_DATAGRAMS];
    for (int i = 0; i < NETSOCK_DATAGRAMS; i++) {
        slots[i] = (struct iovec){.iov_base = s->buffer + (size_t)i * SLOT, .iov_len = SLOT};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &slots[i], .msg_iovlen = 1}};
    }
    int got;
    do {
        got = recvmmsg(s->fd, messages, NETSOCK_DATAGRAMS, MSG_DONTWAIT, NULL);
    } while (got < 0 && errno == EINTR);
    s->start = 0;
    s->fill = got > 0 ? (uint32_t)got : 0;
    for (int i = 0; i < got; i++) {
        s->sizes[i] = messages[i].msg_len;
    }
    return got;
}

/* Pass on the datagrams that wait, or as many as the NIC takes. */
static void pass_all(struct core_netsock *s) {
    struct iovec frames[NETSOCK_DATAGRAMS];
    int count = 0;
    for (uint32_t i = s->start; i < s->fill; i++) {
        frames[count++] = (struct iovec){.iov_base = s->buffer + (size_t)i * SLOT, .iov_len = s->sizes[i]};
    }
    s->start += (uint32_t)core_netsock_pass(s, frames, count);
}

static int receive(struct core_netsock *s) {
    for (int turn = 0; turn < NETSOCK_TURNS; turn++) {
        pass_all(s);
        if (s->blocked) {
            return 0;
        }
        if (receive_batch(s) <= 0) {
            /* an error is what became of an earlier datagram (ECONNREFUSED): the socket lives; reading it took it off */
            return 0;
        }
    }
    pass_all(s);
    return 0;
}

const struct netsock_kind core_netsock_dgram = {
    .buffer_size = NETSOCK_DATAGRAMS * SLOT, .send = send_batch, .receive = receive};
