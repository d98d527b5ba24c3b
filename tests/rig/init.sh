#!/bin/busybox sh
# Process 1 of the rig's machine: the host's root below an overlay in memory, then the command, then power off.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
stty -F /dev/ttyS1 raw -echo
while read -r module; do insmod "$module"; done </etc/modules.load
mkdir -p /host /rw /new
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /host || poweroff -f
mount -t tmpfs rw /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work root /new || poweroff -f
for folder in proc sys dev; do mount -o bind /$folder /new/$folder; done
mkdir -p /new/dev/shm /new/dev/pts /new/run
mount -t tmpfs shm /new/dev/shm
mount -t devpts pts /new/dev/pts
mount -t tracefs trace /sys/kernel/tracing
mount -o bind /sys/kernel/tracing /new/sys/kernel/tracing
ip link set lo up
cp /rig/go /new/run/go
echo rig-up >/dev/ttyS1
cat /dev/ttyS1 >/dev/null & # the host's heartbeat
RIG_RESULTS=/dev/ttyS1 chroot /new /bin/sh /run/go </dev/null
echo "rig-status $?" >/dev/ttyS1
poweroff -f
