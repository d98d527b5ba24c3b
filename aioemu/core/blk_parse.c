/* blk_parse.c: a chain of the queue as a request (Virtio 1.2, 5.2.6), however the driver cut it into descriptors: the
 * first 16 readable bytes are the header, the last writable one the status, what is between them the data. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blk.h"

struct header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct range {
    uint64_t sector;
    uint32_t sectors, flags;
};

enum { UNMAP = 1 }; /* of a range's flags */

static int grow(struct blk_req *r) {
    uint32_t room = r->room ? 2 * r->room : 8;
    struct iovec *iov = realloc(r->iov, room * sizeof *iov);
    if (iov) {
        r->iov = iov;
    }
    struct iovec *part = realloc(r->part, room * sizeof *part);
    if (part) {
        r->part = part;
    }
    uint64_t *gpas = realloc(r->gpas, room * sizeof *gpas);
    if (gpas) {
        r->gpas = gpas;
    }
    if (!iov || !part || !gpas) {
        return -ENOMEM;
    }
    r->room = room;
    return 0;
}

static int add_piece(struct blk_req *r, uint64_t gpa, uint8_t *host, uint64_t size) {
    if (r->count == r->room && grow(r) < 0) {
        return -ENOMEM;
    }
    r->iov[r->count] = (struct iovec){.iov_base = host, .iov_len = size};
    r->gpas[r->count++] = gpa;
    return 0;
}

/* The data: (size) bytes behind the first (skip) ones of the readable or the writable part. */
static int gather(struct blk_req *r, const struct core_vchain *chain, bool writable, uint64_t skip, uint64_t size) {
    core_machine *m = r->blk->virtio->chip.machine;
    for (uint32_t i = 0; i < chain->count && size; i++) {
        const core_vseg *s = &chain->segments[i];
        if (s->writable != writable) {
            continue;
        }
        if (skip >= s->size) {
            skip -= s->size;
            continue;
        }
        uint64_t gpa = s->gpa + skip, left = s->size - skip < size ? s->size - skip : size;
        skip = 0;
        for (uint64_t run = 0; left; gpa += run, left -= run, size -= run) {
            uint8_t *host = vq_bytes(m, gpa, &run, writable);
            run = run < left ? run : left;
            if (!host || add_piece(r, gpa, host, run) < 0) {
                return -EPROTO;
            }
        }
    }
    return 0;
}

/* Copy the first (size) bytes of the gathered data. */
static void peek(const struct blk_req *r, void *to, uint32_t size) {
    uint8_t *at = to;
    for (uint32_t i = 0; i < r->count && size; i++) {
        uint32_t part = r->iov[i].iov_len < size ? (uint32_t)r->iov[i].iov_len : size;
        virtio_take(at, r->iov[i].iov_base, part);
        at += part;
        size -= part;
    }
}

static int take_header(struct blk_req *r, const struct core_vchain *chain, struct header *h) {
    if (chain->readable < BLK_HEADER || chain->writable < 1) {
        return -EPROTO;
    }
    r->count = 0;
    if (gather(r, chain, true, chain->writable - 1, 1) < 0) {
        return -EPROTO;
    }
    r->status = r->iov[0].iov_base;
    r->status_gpa = r->gpas[0];
    r->count = 0;
    if (gather(r, chain, false, 0, BLK_HEADER) < 0) {
        return -EPROTO;
    }
    peek(r, h, BLK_HEADER);
    r->count = 0;
    return 0;
}

/* Whether [offset, +length) in bytes is on the disk, in whole blocks. */
static bool is_possible(const struct core_blk *b, uint64_t sector, uint64_t length) {
    uint64_t sectors = b->size / BLK_SECTOR, block = b->block_size;
    return sector <= sectors && length / BLK_SECTOR <= sectors - sector && length % block == 0 &&
           sector % (block / BLK_SECTOR) == 0;
}

static int parse_transfer(struct blk_req *r, const struct core_vchain *chain, const struct header *h, uint8_t *status) {
    bool is_write = r->type == BLK_WRITE;
    r->length = is_write ? chain->readable - BLK_HEADER : chain->writable - 1;
    *status = BLK_IOERR;
    if (!is_possible(r->blk, h->sector, r->length) || (is_write && r->blk->read_only)) {
        return 1;
    }
    r->offset = h->sector * BLK_SECTOR;
    return gather(r, chain, !is_write, is_write ? BLK_HEADER : 0, r->length);
}

static int parse_id(struct blk_req *r, const struct core_vchain *chain, uint8_t *status) {
    uint64_t size = chain->writable - 1 < BLK_ID ? chain->writable - 1 : BLK_ID;
    if (gather(r, chain, true, 0, size) < 0) {
        return -EPROTO;
    }
    const uint8_t *from = r->blk->serial;
    for (uint32_t i = 0; i < r->count; i++) {
        memcpy(r->iov[i].iov_base, from, r->iov[i].iov_len);
        from += r->iov[i].iov_len;
    }
    r->length = size;
    *status = BLK_OK;
    return 1;
}

/* One range of sectors, as the configuration offers (max_discard_seg, max_write_zeroes_seg: 1). */
static int parse_range(struct blk_req *r, const struct core_vchain *chain, uint8_t *status) {
    const struct core_blk *b = r->blk;
    struct range range = {0};
    uint32_t limit = r->type == BLK_DISCARD ? b->max_discard : b->max_zeroes;
    *status = BLK_UNSUPP;
    if (limit == 0 || chain->readable - BLK_HEADER > sizeof range) {
        return 1;
    }
    *status = BLK_IOERR;
    if (chain->readable - BLK_HEADER != sizeof range || b->read_only) {
        return 1;
    }
    if (gather(r, chain, false, BLK_HEADER, sizeof range) < 0) {
        return -EPROTO;
    }
    peek(r, &range, sizeof range);
    r->count = 0;
    r->unmap = range.flags & UNMAP;
    if ((range.flags & ~(uint32_t)UNMAP) || (r->type == BLK_DISCARD && r->unmap)) {
        *status = BLK_UNSUPP; /* 5.2.6.2: reserved bits */
        return 1;
    }
    if (range.sectors > limit || !is_possible(b, range.sector, (uint64_t)range.sectors * BLK_SECTOR)) {
        return 1;
    }
    r->offset = range.sector * BLK_SECTOR;
    r->length = (uint64_t)range.sectors * BLK_SECTOR;
    *status = BLK_OK;
    return r->length == 0;
}

int blk_parse(struct blk_req *r, const core_vchain_info *info, const struct core_vchain *chain, uint8_t *status) {
    struct header h = {0};
    if (take_header(r, chain, &h) < 0) {
        return -EPROTO;
    }
    r->slot = info->slot;
    r->epoch = info->epoch;
    r->writable = chain->writable;
    r->offset = r->length = r->done = 0;
    r->flushing = r->allocated = r->unmap = false;
    r->type = h.type < 0xff ? (uint8_t)h.type : 0xff;
    switch (r->type) {
    case BLK_READ:
    case BLK_WRITE: return parse_transfer(r, chain, &h, status);
    case BLK_FLUSH: return 0;
    case BLK_GET_ID: return parse_id(r, chain, status);
    case BLK_DISCARD:
    case BLK_WRITE_ZEROES: return parse_range(r, chain, status);
    default: *status = BLK_UNSUPP; return 1;
    }
}
