#!/usr/bin/env bash
# Makes the image of the browser plugin from Debian's packages, as `docker save` would write it:
#
#   docs/examples/browser/image.sh /tmp/browser.tar [REFERENCE]
#   volantd ctl images import /tmp/browser.tar
#
# It needs mmdebstrap, umoci and skopeo, and root. Inside are Chromium's headless shell, a font, Python, the program
# beside this one, and a user for it: Chromium's sandbox refuses root.
set -euo pipefail

output=${1:?where the archive is written}
reference=${2:-registry.example/debian/browser:latest}
example=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $output == /* ]] || output=$PWD/$output
work=$(mktemp -d "${TMPDIR:-/tmp}/browser.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

# Without Mesa's drivers and what they need: there is no graphics card.
# shellcheck disable=SC2016 # mmdebstrap's shell expands it
mmdebstrap --quiet --variant=minbase --include=chromium-headless-shell,fonts-dejavu-core,python3 \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/lib/chromium/libVkLayer_khronos_validation.so' \
    --dpkgopt='path-exclude=/usr/lib/*/libLLVM*' --dpkgopt='path-exclude=/usr/lib/*/libz3.*' \
    --dpkgopt='path-exclude=/usr/lib/*/dri/*' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' \
    --customize-hook='chroot "$1" useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin browser' \
    --customize-hook="upload '$example/browser.py' /usr/local/lib/browser.py" \
    --customize-hook='chmod 644 "$1"/usr/local/lib/browser.py' \
    bookworm tree.tar
umoci init --layout layout
umoci new --image layout:browser
umoci raw add-layer --image layout:browser tree.tar
umoci config --image layout:browser --config.user browser \
    --config.entrypoint /usr/bin/python3 --config.entrypoint /usr/local/lib/browser.py \
    --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
skopeo --insecure-policy copy oci:layout:browser "docker-archive:archive.tar:$reference"
mv archive.tar "$output"
