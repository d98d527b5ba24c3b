/* net.h: a virtio network card on virtio-mmio (Virtio 1.2, 4.2 and 5.1), driven by looking at memory, without interrupts. */
#ifndef NET_H
#define NET_H

#include "guest.h"

#define NET_FRAME_MAX 2036 /* of the buffers: no frame here is longer */
#define NET_HEAD      14

struct net_frame {
    uint8_t header[12]; /* struct virtio_net_hdr_v1 */
    uint8_t bytes[NET_FRAME_MAX];
};

/* Find and start the first card: 0, or what is the matter was told. */
int net_open(void);
uint32_t net_status(void); /* of the configuration: bit 0 link up */
/* A place for a frame to send, or NULL while all are on their way; net_queue sends it, net_kick tells the device. */
struct net_frame *net_room(void);
void net_queue(uint32_t size);
void net_kick(void);
bool net_all_sent(void);
/* The oldest frame that came, or NULL; net_done gives its buffer back. */
struct net_frame *net_poll(uint32_t *size);
void net_done(void);

#endif
