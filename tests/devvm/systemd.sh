#!/usr/bin/env bash
# The package on a Debian of its own, with systemd: a devvm whose root is a disk and not this machine's.
#
#   systemd.sh [DEB]      without one, `make deb` first; the release folder is beside it
#
# Installs it, sets up, reboots, goes through the README's first lines, restarts, lets it hang, lets it be
# started by its socket, asks systemd for its exposure, does what doctor says, takes it back, and looks for
# what is left; then the same in short with the release folder.
# shellcheck disable=SC2016 # what is in quotes is expanded inside
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly run=$cache/devvm/systemd seconds_max=900
# Only what is given to ssh goes inside.
exec </dev/null

deb=${1:-}
if [[ -z $deb ]]; then deb=$("$here/package.sh" | tail -1); fi
install_devvm_tools
install_missing mmdebstrap=mmdebstrap mke2fs=e2fsprogs

# --- The disk: Debian, made once -----------------------------------------------------------------

linux=$(find "$cache/devvm" -maxdepth 1 -name 'linux-*' 2>/dev/null | sort -V | tail -1)
[[ -n $linux ]] || die "the devvm's kernel is not here yet: tests/devvm/devvm up"
version=$(basename "$linux"/lib/modules/*)
readonly packages=systemd-sysv,udev,dbus,kmod,iproute2,nftables,dropbear-bin,busybox-static,curl,procps,ca-certificates
make_disk() {
    local work tree module
    work=$(mktemp -d "${TMPDIR:-/tmp}/systemd.XXXXXX")
    tree=$work/tree
    mkdir -p "$tree" "$cache/disks"
    mmdebstrap --quiet --variant=minbase --include="$packages" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        bookworm "$work/tree.tar"
    tar -C "$tree" --xattrs -xpf "$work/tree.tar" --exclude='./dev/*'
    # Only what the daemon and this machine need: a whole set of modules is 400 MB.
    modprobe -d "$linux" -S "$version" --show-depends -a virtio_blk virtio_net virtio_pci ext4 \
        kvm_amd tun vhost_net bridge br_netfilter nf_tables nf_conntrack nft_ct nft_nat nft_chain_nat \
        nft_masq nft_reject nft_reject_inet nft_meta_bridge nft_fib_inet nf_conntrack_bridge \
        crc32c_generic rtc_cmos 2>/dev/null \
        | awk '/^insmod/ && !seen[$2]++ { print $2 }' | while read -r module; do
        install -D -m 644 "$module" "$tree/lib/modules/$version/${module#*/"$version"/}"
    done
    cp "$linux/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$tree/lib/modules/$version/"
    depmod -b "$tree" "$version"
    : >"$tree/etc/machine-id"
    echo '/dev/vda / ext4 rw 0 1' >"$tree/etc/fstab"
    echo systemd-devvm >"$tree/etc/hostname"
    printf '[Match]\nName=e*\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' \
        >"$tree/etc/systemd/network/wired.network"
    ln -s /usr/lib/systemd/system/systemd-networkd.service \
        "$tree/etc/systemd/system/multi-user.target.wants/"
    cat >"$tree/etc/systemd/system/ssh.service" <<'UNIT'
[Unit]
After=network.target
[Service]
ExecStartPre=/bin/sh -c 'test -e /etc/host_key || dropbearkey -t ed25519 -f /etc/host_key'
ExecStart=/usr/sbin/dropbear -F -r /etc/host_key -s -j -k
[Install]
WantedBy=multi-user.target
UNIT
    ln -s ../ssh.service "$tree/etc/systemd/system/multi-user.target.wants/"
    install -d -m 700 "$tree/root/.ssh"
    mke2fs -q -t ext4 -d "$tree" "$disk.$$" 2500M
    mv "$disk.$$" "$disk"
    rm -rf "$work"
}

disk=$cache/disks/systemd-$({ declare -f make_disk; echo "$version $packages"; } | sha256sum | cut -c1-16)

# A RAM disk that mounts the disk: its modules, in the order in which insmod can load them.
make_initrd() {
    local work=$run/initrd module
    rm -rf "$work"
    mkdir -p "$work"/{bin,proc,sys,dev,root,modules}
    cp "$(command -v busybox)" "$work/bin/busybox"
    modprobe -d "$linux" -S "$version" --show-depends -a virtio_pci virtio_blk ext4 crc32c_generic \
        | awk '/^insmod/ && !seen[$2]++ { print $2 }' | while read -r module; do
        cp "$module" "$work/modules/"
        basename "$module" >>"$work/modules/order"
    done
    cat >"$work/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
while [ ! -e /dev/vda ]; do sleep 0.1; done
mount -t ext4 /dev/vda /root
umount /proc /sys
mount --move /dev /root/dev
exec switch_root /root /sbin/init
INIT
    chmod 755 "$work/init"
    (cd "$work" && find . | cpio --quiet -o -H newc | gzip -1) >"$run/initrd.gz"
}

# --- The machine ---------------------------------------------------------------------------------

start() {
    ssh_port=$(free_port)
    # Without -no-reboot: it reboots as a machine does.
    qemu-system-x86_64 -name volant-devvm-systemd -daemonize -pidfile "$run/pid" \
        -M q35 -accel tcg,thread=single -cpu EPYC-Milan,+svm -smp 1 -m 3072 \
        -kernel "$linux"/boot/vmlinuz-* -initrd "$run/initrd.gz" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0 systemd.mask=getty@tty1.service" \
        -nodefaults -display none -serial "file:$run/console.log" \
        -drive "file=$run/disk.raw,format=raw,if=virtio,cache=unsafe" -device virtio-rng-pci \
        -device virtio-net-pci,netdev=n0 -netdev "user,id=n0,hostfwd=tcp:127.0.0.1:$ssh_port-:22" \
        2>"$run/qemu.err"
}

stop() {
    local status=$? pid
    trap - EXIT
    pid=$(cat "$run/pid" 2>/dev/null) || true
    if ((status != 0)); then
        { echo "--- failed; the journal's end"; inside "journalctl -u volantd -n 60 --no-pager; systemctl status volantd --no-pager"; } 2>&1 | tail -80 || true
    fi
    if [[ -n $pid ]] && tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$run/pid"; then
        kill "$pid"
    fi
    rm -f "$run/pid" "$run/disk.raw"
    exit "$status"
}

inside() {
    ssh -q -T -i "$run/key" -p "$ssh_port" -o BatchMode=yes -o IdentitiesOnly=yes \
        -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=60 -F none \
        root@127.0.0.1 "export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; $1"
}

# until_inside WHAT CONDITION: waits for a condition inside (a level, not an edge).
until_inside() {
    local deadline=$((SECONDS + seconds_max))
    until inside "$2" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || { tail -n 20 "$run/console.log" >&2; die "waited in vain for $1"; }
        sleep 1
    done
}

# says WORDS COMMAND: runs it inside, shows it, and looks for the words in what it says.
says() {
    local out
    printf '# %s\n' "$2"
    out=$(inside "$2" 2>&1) || { printf '%s\n' "$out"; die "it failed: $2"; }
    printf '%s\n' "$out"
    grep -qF -- "$1" <<<"$out" || die "that does not say: $1"
}

holds() {
    printf '# %s\n' "$1"
    inside "$1" || die "that does not hold: $1"
}

# Files, accounts, the firewall and the bridge are as they were.
nothing_is_left() {
    inside 'find /etc /usr /var /run -xdev -path /var/log -prune -o -path /run/systemd -prune -o -path /run/udev -prune \
        -o -print | sort >/root/after; cut -d: -f1 /etc/passwd /etc/group | diff /root/accounts -' || die "accounts are left"
    says '' "comm -13 /root/before /root/after | grep -iE 'volan|volary|^/usr/local/' || true" | tee "$run/left"
    ! grep -qvE '^(#.*)?$' "$run/left" || die "files are left"
    holds '! nft list tables | grep volant; ! test -e /sys/class/net/vbr0'
}

step "systemd: a Debian on a disk"
[[ -e $disk ]] || make_disk
mkdir -p "$run"
rm -f "$run"/{pid,key,key.pub,console.log,disk.raw}
make_initrd
ssh-keygen -q -t ed25519 -N '' -C devvm-systemd -f "$run/key"
cp --sparse=always "$disk" "$run/disk.raw"
tar -C "$(dirname "$deb")/release" -cf "$run/release.tar" .
printf 'cd /root/.ssh\nwrite %s authorized_keys\ncd /root\nwrite %s volantd.deb\nwrite %s release.tar\n' \
    "$run/key.pub" "$deb" "$run/release.tar" \
    | debugfs -w -f - "$run/disk.raw" >/dev/null 2>&1
trap stop EXIT
start
until_inside "ssh" true

step "systemd: install and set up"
# What was there before.
inside 'find /etc /usr /var /run -xdev -path /var/log -prune -o -path /run/systemd -prune -o -path /run/udev -prune \
    -o -print | sort >/root/before; cut -d: -f1 /etc/passwd /etc/group >/root/accounts' </dev/null
says "now run 'volantd setup'" 'dpkg -i /root/volantd.deb'
says 'would make: file /etc/volant/volantd.toml' 'volantd setup --dry-run'
holds '! test -e /etc/volant'
says 'made: file /etc/volant/volantd.toml' 'volantd setup'
says 'nothing to do' 'volantd setup'
holds 'systemctl is-active -q volantd.service volantd.socket'

step "systemd: reboot"
inside 'cat /proc/sys/kernel/random/boot_id' >"$run/boot_id"
inside 'systemctl reboot' || true
until_inside "another boot" "test \$(cat /proc/sys/kernel/random/boot_id) != $(cat "$run/boot_id") && systemctl is-active -q volantd"
says ' 0 failed' 'volantd doctor'

step "systemd: the quick start"
says running 'volantd ctl vms create demo --cpu 1 --memory 256 --wait'
says 'volant' 'volantd ctl vms exec demo -- uname -a'
inside 'volantd ctl vms exec demo -- sh -c "mkdir -p /www && echo hello from a microVM >/www/index.html && busybox httpd -p 8080 -h /www"'
says 'hello from a microVM' 'curl -fsS --retry 5 --retry-all-errors -H "Authorization: Bearer $(cat /var/lib/volant/token)" http://127.0.0.1:7777/api/v1/vms/demo/proxy/8080/'
says demo 'volantd ctl vms list'

step "systemd: restart"
holds 'systemctl restart volantd'
says stopped 'volantd ctl vms list'
says running 'volantd ctl vms start demo -o json'

step "systemd: a daemon that hangs is started again"
says '' 'systemctl show -p MainPID --value volantd >/root/pid; kill -STOP $(cat /root/pid); cat /root/pid'
until_inside "another process" 'test "$(systemctl show -p MainPID --value volantd)" != "$(cat /root/pid)" && systemctl is-active -q volantd'
says 'watchdog' "journalctl -u volantd --no-pager | grep -i watchdog"
says stopped 'volantd ctl vms list'

step "systemd: the socket starts it"
holds 'systemctl stop volantd.service; ! systemctl is-active -q volantd.service'
says demo 'volantd ctl vms list'
holds 'systemctl is-active -q volantd.service'

step "systemd: exposure"
says 'exposure level' 'systemd-analyze security --threshold=40 --no-pager volantd.service | tail -1'
holds 'systemd-analyze security --threshold=40 --no-pager volantd.service >/dev/null'
holds 'test "$(stat -c %U /proc/$(systemctl show -p MainPID --value volantd))" = volant'

step "systemd: what doctor says is done"
# mends CHECK: the check tells something, its command is run, and then it has nothing to tell.
mends() {
    local mend
    mend=$(inside "volantd doctor --only $1 || true" | sed -n 's/^ *mend: //p')
    [[ -n $mend ]] || die "doctor has nothing to say of $1"
    printf '# %s: %s\n' "$1" "$mend"
    inside "$mend" || die "that does not mend $1: $mend"
    says 'ok ' "volantd doctor --only $1"
}
holds 'systemctl stop volantd.service volantd.socket'
mends daemon
# What runs is of before an upgrade: something that answers with another version on systemd's socket.
inside 'mkdir -p /run/systemd/system/volantd.service.d; cat >/opt/old.pl; cat >/run/systemd/system/volantd.service.d/old.conf <<UNIT
[Service]
Type=simple
WatchdogSec=0
ExecStart=
ExecStart=/usr/bin/perl /opt/old.pl
UNIT
systemctl daemon-reload; systemctl restart volantd; rm -r /run/systemd/system/volantd.service.d; systemctl daemon-reload' <<'OLD'
open(SOCKET, "+<&=3");
while (accept(CLIENT, SOCKET)) {
    sysread(CLIENT, $request, 4096);
    syswrite(CLIENT, "HTTP/1.1 200 OK\r\n\r\n{\"version\":\"0.0.9\"}");
    close(CLIENT);
}
OLD
says 'is version 0.0.9' 'volantd doctor --only daemon-version'
mends daemon-version
inside 'mv /usr/lib/systemd/system/volantd.service /root/; systemctl daemon-reload'
mends unit
holds 'systemctl is-active -q volantd.service'
inside 'mv /root/volantd.service /usr/lib/systemd/system/; systemctl daemon-reload'
inside 'echo nameserver 10.0.2.3 >/etc/resolv.conf; apt-get -qq update; rm /bin/busybox'
mends busybox

step "systemd: uninstall"
says 'stays: folder /var/lib/volant' 'cp -a /etc/volant /root/record; volantd setup --uninstall; cp -a /root/record /etc/volant; rm -r /root/record'
holds 'test -e /var/lib/volant/state.db'
says 'removed: folder /var/lib/volant' 'volantd setup --uninstall --yes'
says 'Purging' 'dpkg --purge volantd'
nothing_is_left

step "systemd: the release folder, without the package"
says 'made: file /etc/volant/volantd.toml' 'mkdir /root/release; tar -C /root/release -xf /root/release.tar; /root/release/install.sh'
holds 'test "$(command -v volantd)" = /usr/local/bin/volantd; systemctl is-active -q volantd.service'
says running 'volantd ctl vms create demo --cpu 1 --memory 256 --wait'
says 'removed: folder /var/lib/volant' '/root/release/install.sh --uninstall --yes'
nothing_is_left
step "systemd: passed"
