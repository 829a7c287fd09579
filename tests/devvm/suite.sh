#!/usr/bin/env bash
# Builds one of the suites that need guests, and runs it where /dev/kvm is: on this machine, or in
# devvms of its own that are taken down at the end, whatever happens.
#
#   suite.sh e2e [FILTER…]                    one test after another, spread over several devvms;
#                                             `clients` (clients.sh) is one of them
#   suite.sh bench|stress [ARGUMENTS FOR THE TEST PROGRAM…]
#
# A run waits for another one of the same suite, unless SUITE_NAME gives it places of its own. SUITE_PLACES is
# how many devvms share the tests, one for each processor unless it says otherwise.
# The suite finds VOLANTD, VOLARY, VOLANT_KERNEL, VOLANT_BZIMAGE and VOLANT_OUT (a folder for
# results) in its environment. FIRECRACKER and every VOLANT_TEST_* and VOLANT_BENCH_* variable are
# passed through. A machine without a usable KVM is a failure here, never a skipped test.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suite=${1:?e2e, bench or stress}
shift
cd "$root"
export DEVVM_PORT=0
readonly suite_name=${SUITE_NAME:-$suite}
readonly programs=/run/volant-$suite run=$cache/devvm/$suite_name
readonly minutes_max=${SUITE_MINUTES:-60} test_minutes_max=15

[[ -e $root/tests/$suite.rs || -e $root/tests/$suite/main.rs ]] || die "there is no tests/$suite"

take_down() {
    local status=$? job
    trap - EXIT INT TERM
    for job in $(jobs -p); do kill -TERM -- "-$job" 2>/dev/null || true; done
    wait || true
    for DEVVM_NAME in $devvms; do
        export DEVVM_NAME
        "$here/devvm" status >/dev/null || continue
        if ((status != 0)); then
            step "the suite failed; the end of $DEVVM_NAME's console"
            tail -n 20 "$cache/devvm/$DEVVM_NAME/console.log" 2>/dev/null || true
        fi
        "$here/devvm" down
    done
    if [[ ${place:-} == host ]]; then inside rm -rf "$programs"; fi
    exit "$status"
}

# Two runs at a time would share a devvm.
mkdir -p "$cache/devvm"
exec 7>"$cache/devvm/$suite_name.lock"
flock -n 7 || { echo "another $suite run is under way, waiting for it"; flock 7; }

# The last one is for the clients of other makers.
places=${SUITE_PLACES:-$(nproc)}
devvms=
if [[ $("$here/where") == devvm ]]; then
    devvms=$suite_name
    [[ $suite != e2e ]] || devvms=$(seq -f "$suite_name-%g" 0 "$places")
fi
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step "$suite: build"
need_cargo
install_kernel_tools
install_daemon_tools
install_clients
[[ $suite != bench ]] || install_bench_tools
kernel=$("$root/kernel/build.sh")
# Where another place is named, its images are taken as they are.
more=
[[ $suite != stress ]] || more=postgresql
export VOLANT_TEST_IMAGES=${VOLANT_TEST_IMAGES:-$("$here/images.sh" $more)}
build_agent
build_suite "$suite"
if [[ $suite != bench ]]; then
    export VOLANT_TEST_DISKS=${VOLANT_TEST_DISKS:-$("$here/disks.sh" "$agent")}
fi
if [[ $suite == stress ]]; then
    export VOLANT_TEST_BROWSER=${VOLANT_TEST_BROWSER:-$("$here/browser-image.sh")}
fi

# Makes the place ready that DEVVM_NAME says, and sets $environment for programs that run there.
make_place() {
    local out=/out name
    if [[ $("$here/where") == devvm ]]; then
        # One that is up and that nobody has used comes from test.sh.
        { "$here/devvm" up && "$here/devvm" exec -- test ! -e "$programs"; } </dev/null || "$here/devvm" down
        find "$cache/devvm/$DEVVM_NAME/out" -mindepth 1 -delete
    fi
    place_up
    inside test -c /dev/kvm </dev/null || die "no /dev/kvm"
    copy_in "$programs" "$volantd" "$agent" "$kernel/vmlinux" "$kernel/bzImage" "$program"
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
}

# run_program MINUTES ARGUMENTS…: in the checkout's folder, as cargo would.
run_program() {
    local minutes=$1
    shift
    inside timeout --kill-after=30 "${minutes}m" env "${environment[@]}" \
        "$programs/$(basename "$program")" --test-threads=1 "$@" </dev/null
}

# --- e2e: tests are taken from one list, those that took longest the last time first --------------

# Takes the next name off the list.
next_test() {
    exec 6>"$lists/lock"
    flock 6
    head -n 1 "$lists/names"
    sed -i 1d "$lists/names"
    exec 6>&-
}

run_test() {
    if [[ $1 == clients ]]; then
        VOLANT_TEST_DAEMON=$volantd "$here/clients.sh" </dev/null
    else
        run_program $test_minutes_max --exact "$1"
    fi
}

# Prints the names of the tests that contain one of these words, of all without one.
list_tests() {
    local word
    "$program" --list --format terse "$@" | sed -n 's/: test$//p'
    (($# > 0)) || set -- clients
    for word; do [[ clients != *"$word"* ]] || { echo clients && break; }; done
}

# Runs one test, says how it went, and notes what it took.
report_test() {
    local began=$EPOCHSECONDS result=ok
    run_test "$1" >"$lists/$1.log" 2>&1 || result=FAILED
    if [[ $result == ok ]]; then
        echo "$1" >>"$lists/passed"
    else
        sed '/^$/d' "$lists/$1.log"
    fi
    echo "test $1 ... $result ($((EPOCHSECONDS - began)) s)"
    echo "$((EPOCHSECONDS - began)) $1" >>"$lists/durations"
}

worker() {
    local name
    export DEVVM_NAME=$1
    make_place
    # They are all alike.
    if [[ $place == devvm && $1 == *-0 ]]; then "$here/selftest"; fi
    while name=$(next_test) && [[ -n $name ]]; do report_test "$name"; done
}

run_spread() {
    local count worker name failed job
    lists=$(mktemp -d "$run/run.XXXXXX")
    touch "$lists"/{passed,durations} "$run/durations"
    list_tests "$@" | sort >"$lists/all"
    # A test that is new may be long, and on a new machine this is the longest.
    awk 'FILENAME == ARGV[1] { took[$2] = $1; next } { new = /^real::/ ? 2000 : 999
            print ($1 in took ? took[$1] : new), $1 }' \
        "$run/durations" "$lists/all" | sort -rn | cut -d' ' -f2 | sed '/^clients$/d' >"$lists/names"
    [[ -s $lists/all ]] || die "no test has such a name: $*"
    count=1
    if [[ $("$here/where") == devvm ]]; then count=$places; fi
    ((count <= $(wc -l <"$lists/names"))) || count=$(($(wc -l <"$lists/names") > 0))
    step "$suite: $(wc -l <"$lists/all") tests in $count places"
    set -m
    for ((worker = 0; worker < count; worker++)); do
        # The lock ends with this script, not with the devvm.
        worker "$suite_name-$worker" 7>&- &
    done
    # Clients of other makers have a devvm of their own.
    if grep -qx clients "$lists/all"; then
        if [[ $("$here/where") == host ]]; then
            wait
            report_test clients 7>&- &
        else
            {
                report_test clients
                # Two places leave a quarter of two processors idle.
                [[ ! -s $lists/names ]] || worker "$suite_name-$places"
            } 7>&- &
        fi
    fi
    set +m
    for job in $(jobs -p); do wait "$job" || echo "a place for guests was lost"; done
    cat "$lists/durations" "$run/durations" | awk '!seen[$2]++' >"$lists/known"
    cp "$lists/known" "$run/durations"
    step "$suite: the slowest"
    # Not head: it would end before sort does, and that is a failure here.
    sort -rn "$lists/durations" | sed -n 1,5p
    failed=$(comm -23 "$lists/all" <(sort "$lists/passed"))
    if [[ -n $failed ]]; then
        step "$suite: failed or not run"
        printf '%s\n' "$failed"
    fi
    printf '\n%d passed, %d failed\n' "$(wc -l <"$lists/passed")" "$(grep -c . <<<"$failed")"
    [[ -z $failed ]]
}

mkdir -p "$run"
find "$run" -maxdepth 1 -name 'run.*' -exec rm -rf {} +
if [[ $suite == e2e ]]; then
    run_spread "$@"
    exit
fi

step "$suite: a place for guests"
export DEVVM_NAME=$suite_name
make_place 7>&-
step "$suite: run"
# In the background and in a group of its own, because bash answers a signal only between
# commands, and to end all of it then.
set -m
run_program "$minutes_max" "$@" &
set +m
wait $!
step "$suite: passed"
if [[ -n $(find "$run/out" -type f 2>/dev/null) ]]; then
    echo "results: $run/out"
fi
