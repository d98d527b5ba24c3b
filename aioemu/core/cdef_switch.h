/* cdef_switch.h: switches and hubs, for Python: plain declarations only, as in cdef.h. */

typedef struct core_switch core_switch;
typedef struct {
    uint64_t mac; /* its first byte is the highest of six */
    uint32_t port;
    int64_t age_ns;
} core_station;
core_switch *core_switch_new(core_io *io, int learns, int passes_reserved, uint32_t queue_frames, int64_t age_ns);
core_port *core_switch_add(core_switch *s);
int core_switch_stations(core_switch *s, core_station *stations, int max);
void core_switch_free(core_switch *s);
