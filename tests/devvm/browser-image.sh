#!/usr/bin/env bash
# Builds the image of docs/examples/browser for `make stress`, as its own script does. Prints the archive, which is kept:
# a second call takes no time, the first one minutes.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

example=$root/docs/examples/browser
result=$cache/browser/$(cat "$example/image.sh" "$example/browser.py" | sha256sum | cut -c1-16)
if [[ ! -e $result/browser.tar ]]; then
    {
        install_missing mmdebstrap=mmdebstrap umoci=umoci skopeo=skopeo
        mkdir -p "$result"
        find "$cache/browser" -mindepth 1 -maxdepth 1 -type d ! -path "$result" -exec rm -rf {} +
        # Whole, or not at all.
        "$example/image.sh" "$result/new.tar"
        mv "$result/new.tar" "$result/browser.tar"
    } >&2
fi
echo "$result/browser.tar"
