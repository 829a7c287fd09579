#!/usr/bin/env bash
# `make test`: everything that must hold before a change is taken. The same here and in CI.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# Prints `--test NAME` for every integration test of the workspace that runs without guests.
tests_without_guests() {
    local file name
    for file in tests/*.rs tests/*/main.rs guest-agent/tests/*.rs guest-agent/protocol/tests/*.rs; do
        [[ -e $file ]] || continue
        if [[ $file == */main.rs ]]; then
            name=$(basename "$(dirname "$file")")
        else
            name=$(basename "$file" .rs)
        fi
        case $name in
            e2e | bench | stress) ;;
            *) printf -- '--test\n%s\n' "$name" ;;
        esac
    done
}

# What guests need, beside what cargo does: either leaves a processor idle now and then.
prepare() {
    kernel/build.sh
    "$here/images.sh"
    install_clients
    "$here/clients.sh" install
    step "guest kernel boots"
    kernel/check.sh
    places up
}

# Boots the places of the end-to-end tests while one core is idle, or takes them down, unless a run under way has them.
places() {
    local number
    [[ $("$here/where") == devvm ]] && flock -n "$cache/devvm/e2e.lock" true || return 0
    for ((number = 0; number < ${SUITE_PLACES:-$(nproc)}; number++)); do
        DEVVM_NAME=e2e-$number "$here/devvm" "$1" || return
    done
}

mkdir -p "$target" "$cache/devvm"
install_kernel_tools
install_devvm_tools
install_daemon_tools
step "in the background: guest kernel, images, clients of other makers"
set -m
prepare >"$target/prepare.log" 2>&1 &
prepared=$!
set +m
trap 'kill -TERM -- "-$prepared" 2>/dev/null && wait "$prepared" || true; places down' EXIT

"$here/lint.sh"

step "tests without guests"
mapfile -t names < <(tests_without_guests)
cargo test --locked --workspace --features "$test_features" --lib
# With the daemon of the end-to-end tests, which is compiled once then.
cargo test --locked "${as_tested[@]}" --features "$test_features" --bins "${names[@]}"

step "what was made in the background"
wait "$prepared" || { cat "$target/prepare.log"; die "guests lack something"; }
tail -n 20 "$target/prepare.log"
trap - EXIT

# In place of this script: whoever stops it stops the suite, which then takes its devvm down.
exec "$here/suite.sh" e2e
