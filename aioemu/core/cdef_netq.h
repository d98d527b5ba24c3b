/* cdef_netq.h: network cards and TAP devices, for Python: plain declarations only, as in cdef.h. */

/* netq.c: the data path of a virtio network card; the control thread's unless port.h says otherwise */
typedef struct core_net core_net;
/* What a driver wants to receive (Virtio 1.2, 5.1.6.5). */
typedef struct {
    uint8_t promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast;
    uint8_t vlan_filter; /* only tags in `vlans` */
    uint8_t mac[6];
    uint8_t unused[3];
    uint32_t unicast_count, multicast_count; /* of each table */
    uint8_t unicast[384], multicast[384];    /* 64 addresses each */
    uint8_t vlans[512];                      /* a bit for each */
} core_net_filter;
core_net *core_net_new(core_chip *virtio, uint32_t pairs);
core_port *core_net_port(core_net *net);
void core_net_set_filter(core_net *net, const core_net_filter *filter);
void core_net_set_pairs(core_net *net, uint32_t pairs);
void core_net_set_features(core_net *net, uint64_t guest_offloads);
/* The eventfd that the driver's notifications of a data queue ring. */
int core_net_bell(core_net *net, uint32_t queue);
/* The driver drives it: its queues are served in this io context. */
int core_net_start(core_net *net, core_io *io);
void core_net_stop(core_net *net);
void core_net_shut(core_net *net);
int core_net_link(core_net *net);
void core_net_refresh(core_net *net);
void core_net_announce(core_net *net, int on);
/* The machine stands still, or goes on. */
void core_net_hold(core_net *net, int hold);
/* tap.c: a port over a TAP device's descriptors */
core_port *core_tap_new(const int *fds, uint32_t count, int vnet);
int core_tap_news_fd(core_port *tap);
