#!/usr/bin/env bash
# Builds the guest kernel, or finds it in the cache.
#
#   kernel/build.sh                  prints one line: the folder with vmlinux, bzImage, config
#   KERNEL_SRC=dir kernel/build.sh   the same from another kernel tree
#
# The folder's name is a hash over everything that went in (source version, fragment, this script),
# so a finished build is never stale and never rebuilt. Progress goes to stderr.
set -euo pipefail
export LC_ALL=C

readonly SOURCE_PACKAGE=linux-source-6.12
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly fragment=$here/config.fragment
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/volant/kernel

say() { printf 'kernel: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The version is part of the hash, so it must be known before anything is downloaded.
source_version() {
    if [[ -n ${KERNEL_SRC:-} ]]; then
        [[ -f $KERNEL_SRC/Kconfig ]] || die "KERNEL_SRC=$KERNEL_SRC is not a kernel tree"
        # Edits to files are not noticed; a new commit or another path is.
        printf 'tree %s %s %s\n' "$(realpath "$KERNEL_SRC")" \
            "$(make -s -C "$KERNEL_SRC" kernelversion)" \
            "$(git -C "$KERNEL_SRC" rev-parse HEAD 2>/dev/null || true)"
        return
    fi
    local version
    version=$(package_version)
    if [[ -z $version && $EUID -eq 0 ]]; then
        say "package lists are missing, fetching them"
        apt-get update >&2
        version=$(package_version)
    fi
    [[ -n $version ]] || die "apt knows no $SOURCE_PACKAGE; run apt-get update, or set KERNEL_SRC"
    printf '%s\n' "$version"
}

package_version() {
    apt-cache show --no-all-versions "$SOURCE_PACKAGE" 2>/dev/null | sed -n 's/^Version: //p'
}

check_tools() {
    local tool missing=()
    for tool in gcc make flex bison bc xz lz4 strip flock; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    # objtool is part of the build and reads ELF.
    [[ -e /usr/include/gelf.h ]] || missing+=(libelf-dev)
    ((${#missing[@]} == 0)) || die "missing: ${missing[*]} (Debian: apt-get install gcc make flex \
bison bc xz-utils lz4 binutils util-linux libelf-dev)"
}

# Unpacks the source package into the folder $1. apt verifies the archive's signature and hash.
unpack_source() {
    local tree=$1 tarball=/usr/src/$SOURCE_PACKAGE.tar.xz installed
    installed=$(dpkg-query -W -f '${Version}' "$SOURCE_PACKAGE" 2>/dev/null || true)
    if [[ $installed != "$version" || ! -f $tarball ]]; then
        say "downloading $SOURCE_PACKAGE $version (about 150 MB)"
        # As the calling user, not as _apt, who may not write into our folder.
        (cd "$work" && apt-get -q -o APT::Sandbox::User="$(id -un)" \
            download "$SOURCE_PACKAGE=$version" >&2)
        dpkg -x "$work"/*.deb "$work/package"
        rm "$work"/*.deb
        tarball=$work/package/usr/src/$SOURCE_PACKAGE.tar.xz
    fi
    say "unpacking the source"
    mkdir "$tree"
    # A quarter of the tree is the register lists of one graphics driver.
    tar -C "$tree" --strip-components=1 -I 'xz -T0' \
        --exclude='drivers/gpu/drm/amd/include' -xf "$tarball"
    rm -rf "$work/package"
}

# Fails with the list of fragment lines that kconfig did not take.
check_config() {
    local refused
    refused=$(awk '
        NR == FNR {
            if (/^CONFIG_/) { i = index($0, "="); has[substr($0, 1, i - 1)] = substr($0, i + 1) }
            next
        }
        /^CONFIG_/ {
            i = index($0, "="); name = substr($0, 1, i - 1); want = substr($0, i + 1)
            got = (name in has) ? has[name] : "n"
            if (got != want) print "  " name ": asked for " want ", got " got
        }
        /^# CONFIG_[A-Za-z0-9_]+ is not set$/ {
            if ($2 in has) print "  " $2 ": asked for n, got " has[$2]
        }' "$1" "$fragment")
    [[ -z $refused ]] || die "config.fragment asks for what this kernel does not give:
$refused"
}

# Reads make's output; shows a running count, one line now and then where there is no terminal.
show_progress() {
    local terminal=0
    [[ -t 2 ]] && terminal=1
    awk -v terminal="$terminal" '
        BEGIN { start = systime() }
        /^  (CC|AS|LD|AR|HOSTCC) / {
            done++
            if (terminal && done % 10 == 0) {
                printf "\rkernel: %d files, %d s ", done, systime() - start >"/dev/stderr"
            } else if (!terminal && done % 500 == 0) {
                printf "kernel: %d files, %d s\n", done, systime() - start >"/dev/stderr"
            }
        }
        END { if (terminal) printf "\r" >"/dev/stderr"
              printf "kernel: %d files built in %d s\n", done, systime() - start >"/dev/stderr" }'
}

build() {
    local tree=${KERNEL_SRC:-$work/source} out=$work/out log=$work/build.log
    [[ -n ${KERNEL_SRC:-} ]] || unpack_source "$tree"
    mkdir "$out"
    # Nothing of this machine or this moment inside the image: equal inputs, equal kernels.
    local make=(make -C "$tree" "O=$out" ARCH=x86_64 KBUILD_BUILD_USER=volant
        KBUILD_BUILD_HOST=volant "KBUILD_BUILD_TIMESTAMP=@0" KBUILD_BUILD_VERSION=1)

    "${make[@]}" -s tinyconfig >"$log" 2>&1 || die "tinyconfig failed: $(tail -5 "$log")"
    cat "$fragment" >>"$out/.config"
    "${make[@]}" -s olddefconfig >"$log" 2>&1 || die "olddefconfig failed: $(tail -5 "$log")"
    check_config "$out/.config"

    say "compiling with $(nproc) jobs"
    if ! "${make[@]}" -j"$(nproc)" vmlinux bzImage 2>&1 | tee "$log" | show_progress; then
        grep -nE 'error|Error' "$log" | tail -20 >&2 || true
        cp "$log" "$cache/failed.log"
        die "the build failed, see $cache/failed.log"
    fi

    mkdir "$work/result"
    # Loaders read the program headers and the PVH note; symbols are dead weight for them.
    strip --strip-all -o "$work/result/vmlinux" "$out/vmlinux"
    cp "$out/arch/x86/boot/bzImage" "$work/result/bzImage"
    cp "$out/.config" "$work/result/config"
    cp "$out/System.map" "$work/result/System.map"
    readelf -n "$work/result/vmlinux" | grep -q Xen || die "vmlinux has no PVH note"
}

version=$(source_version)
hash=$({ printf '%s\n' "$version"; cat "$fragment" "${BASH_SOURCE[0]}"; } | sha256sum | cut -c1-16)
result=$cache/$hash

if [[ ! -d $result ]]; then
    check_tools
    mkdir -p "$cache"
    exec 9>"$cache/.lock"
    if ! flock -n 9; then
        say "another build is running, waiting for it"
        flock 9
    fi
    # Whoever held the lock may have built just this.
    if [[ ! -d $result ]]; then
        # Under the lock every work folder is a leftover of a build that was killed.
        rm -rf "$cache"/.work.*
        work=$(mktemp -d "$cache/.work.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        build
        mv "$work/result" "$result"
        say "kernel $version is ready: vmlinux $(du -h "$result/vmlinux" | cut -f1)," \
            "bzImage $(du -h "$result/bzImage" | cut -f1)"
    fi
fi
printf '%s\n' "$result"
