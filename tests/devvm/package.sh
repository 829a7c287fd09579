#!/usr/bin/env bash
# `make deb`: a Debian package, and a release folder for other distributions. Prints both.
#
#   target/package/release                       volantd, volary, vmlinux, install.sh, SHA256SUMS, share/
#   target/package/volantd_VERSION_amd64.deb
#
# PACKAGE_PROFILE=dev packs what cargo has compiled quickly, for tests of packaging.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

readonly profile=${PACKAGE_PROFILE:-release} deb_version=3.8.0
# cargo-deb is told of files by their place in the checkout.
readonly package=$root/target/package
folder=$profile
[[ $profile != dev ]] || folder=debug
readonly program=$target/$folder/volantd

# From source, once. Unoptimized: it builds in a quarter of the time.
install_cargo_deb() {
    if ! "$cache/tools/bin/cargo-deb" --version 2>/dev/null | grep -qxF "$deb_version"; then
        echo "building cargo-deb $deb_version into $cache/tools"
        cargo install --quiet --locked --debug --no-default-features --root "$cache/tools" \
            "cargo-deb@$deb_version"
    fi
}

# What is generated from the command line's own definitions.
generate() {
    local share=$1
    mkdir -p "$share/doc/volantd"
    cp docs/operations.md LICENSE "$share/doc/volantd/"
    mkdir -p "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/vendor-completions" \
        "$share/fish/vendor_completions.d"
    "$program" man "$share/man/man1"
    "$program" completions bash >"$share/bash-completion/completions/volantd"
    "$program" completions zsh >"$share/zsh/vendor-completions/_volantd"
    "$program" completions fish >"$share/fish/vendor_completions.d/volantd.fish"
}

{
    need_cargo
    install_kernel_tools
    install_missing dpkg-deb=dpkg strip=binutils
    install_cargo_deb
    kernel=$(kernel/build.sh)
    build_agent
    cargo build --locked --profile "$profile" --bin volantd

    rm -rf "$package"
    mkdir -p "$package/release"
    strip --strip-debug -o "$package/release/volantd" "$program"
    cp "$agent" "$kernel/vmlinux" docs/install/install.sh "$package/release/"
    generate "$package/release/share"
    (cd "$package/release" && find . -type f -print0 | sort -z | xargs -0 sha256sum) \
        >"$package/SHA256SUMS"
    mv "$package/SHA256SUMS" "$package/release/"
    "$cache/tools/bin/cargo-deb" --quiet --no-build --no-strip --profile "$profile" \
        --output "$package/"
} >&2
printf '%s\n' "$package/release" "$package"/*.deb
