/* netsock_stream.c: frames on a byte stream, each behind its length. */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "netsock.h"

_Static_assert(NETSOCK_BUFFER >= 2 * (NETSOCK_LENGTH + NETSOCK_PEER_MAX), "a whole frame always fits behind another");

/* ---- sending -------------------------------------------------------------------------------------------------------- */

int core_netsock_send_rest(struct core_netsock *s) {
    while (s->rest_at < s->rest_end) {
        ssize_t sent = send(s->fd, s->rest + s->rest_at, s->rest_end - s->rest_at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0) {
            return errno == EWOULDBLOCK ? -EAGAIN : -errno;
        }
        s->rest_at += (uint32_t)sent;
    }
    s->rest_at = s->rest_end = 0;
    return 0;
}

/* Keep what follows the first (sent) bytes of a length and its frame. */
static void keep_rest(struct core_netsock *s, const uint32_t *length, const struct core_frame *frame, uint32_t sent) {
    memcpy(s->rest, length, NETSOCK_LENGTH);
    s->rest_end = NETSOCK_LENGTH + core_frame_copy(frame, 0, s->rest + NETSOCK_LENGTH, CORE_FRAME_MAX);
    s->rest_at = sent;
}

/* How many of the frames (sent) bytes are; one that was sent in part is kept and counts. */
static int account(struct core_netsock *s, const uint32_t *lengths, const struct core_frame *frames, int count,
                   size_t sent) {
    for (int i = 0; i < count; i++) {
        size_t whole = NETSOCK_LENGTH + (size_t)frames[i].size;
        if (sent < whole) {
            s->waits = true;
            if (sent == 0) {
                return i;
            }
            keep_rest(s, &lengths[i], &frames[i], (uint32_t)sent);
            return i + 1;
        }
        sent -= whole;
    }
    return count;
}

static int send_batch(struct core_netsock *s, const struct core_frame *frames, int count) {
    struct iovec iov[IOV_MAX];
    uint32_t lengths[NETSOCK_BATCH];
    size_t parts = 0;
    int batch = 0;
    for (; batch < count && parts + frames[batch].count <= IOV_MAX; batch++) {
        lengths[batch] = htonl(frames[batch].size);
        iov[parts++] = (struct iovec){.iov_base = &lengths[batch], .iov_len = NETSOCK_LENGTH};
        memcpy(iov + parts, frames[batch].iov + 1, (frames[batch].count - 1) * sizeof *iov);
        parts += frames[batch].count - 1;
    }
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = parts};
    ssize_t sent;
    do {
        sent = sendmsg(s->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        s->waits = errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS || errno == ENOMEM;
        s->broken = !s->waits;
        return 0;
    }
    return account(s, lengths, frames, batch, (size_t)sent);
}

/* ---- receiving ------------------------------------------------------------------------------------------------------ */

/* Take whole frames out of the buffer: how many, fewer than there are where (frames) is full. -EPROTO: the framing is
 * lost. *end is where the next frame begins. */
static int split(struct core_netsock *s, struct iovec *frames, uint32_t *end) {
    int count = 0;
    uint32_t at = s->start;
    while (count < NETSOCK_BATCH && s->fill - at >= NETSOCK_LENGTH) {
        uint32_t length;
        memcpy(&length, s->buffer + at, sizeof length);
        length = ntohl(length);
        if (length > NETSOCK_PEER_MAX) {
            return -EPROTO;
        }
        if (s->fill - at - NETSOCK_LENGTH < length) {
            break;
        }
        frames[count++] = (struct iovec){.iov_base = s->buffer + at + NETSOCK_LENGTH, .iov_len = length};
        at += NETSOCK_LENGTH + length;
    }
    *end = at;
    return count;
}

/* Pass on all whole frames, or as many as the NIC takes. */
static int pass_all(struct core_netsock *s) {
    struct iovec frames[NETSOCK_BATCH];
    uint32_t end;
    int count;
    while ((count = split(s, frames, &end)) > 0) {
        int taken = core_netsock_pass(s, frames, count);
        if (taken < count) {
            s->start = (uint32_t)((uint8_t *)frames[taken].iov_base - s->buffer) - NETSOCK_LENGTH;
            return 0;
        }
        s->start = end;
    }
    return count;
}

static ssize_t fill_up(struct core_netsock *s) {
    if (s->start) { /* what is left is less than one frame */
        memmove(s->buffer, s->buffer + s->start, s->fill - s->start);
        s->fill -= s->start;
        s->start = 0;
    }
    ssize_t got;
    do {
        got = recv(s->fd, s->buffer + s->fill, NETSOCK_BUFFER - s->fill, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got > 0) {
        s->fill += (uint32_t)got;
    }
    return got;
}

static int receive(struct core_netsock *s) {
    for (int turn = 0; turn < NETSOCK_TURNS; turn++) {
        int rc = pass_all(s);
        if (rc < 0 || s->blocked) {
            return rc;
        }
        ssize_t got = fill_up(s);
        if (got == 0) {
            return 1;
        }
        if (got < 0) {
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
        }
    }
    return pass_all(s); /* it is readable still: the next turn comes */
}

const struct netsock_kind core_netsock_stream = {.buffer_size = NETSOCK_BUFFER, .send = send_batch, .receive = receive};
