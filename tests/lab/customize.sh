#!/bin/sh
# Makes a Debian tree into the lab's. Run by mmdebstrap, outside of the tree.
#   customize.sh TREE INPUTS     INPUTS: what disk.py has gathered
set -eu
tree=$1 inputs=$2

mkdir -p "$tree/opt/lab"
cp -r "$inputs/wheels" "$inputs/ingle.txt" "$inputs/tests.txt" "$tree/opt/lab/"
install -m 0755 -t "$tree/usr/local/bin" "$inputs/firecracker" "$inputs/jailer"

# Offline and hash-checked, as an operator without a network would. The tests' own packages stay out of ingle's venv;
# they see what is in it.
chroot "$tree" sh -eu <<'END'
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1
unset PIP_FIND_LINKS PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_CERT
for venv in ingle:/opt/ingle tests:/opt/lab/venv; do
  python3 -m venv "${venv#*:}"
  "${venv#*:}/bin/pip" install --quiet --no-compile --no-index --find-links /opt/lab/wheels --require-hashes \
    -r "/opt/lab/${venv%%:*}.txt"
  # mmdebstrap sets the times of new files back to its own start. Bytecode that goes by its source's would be stale.
  "${venv#*:}/bin/python" -m compileall -q -f -j 0 --invalidation-mode unchecked-hash "${venv#*:}/lib"
done
(cd /opt/ingle/lib/python3*/site-packages && pwd) >"$(echo /opt/lab/venv/lib/python3*/site-packages)/ingle.pth"
rm -r /opt/lab/wheels
ln -s /opt/ingle/bin/ingle /opt/ingle/bin/ingle-server /usr/local/bin/

# One may use KVM, the other may not.
useradd --create-home --shell /bin/bash --groups kvm dev
useradd --create-home --shell /bin/bash other

systemctl --quiet enable systemd-networkd
# The console belongs to the kernel and to whoever looks for the reason of a failure; the rest costs time at boot.
systemctl --quiet mask serial-getty@ttyS0.service getty@tty1.service systemd-networkd-wait-online.service \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
END
printf 'lab\n' >"$tree/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 lab\n' >"$tree/etc/hosts"
printf 'nameserver 10.0.2.3\n' >"$tree/etc/resolv.conf"
printf '/dev/vda / ext4 defaults 0 0\n' >"$tree/etc/fstab"
printf '[Match]\nName=eth0\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nLinkLocalAddressing=no\n' \
  >"$tree/etc/systemd/network/10-eth0.network"
# Modules that a host of ingle's has loaded.
printf 'dm_mod\ndm_snapshot\nkvm_amd\nloop\nnf_tables\ntun\nvhost_vsock\n' >"$tree/etc/modules-load.d/lab.conf"
