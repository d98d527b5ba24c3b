/* tap_driver.c: a TAP device's port, given batches as a card gives them, for the sanitizers to watch. In a network
 * namespace of its own:
 *
 *     tap_driver plain|ring|refused|gone ROUNDS
 *
 * plain: one system call a frame. ring: all of a batch at once. refused: the host has no io_uring for us. gone: the device
 * disappears. Prints nothing when every promise held; else the first that did not, and exit status 1. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tap_internal.h"

#define CHECK(what, ...)                                                                                               \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            printf(__VA_ARGS__);                                                                                       \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { TYPE = 0x88b5, MOST = 64, HEAD = 14 + 4, PARTS = 4 };

static const uint32_t sizes[] = {64, 60, 1514, 2048, 2049, 9000, 66, 256};

static struct {
    uint8_t bytes[9000];
    struct iovec iov[PARTS];
} store[MOST];
static struct core_frame frames[MOST];
static struct core_net_hdr plain_header;

static int no_frames(struct core_port *port, uint32_t queue, const struct core_frame *some, int count) {
    (void)port, (void)queue, (void)some;
    return count;
}

static void set_up(const char *name, int mtu) {
    struct ifreq request = {.ifr_mtu = mtu};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    strcpy(request.ifr_name, name);
    CHECK(ioctl(fd, SIOCSIFMTU, &request) == 0, "mtu: %m\n");
    request.ifr_flags = IFF_UP;
    CHECK(ioctl(fd, SIOCSIFFLAGS, &request) == 0, "up: %m\n");
    close(fd);
}

static int open_tap(const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK), header = CORE_NET_HDR_SIZE;
    strcpy(request.ifr_name, name);
    CHECK(fd >= 0 && ioctl(fd, TUNSETIFF, &request) == 0 && ioctl(fd, TUNSETVNETHDRSZ, &header) == 0, "tap: %m\n");
    set_up(name, 9000);
    return fd;
}

static int listen_to(const char *name) {
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(TYPE)};
    int fd = socket(AF_PACKET, SOCK_RAW, htons(TYPE)), bytes = 8 << 20;
    at.sll_ifindex = (int)if_nametoindex(name);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0, "listener: %m\n");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    return fd;
}

/* Frame (number) in pieces, as guests have them. */
static void make(int at, uint32_t number) {
    uint32_t size = sizes[number % (sizeof sizes / sizeof *sizes)];
    uint8_t *bytes = store[at].bytes;
    memset(bytes, (int)number, size);
    memset(bytes, 0xff, 6);
    bytes[6] = 2;
    bytes[12] = TYPE >> 8;
    bytes[13] = TYPE & 0xff;
    memcpy(bytes + 14, &number, sizeof number);
    struct iovec *iov = store[at].iov;
    iov[0] = (struct iovec){.iov_base = &plain_header, .iov_len = sizeof plain_header};
    iov[1] = (struct iovec){.iov_base = bytes, .iov_len = 14};
    iov[2] = (struct iovec){.iov_base = bytes + 14, .iov_len = 5};
    iov[3] = (struct iovec){.iov_base = bytes + 19, .iov_len = size - 19};
    frames[at] = (struct core_frame){.iov = iov, .count = PARTS, .size = size};
}

static void expect(int fd, uint32_t number) {
    static uint8_t came[1 << 16];
    make(0, number);
    ssize_t size = recv(fd, came, sizeof came, MSG_DONTWAIT);
    CHECK(size == frames[0].size, "frame %u of %u bytes came as %zd\n", number, frames[0].size, size);
    CHECK(memcmp(came, store[0].bytes, (size_t)size) == 0, "frame %u is not what was sent\n", number);
}

static void forbid_rings(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0,
          "seccomp: %m\n");
}

int main(int argc, char **argv) {
    CHECK(argc == 3, "tap_driver plain|ring|refused|gone ROUNDS\n");
    bool plain = strcmp(argv[1], "plain") == 0, refused = strcmp(argv[1], "refused") == 0;
    bool gone = strcmp(argv[1], "gone") == 0;
    static const struct core_port_ops ops = {.name = "driver", .deliver = no_frames};
    struct core_port sender;
    int fd = open_tap("lab0"), listener = listen_to("lab0"), rounds = atoi(argv[2]);
    core_port *port = core_tap_new(&fd, 1, 1);
    CHECK(port, "no port\n");
    core_port_init(&sender, &ops, 0);
    CHECK(core_port_join(&sender, port) == 0, "not joined\n");
    struct tap *tap = (struct tap *)port;
    if (refused) {
        forbid_rings();
    }
    uint32_t sent = 0, received = 0;
    for (int round = 0; round < rounds; round++) {
        int count = 2 + round % (MOST - 1);
        for (int i = 0; i < count; i++) {
            make(i, sent + (uint32_t)i);
        }
        tap->queues[0].ring_batches = plain || tap->queues[0].no_ring ? 0 : 2;
        int done = core_port_send(&sender, 0, frames, count);
        CHECK(done == count, "%d of %d frames were done with\n", done, count);
        for (sent += (uint32_t)count; received < sent; received++) {
            expect(listener, received);
        }
    }
    CHECK(tap->queues[0].no_ring == refused, "no ring: %d\n", tap->queues[0].no_ring);
    CHECK((tap->queues[0].ring != NULL) == !(plain || refused), "ring: %p\n", (void *)tap->queues[0].ring);
    if (gone) {
        CHECK(system("ip link del lab0") == 0, "the device stays\n");
        tap->queues[0].ring_batches = 1;
        CHECK(core_port_send(&sender, 0, frames, MOST) == MOST, "who sends waits for a device that is gone\n");
        CHECK(tap->gone, "nobody is told\n");
    }
    core_port_part(&sender);
    core_port_free(port);
    close(listener);
    return 0;
}
