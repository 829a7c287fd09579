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
    list=$prefix/lib/volant/installed
    if [ -e "$list" ]; then
        files=$(grep -v '/$' "$list") folders=$(grep '/$' "$list" | sort -r)
        rm -f "$list"
        printf '%s\n' "$files" | while read -r file; do rm -f "$prefix/$file"; done
        # What others have put there stays, and the folder with it.
        printf '%s\n' "$folders" | while read -r folder; do
            rmdir "$prefix/$folder" 2>/dev/null || true
        done
    fi
    exit 0
fi

cd "$here"
for file in volantd volary vmlinux SHA256SUMS; do
    [ -e "$file" ] || die "$here has no $file: unpack the whole release"
done
sha256sum --quiet -c SHA256SUMS || die "the release is damaged"

installed=$prefix/lib/volant/installed
noted=$(mktemp)
# Folders that an earlier release has made are still ours.
grep '/$' "$installed" >"$noted" 2>/dev/null || true
# make_folder NAME: notes those that were not there.
make_folder() {
    [ -d "$prefix/$1" ] && return
    case $1 in */*) make_folder "${1%/*}" ;; esac
    mkdir "$prefix/$1"
    printf '%s/\n' "$1" >>"$noted"
}
# A program that runs cannot be written to, but replaced.
put() {
    make_folder "$(dirname "$3")"
    cp "$2" "$prefix/$3.new"
    chmod "$1" "$prefix/$3.new"
    mv "$prefix/$3.new" "$prefix/$3"
    printf '%s\n' "$3" >>"$noted"
}
mkdir -p "$prefix"
put 755 volantd bin/volantd
put 755 volary lib/volant/volary
put 644 vmlinux lib/volant/vmlinux
find share -type f 2>/dev/null | while read -r file; do put 644 "$file" "$file"; done
cp "$noted" "$installed"
rm -f "$noted"
exec "$prefix/bin/volantd" setup "$@"
