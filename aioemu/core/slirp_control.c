/* slirp_control.c: what is changed while user networking runs: forwarded ports, and the list of connections. Control
 * thread. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "slirp.h"

static int result(int rc) {
    return rc < 0 ? -(errno ? errno : EINVAL) : 0;
}

/* Forward (host), a socket address of the host's, to (guest), an IPv4 or IPv6 one; or stop that. 0 or -errno. */
int core_slirp_hostfwd(core_port *port, int udp, const uint8_t *host, uint32_t host_size, const uint8_t *guest,
                       uint32_t guest_size) {
    struct core_slirp *s = core_slirp_of(port);
    struct sockaddr_storage from = {0}, to = {0};
    if (host_size > sizeof from || guest_size > sizeof to) {
        return -EINVAL;
    }
    memcpy(&from, host, host_size);
    memcpy(&to, guest, guest_size);
    int flags = (udp ? SLIRP_FWD_UDP : 0) | (from.ss_family == AF_INET6 ? SLIRP_FWD_V6ONLY : 0);
    core_slirp_enter(s);
    errno = 0;
    int rc = result(s->library.add_hostxfwd(s->instance, (struct sockaddr *)&from, host_size, (struct sockaddr *)&to,
                                            guest_size, flags));
    core_slirp_leave(s);
    return rc;
}

int core_slirp_hostfwd_remove(core_port *port, int udp, const uint8_t *host, uint32_t host_size) {
    struct core_slirp *s = core_slirp_of(port);
    struct sockaddr_storage from = {0};
    if (host_size > sizeof from) {
        return -EINVAL;
    }
    memcpy(&from, host, host_size);
    core_slirp_enter(s);
    int rc = s->library.remove_hostxfwd(s->instance, (struct sockaddr *)&from, host_size, udp ? SLIRP_FWD_UDP : 0);
    core_slirp_leave(s);
    return rc < 0 ? -ENOENT : 0;
}

/* Let a TCP port inside, at (address), be a command's standard input and output (kind 0), or a unix socket (1). */
int core_slirp_guestfwd(core_port *port, int kind, const char *target, const uint8_t *address, int number) {
    struct core_slirp *s = core_slirp_of(port);
    struct in_addr inside;
    memcpy(&inside, address, sizeof inside);
    core_slirp_enter(s);
    int rc = kind == 0 ? s->library.add_exec(s->instance, target, &inside, number)
                       : s->library.add_unix(s->instance, target, &inside, number);
    core_slirp_leave(s);
    return rc < 0 ? -EADDRINUSE : 0;
}

/* The connections as text, as much as fits in (room) with its zero; the length that it would have. */
int core_slirp_info(core_port *port, char *text, int room) {
    struct core_slirp *s = core_slirp_of(port);
    core_slirp_enter(s);
    char *info = s->library.connection_info(s->instance);
    int size = snprintf(text, (size_t)room, "%s", info ? info : "");
    s->library.free(info);
    core_slirp_leave(s);
    return size;
}

/* The guest's time stands still, or goes on: so does the library's. What comes meanwhile waits. */
void core_slirp_hold(core_port *port, int on) {
    struct core_slirp *s = core_slirp_of(port);
    core_slirp_enter(s);
    if (s->held != (on != 0)) {
        int64_t now_ns = core_monotonic_ns();
        s->behind_ns += on ? 0 : now_ns - s->held_ns;
        s->held_ns = now_ns;
        s->held = on != 0;
        core_io_change(&s->source, on ? 0 : EPOLLIN);
        core_slirp_work(s);
    }
    core_slirp_leave(s);
}

/* Host descriptors that the guest's connections have now. */
int core_slirp_sockets(core_port *port) {
    struct core_slirp *s = core_slirp_of(port);
    core_io_enter(s->io);
    int sockets = s->guard.sockets;
    core_io_leave(s->io);
    return sockets;
}
