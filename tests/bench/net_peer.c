/*
 * net_peer.c: the other end of a TAP device for the benches: net_peer flood|window|echo IFNAME SIZE
 *
 * flood: send frames as fast as the device takes them. window: keep 64 frames on their way, as they come back. echo:
 * send back what comes. Frames have the type 0x88b5. Runs until it is killed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { TYPE = 0x88b5, BATCH = 32, WINDOW = 64, SIZE_MAX_ = 2048, QUIET_MS = 20 };

static uint8_t frame[SIZE_MAX_];
static uint8_t frames[BATCH][SIZE_MAX_];
static struct iovec places[BATCH];
static struct mmsghdr batch[BATCH];

static int open_packets(const char *name) {
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(TYPE)};
    int fd = socket(AF_PACKET, SOCK_RAW, htons(TYPE)), on = 1, bytes = 4 << 20;
    at.sll_ifindex = (int)if_nametoindex(name);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0) {
        perror(name);
        exit(1);
    }
    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    return fd;
}

/* Every message of the batch is a frame of its own. */
static void fill(unsigned size) {
    for (int i = 0; i < BATCH; i++) {
        memcpy(frames[i], frame, size);
        places[i] = (struct iovec){.iov_base = frames[i], .iov_len = size};
        batch[i].msg_hdr.msg_iov = &places[i];
        batch[i].msg_hdr.msg_iovlen = 1;
    }
}

static void flood(int fd) {
    for (;;) {
        (void)sendmmsg(fd, batch, BATCH, 0); /* what the device does not take is lost */
    }
}

/* In batches: its time is counted for both monitors, so it takes as little as it can. */
static void window(int fd) {
    for (;;) {
        for (int i = 0; i < WINDOW; i += BATCH) {
            (void)sendmmsg(fd, batch, BATCH, MSG_DONTWAIT);
        }
        struct pollfd news = {.fd = fd, .events = POLLIN};
        while (poll(&news, 1, QUIET_MS) > 0) { /* lost frames, or nobody there: begin anew */
            int got = recvmmsg(fd, batch, BATCH, MSG_DONTWAIT, NULL);
            if (got > 0) {
                (void)sendmmsg(fd, batch, (unsigned)got, MSG_DONTWAIT);
            }
        }
    }
}

static void echo(int fd) {
    uint8_t back[SIZE_MAX_];
    for (;;) {
        ssize_t got = recv(fd, back, sizeof back, 0);
        if (got > 0) {
            (void)send(fd, back, (size_t)got, 0);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 4) {
        return 2;
    }
    unsigned size = (unsigned)atoi(argv[3]);
    int fd = open_packets(argv[2]);
    memset(frame, 0xff, 6);
    frame[6] = 2;
    frame[12] = TYPE >> 8;
    frame[13] = TYPE & 0xff;
    puts("ready");
    fflush(stdout);
    if (size < 14 || size > SIZE_MAX_) {
        return 2;
    }
    fill(size);
    if (strcmp(argv[1], "flood") == 0) {
        flood(fd);
    } else if (strcmp(argv[1], "window") == 0) {
        window(fd);
    } else {
        echo(fd);
    }
    return 0;
}
