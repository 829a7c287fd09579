#!/usr/bin/env bash
# `make lint`: form of the code, warnings, shell scripts, the web console, and what the packages may be.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

deny() { "$tools/bin/cargo-deny" --locked --log-level warn check --hide-inclusion-graph "$@"; }

step "shell scripts"
install_missing shellcheck=shellcheck
shellcheck -x kernel/*.sh docs/install/*.sh docs/examples/*/*.sh src/setup/debian/* .ci/run tests/devvm/{*.sh,devvm,where,selftest} tests/devvm/guest/*

step "format"
need_cargo
cargo fmt --all --check

step "clippy"
# The suites' daemon has code that the normal one has not.
cargo clippy --locked --workspace --all-targets --features "$test_features" --quiet -- -D warnings
# With a test beside it packages have the features that they had just now, and are not looked through once more.
cargo clippy --locked --workspace --bins --test tidy --quiet -- -D warnings

step "web console: types, and whether what is committed is what its sources make"
install_missing npm=npm
cd src/api/ui/web
if ! cmp -s package-lock.json node_modules/.installed; then
    npm ci --silent --ignore-scripts --no-audit --no-fund
    cp package-lock.json node_modules/.installed
fi
npm run --silent check
built=$(mktemp -d)
node build.mjs "$built"
diff -rq ../dist "$built" || die "src/api/ui/dist is not up to date: npm run build in src/api/ui/web"
rm -r "$built"
cd "$root"

step "packages: licences, duplicates, sources"
install_tool cargo-deny 0.20.2
deny licenses bans sources

step "packages: advisories"
# The list of advisories is a git repository, which not every machine can reach.
if "$tools/bin/cargo-deny" --locked fetch db >/dev/null 2>&1; then
    deny advisories
else
    echo "NOT CHECKED: the advisory database cannot be fetched from here"
fi
