#!/bin/busybox sh
# The lab's /init: modules, root disk, and on /run what this run brings along; then systemd.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do insmod "$module"; done
mount -t ext4 /dev/vda /newroot || exec sh
mkdir -p /newroot/dev
mount -t tmpfs -o mode=0755 run /newroot/run
cp -a /brought/. /newroot/run/
for directory in dev proc sys; do mount --move "/$directory" "/newroot/$directory"; done
exec switch_root /newroot /sbin/init
