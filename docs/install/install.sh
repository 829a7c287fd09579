#!/bin/sh
# Installs volantd from the folder that this file is in, and sets the host up. Needs nothing else, no
# network either.
#
#   install.sh [FLAGS OF volantd setup…]     install, then `volantd setup FLAGS…`
#   install.sh --uninstall [--yes]           take back what setup has made, then what this has installed
#
# PREFIX=/usr/local                          where to
set -eu
here=$(cd "$(dirname "$0")" && pwd)
prefix=${PREFIX:-/usr/local}

die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || die "run it as root"
[ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || die "volantd is for Linux on x86-64"

if [ "${1:-}" = --uninstall ]; then
    if [ -x "$prefix/bin/volantd" ] && [ -e /etc/volant/setup.json ]; then
        "$prefix/bin/volantd" setup "$@"
    fi
    if [ -e "$prefix/lib/volant/installed" ]; then
        while read -r file; do rm -f "$prefix/$file"; done <"$prefix/lib/volant/installed"
        rm -f "$prefix/lib/volant/installed"
        rmdir "$prefix/lib/volant" 2>/dev/null || true
    fi
    exit 0
fi

cd "$here"
for file in volantd volary vmlinux SHA256SUMS; do
    [ -e "$file" ] || die "$here has no $file: unpack the whole release"
done
sha256sum --quiet -c SHA256SUMS || die "the release is damaged"

mkdir -p "$prefix/bin" "$prefix/lib/volant"
# A program that runs cannot be written to, but replaced.
put() {
    mkdir -p "$(dirname "$prefix/$3")"
    cp "$2" "$prefix/$3.new"
    chmod "$1" "$prefix/$3.new"
    mv "$prefix/$3.new" "$prefix/$3"
    printf '%s\n' "$3" >>"$prefix/lib/volant/installed.new"
}
rm -f "$prefix/lib/volant/installed.new"
put 755 volantd bin/volantd
put 755 volary lib/volant/volary
put 644 vmlinux lib/volant/vmlinux
find share -type f 2>/dev/null | while read -r file; do put 644 "$file" "$file"; done
mv "$prefix/lib/volant/installed.new" "$prefix/lib/volant/installed"
exec "$prefix/bin/volantd" setup "$@"
