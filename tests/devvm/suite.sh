#!/usr/bin/env bash
# Builds one of the suites that need guests, and runs it where /dev/kvm is: on this machine, or in
# a devvm of its own that is taken down at the end, whatever happens.
#
#   suite.sh e2e|bench|stress [ARGUMENTS FOR THE TEST PROGRAM…]
#
# The suite finds VOLANTD, VOLARY, VOLANT_KERNEL, VOLANT_BZIMAGE and VOLANT_OUT (a folder for
# results) in its environment. FIRECRACKER and every VOLANT_TEST_* and VOLANT_BENCH_* variable are
# passed through. A machine without a usable KVM is a failure here, never a skipped test.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suite=${1:?e2e, bench or stress}
shift
cd "$root"
export DEVVM_NAME=$suite DEVVM_PORT=0
readonly programs=/run/volant-$suite run=$cache/devvm/$suite
readonly minutes_max=${SUITE_MINUTES:-60}

[[ -e $root/tests/$suite.rs || -e $root/tests/$suite/main.rs ]] || die "there is no tests/$suite"

take_down() {
    local status=$?
    trap - EXIT INT TERM
    if [[ -n ${job:-} ]] && kill -TERM -- "-$job" 2>/dev/null; then wait "$job" || true; fi
    if [[ ${place:-} == devvm ]]; then
        if ((status != 0)); then
            step "the suite failed; the end of the devvm's console"
            tail -n 40 "$run/console.log" 2>/dev/null || true
        fi
        "$here/devvm" down
    elif [[ ${place:-} == host ]]; then
        inside rm -rf "$programs"
    fi
    exit "$status"
}

# Prints the program that cargo made for the test target $1, or for the binary $1.
program_of() {
    sed -n "s/.*\"name\":\"$1\",\"src_path\".*\"executable\":\"\([^\"]*\)\".*/\1/p" "$messages" | tail -1
}

step "$suite: build"
need_cargo
install_kernel_tools
install_daemon_tools
kernel=$("$root/kernel/build.sh")
build_agent
messages=$(mktemp)
# One command for both, so that their dependencies are compiled once. The feature is part of each
# artifact's name: a normal build in the same folder neither sees nor disturbs this one.
cargo test --locked --release --features crash-points --test "$suite" --no-run \
    --message-format=json-render-diagnostics >"$messages"
program=$(program_of "$suite")
volantd=$(program_of volantd)
rm -f "$messages"
[[ -x $program && -x $volantd ]] || die "cargo did not say where it put the test program"

# Two runs at a time would share a devvm.
mkdir -p "$cache/devvm"
exec 7>"$cache/devvm/$suite.lock"
flock -n 7 || { echo "another $suite run is under way, waiting for it"; flock 7; }

step "$suite: a place for guests"
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [[ $("$here/where") == devvm ]]; then "$here/devvm" down; fi
rm -rf "$run/out"
# The lock ends with this script, not with the devvm.
place_up 7>&-
if [[ $place == devvm ]]; then "$here/selftest"; fi
inside test -c /dev/kvm </dev/null || die "no /dev/kvm"
copy_in "$programs" "$volantd" "$agent" "$kernel/vmlinux" "$kernel/bzImage" "$program"

out=/out
if [[ $place == host ]]; then out=$(mkdir -p "$run/out" && echo "$run/out"); fi
environment=(VOLANTD="$programs/volantd" VOLARY="$programs/volary" VOLANT_OUT="$out"
    VOLANT_KERNEL="$programs/vmlinux" VOLANT_BZIMAGE="$programs/bzImage" RUST_BACKTRACE=1)
# Memory is the devvm's only own storage; below its /tmp lies the shared file system.
if [[ $place == devvm ]]; then
    inside mkdir -p "$programs/tmp" </dev/null
    environment+=("TMPDIR=$programs/tmp")
fi
for name in FIRECRACKER ${!VOLANT_TEST_*} ${!VOLANT_BENCH_*}; do
    [[ -z ${!name:-} ]] || environment+=("$name=${!name}")
done

step "$suite: run"
# In the checkout's folder, as cargo would. In the background and in a group of its own, because
# bash answers a signal only between commands, and to end all of it then.
set -m
inside timeout --kill-after=30 "${minutes_max}m" env "${environment[@]}" \
    "$programs/$(basename "$program")" --test-threads=1 "$@" </dev/null &
job=$!
set +m
wait "$job"
job=
step "$suite: passed"
if [[ -n $(find "$run/out" -type f ! -name selftest 2>/dev/null) ]]; then
    echo "results: $run/out"
fi
