#!/usr/bin/env bash
# Makes the disks that tests boot from, with the agent $1 in one of them. Prints the folder with the
# results; what does not depend on the agent is kept, and takes minutes the first time.
#
#   cloud.raw     Debian with systemd, its own cloud-init, and the agent as a service: ext4, no partitions
#   plain.qcow2   busybox and an init of a few lines, no agent: ext4 in a GPT, packed
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

volary=${1:?the agent}
service=$root/docs/examples/agent-as-a-service/volary.service
base=$cache/disks/$(cat "${BASH_SOURCE[0]}" "$service" | sha256sum | cut -c1-16)
result=$base/$(sha256sum "$volary" | cut -c1-16)
if [[ -e $result/complete ]]; then
    echo "$result"
    exit
fi
{
    install_missing mmdebstrap=mmdebstrap qemu-img=qemu-utils sfdisk=fdisk mke2fs=e2fsprogs
    work=$(mktemp -d "${TMPDIR:-/tmp}/disks.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    if [[ ! -e $base/complete ]]; then
        rm -rf "$base"
        mkdir -p "$base" "$work/tree"
        # shellcheck disable=SC2016 # mmdebstrap's shell expands it
        mmdebstrap --quiet --variant=minbase --include=systemd-sysv,cloud-init \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' --customize-hook='rm -rf "$1"/var/lib/apt/lists/*' \
            bookworm "$work/tree.tar"
        tar -C "$work/tree" --xattrs -xpf "$work/tree.tar" --exclude='./dev/*'
        cp "$service" "$work/tree/etc/systemd/system/"
        ln -s ../volary.service "$work/tree/etc/systemd/system/multi-user.target.wants/volary.service"
        mkdir -p "$work/tree/usr/lib/systemd/system-shutdown"
        ln -s /usr/local/bin/volary "$work/tree/usr/lib/systemd/system-shutdown/volary"
        : >"$work/tree/etc/machine-id"
        mke2fs -q -t ext4 -d "$work/tree" "$base/base.raw" 1500M

        mkdir -p "$work/plain"/{bin,sbin,proc,dev,www}
        cp /bin/busybox "$work/plain/bin/"
        cat >"$work/plain/sbin/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo "no agent here: $(/bin/busybox cat /proc/cmdline)"
echo served without an agent >/www/index.html
exec /bin/busybox httpd -f -p 80 -h /www
INIT
        chmod 755 "$work/plain/sbin/init"
        mke2fs -q -t ext4 -d "$work/plain" "$work/part.raw" 16M
        truncate -s 24M "$work/plain.raw"
        printf 'label: gpt\n1MiB,2MiB,U\n4MiB,,L\n' | sfdisk --quiet "$work/plain.raw"
        dd if="$work/part.raw" of="$work/plain.raw" bs=1M seek=4 conv=notrunc status=none
        qemu-img convert -c -O qcow2 "$work/plain.raw" "$base/plain.qcow2"
        touch "$base/complete"
    fi
    find "$base" -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
    mkdir "$result"
    cp --sparse=always "$base/base.raw" "$result/cloud.raw"
    ln "$base/plain.qcow2" "$result/"
    printf 'cd /usr/local/bin\nwrite %s volary\nset_inode_field volary mode 0100755\n' "$volary" |
        debugfs -w -f - "$result/cloud.raw"
    touch "$result/complete"
} >&2
echo "$result"
