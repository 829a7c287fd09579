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

step "guest kernel: build"
install_kernel_tools
install_devvm_tools
kernel/build.sh >/dev/null
mkdir -p "$target"
# It waits for an emulator most of its time.
kernel/check.sh >"$target/kernel-check.log" 2>&1 &
check=$!

"$here/lint.sh"

step "tests without guests"
mapfile -t names < <(tests_without_guests)
cargo test --locked --workspace --lib --bins "${names[@]}"

step "guest kernel boots"
if ! wait $check; then
    cat "$target/kernel-check.log"
    die "the kernel does not boot"
fi
cat "$target/kernel-check.log"

# In place of this script: whoever stops it stops the suite, which then takes its devvm down.
exec "$here/suite.sh" e2e
