#!/usr/bin/env bash
# Boots the built kernel in plain software emulation, through its PVH entry, up to a program of
# ours that looks around: shows that the image is sound without KVM, devvm or daemon.
#
#   kernel/check.sh [FOLDER]     FOLDER as printed by build.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kernel=${1:-$("$here/build.sh")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/root"/{bin,proc}
cp "$(command -v busybox)" "$work/root/bin/busybox"
cat >"$work/root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo "check: init runs on $(/bin/busybox uname -r)"
for type in ext4 squashfs erofs overlay vfat iso9660 tmpfs fuse cgroup2; do
    /bin/busybox grep -qw "$type" /proc/filesystems && echo "check: has $type"
done
echo "check: up after $(/bin/busybox cut -d' ' -f1 /proc/uptime) s"
echo b >/proc/sysrq-trigger
INIT
chmod +x "$work/root/init"
(cd "$work/root" && find . | cpio --quiet -o -H newc) >"$work/initrd"

# microvm is the nearest that QEMU has to the daemon's machine; it keeps the timer chip, because
# without KVM there is no other clock to calibrate with. -no-reboot: exit at the guest's reset.
timeout 60 qemu-system-x86_64 -M microvm,acpi=off -accel tcg -cpu max \
    -m 256 -nodefaults -display none -no-reboot -serial "file:$work/console" \
    -kernel "$kernel/vmlinux" -initrd "$work/initrd" \
    -append "console=ttyS0 quiet reboot=t panic=-1" 2>"$work/errors" \
    || { cat "$work/errors" "$work/console" >&2; exit 1; }
if [[ $(grep -c '^check: has' "$work/console") -ne 9 ]]; then
    cat "$work/console" >&2
    exit 1
fi
grep '^check:' "$work/console" | tr -d '\r'
