#!/usr/bin/env bash
# How many requests a second the API answers on one core, with 100 VMs in its store that do not run.
# No guest is needed, so the daemon runs on this machine itself and not in an emulator: in a network and a
# view of /sys of its own, because a KVM that cannot run Linux guests is hidden from its host check.
#
#   load.sh        fails where a target is missed
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
readonly vms=100 seconds=10 connections=4 per_second_min=2000 p99_ms_max=5

if [[ ${1:-} != --inside ]]; then
    step "load: build"
    need_cargo
    install_kernel_tools
    install_daemon_tools
    install_missing wrk=wrk unshare=util-linux taskset=util-linux
    [[ -c /dev/kvm && -c /dev/net/tun ]] || die "/dev/kvm and /dev/net/tun are needed"
    kernel=$(kernel/build.sh)
    build_agent
    cargo build --locked --release
    exec unshare --mount --net "$0" --inside "$kernel"
fi

kernel=$2
folder=$(mktemp -d)
take_down() {
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    rm -rf "$folder"
}
mount -t tmpfs none /sys/module
ip link set lo up
printf 'requests_per_second_max = 0\n' >"$folder/config"
taskset -c 0 "$target/release/volantd" serve --config "$folder/config" --state-dir "$folder/state" \
    --socket "$folder/socket" --listen 127.0.0.1:7777 --kernel "$kernel/vmlinux" --agent "$agent" \
    --busybox /bin/busybox --log-level warn 2>"$folder/log" &
daemon=$!
trap take_down EXIT
until curl -fs --max-time 5 -o /dev/null http://127.0.0.1:7777/readyz; do
    kill -0 "$daemon" 2>/dev/null || { cat "$folder/log" >&2; die "the daemon does not start"; }
    sleep 0.1
done
token=$(<"$folder/state/token")
for ((number = 0; number < vms; number++)); do
    curl -fsS -o /dev/null -H "authorization: Bearer $token" -H 'content-type: application/json' \
        -d "{\"name\":\"vm-$number\",\"memory_mb\":64,\"start\":false}" http://127.0.0.1:7777/api/v1/vms
done

# Sets $per_second and $p99_ms.
measure() {
    local out
    out=$(taskset -c 1 wrk -t 1 -c $connections -d "$seconds" --latency \
        -H "Authorization: Bearer $token" "http://127.0.0.1:7777$1")
    if grep -q Non-2xx <<<"$out"; then die "$1 is not answered well: $out"; fi
    per_second=$(awk '/Requests\/sec/ { print int($2) }' <<<"$out")
    p99_ms=$(awk '$1 == "99%" { t = $2 + 0; if ($2 ~ /us$/) t /= 1000; else if ($2 !~ /ms$/) t *= 1000; print t }' <<<"$out")
    printf '%-24s %8d requests/s   p99 %s ms\n' "$1" "$per_second" "$p99_ms"
}

step "load: $vms VMs, the daemon on one core, $connections connections"
measure /healthz
least=$per_second
measure /api/v1/vms
printf '%-24s %8s of /healthz\n' ratio "$(awk "BEGIN { printf \"%.2f\", $per_second / $least }")"
((per_second_min <= per_second)) || die "$per_second requests/s, wanted are $per_second_min"
awk "BEGIN { exit !($p99_ms <= $p99_ms_max) }" || die "p99 is $p99_ms ms, wanted are $p99_ms_max"
