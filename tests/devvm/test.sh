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

"$here/lint.sh"

step "tests without guests"
mapfile -t names < <(tests_without_guests)
cargo test --locked --workspace --lib --bins "${names[@]}"

step "guest kernel boots"
install_kernel_tools
install_devvm_tools
kernel/check.sh

# In place of this script: whoever stops it stops the suite, which then takes its devvm down.
exec "$here/suite.sh" e2e
