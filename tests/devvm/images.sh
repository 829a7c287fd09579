#!/usr/bin/env bash
# Builds the images that tests pull, from Debian's packages, by mmdebstrap and umoci. Prints the
# folder with the results, which are kept: a second call takes no time.
#
#   images.sh [postgresql]    with PostgreSQL's image too, which only `make stress` needs
#
#   layout/       an OCI layout with the tags base, nginx, python and servers
#   registry/     what Debian's docker-registry stores after they were pushed to it
#   python.tar    as docker save writes it
#   servers.tar   likewise: nginx, and Python with gRPC and WebSocket servers
#   list.sh       prints what of a tree can be compared; nginx.list is what it says of nginx
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly suite=bookworm
# What tests compare with is needed where the images are kept already, too.
install_missing umoci=umoci mkfs.erofs=erofs-utils docker-registry=docker-registry >&2
readonly more=${1:-}
result=$cache/images/$({ cat "${BASH_SOURCE[0]}" && echo "$more"; } | sha256sum | cut -c1-16)
# Whoever comes second finds what the first has made.
mkdir -p "$cache"
exec 4>"$cache/images.lock"
flock 4
if [[ -e $result/complete ]]; then
    echo "$result"
    exit
fi
{
    install_missing mmdebstrap=mmdebstrap setfattr=attr skopeo=skopeo
    work=$(mktemp -d "${TMPDIR:-/tmp}/images.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    cd "$work"

    # A minimal Debian with these packages. Without documents, Perl's library and tables of old character sets, nearly
    # half of it that nobody here uses: each is unpacked again and again in emulation.
    tree() { # tree NAME PACKAGES OPTIONS…
        # shellcheck disable=SC2016 # mmdebstrap's shell expands it
        mmdebstrap --quiet --variant=minbase --include="$2" \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
            --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/apt/*' \
            --customize-hook='rm -rf "$1"/usr/share/perl "$1"/usr/lib/*/perl "$1"/usr/lib/*/gconv' \
            "${@:3}" "$suite" "$1.tar"
    }

    # next NAME: an image whose second layer turns base into the tree NAME, removals included.
    next() {
        umoci unpack --image layout:base "$1"
        find "$1/rootfs" -mindepth 1 -delete
        tar -C "$1/rootfs" --xattrs --xattrs-include='*' -xpf "$1.tar"
        mkdir "$1/rootfs/opt/odd"
        (
            cd "$1/rootfs/opt/odd"
            echo one >file && ln file hard && ln -s ../../etc/passwd link && mkfifo -m 600 pipe
            mknod device c 4 300 && truncate -s 3M sparse && printf end | dd of=sparse bs=1 \
                seek=2000000 conv=notrunc status=none
            chown 1234:4321 file && chmod 4755 file && setfattr -n user.note -v 'a b' file
            touch -d '2001-02-03 04:05:06.789 UTC' file "$(printf 'n\303\244me')"
            head -c 70000 /dev/zero | tr '\0' x >long && mkdir -m 1777 sticky
        )
        rm -r "$1/rootfs/usr/share/doc/apt"
        umoci repack --image "layout:$1" "$1"
        rm -r "$1" "$1.tar"
    }

    umoci init --layout layout
    umoci new --image layout:base
    tree base attr
    umoci raw add-layer --image layout:base base.tar
    umoci config --image layout:base --config.cmd sleep --config.cmd infinity \
        --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    rm base.tar

    tree nginx attr,nginx-light
    next nginx
    umoci config --image layout:nginx --clear config.cmd --config.cmd nginx --config.cmd -g \
        --config.cmd 'daemon off;' --config.exposedports 80/tcp --config.stopsignal SIGQUIT \
        --config.env IMAGE=nginx

    tree python attr,python3
    next python
    umoci config --image layout:python --clear config.cmd --config.entrypoint python3 \
        --config.cmd -m --config.cmd http.server --config.cmd 8000 --config.workingdir /srv \
        --config.user www-data --config.volume /data
    if [[ $more == postgresql ]]; then
        # Without what only its compiler of queries needs, and the cluster that Debian makes.
        # shellcheck disable=SC2016 # mmdebstrap's shell expands it
        tree postgresql attr,postgresql-15 --dpkgopt='path-exclude=/usr/lib/*/libLLVM*' \
            --dpkgopt='path-exclude=/usr/lib/*/libz3.*' \
            --dpkgopt='path-exclude=/usr/lib/postgresql/*/bitcode/*' \
            --dpkgopt='path-exclude=/usr/lib/postgresql/*/llvmjit*' \
            --customize-hook='rm -rf "$1"/var/lib/postgresql/15 "$1"/etc/postgresql/15'
        next postgresql
    fi

    tree servers nginx-light,python3-grpcio,python3-websockets
    next servers
    umoci gc --layout layout

    port=$(free_port)
    cat >registry.yml <<END
version: 0.1
storage: { filesystem: { rootdirectory: $work/registry } }
http: { addr: 127.0.0.1:$port }
END
    docker-registry serve registry.yml &>registry.log &
    registry=$!
    trap 'kill $registry; rm -rf "$work"' EXIT
    for tag in base nginx python $more; do
        skopeo --insecure-policy copy --retry-times 5 --dest-tls-verify=false "oci:layout:$tag" \
            "docker://127.0.0.1:$port/debian/$tag:latest"
    done
    skopeo --insecure-policy copy oci:layout:python "docker-archive:python.tar:debian/python:saved"
    skopeo --insecure-policy copy oci:layout:servers "docker-archive:servers.tar:debian/servers:saved"

    # Below /dev, /proc and /sys a guest has other things.
    cat >list.sh <<'END'
export LC_ALL=C
find . -mindepth 1 -xdev \( -path ./dev -o -path ./proc -o -path ./sys \) -prune -o \
    -type d -printf '%P %y %m %U:%G %T@\n' -o -printf '%P %y %m %U:%G %T@ %s %n %l\n' | sort
getfattr -hRd -m '^user|^security' bin/ opt/ usr/bin/ | sort
END
    umoci unpack --image layout:nginx unpacked
    (cd unpacked/rootfs && sh ../../list.sh) >nginx.list

    rm -rf "$result"
    mkdir -p "$result"
    cp -a layout registry python.tar servers.tar list.sh nginx.list "$result"
    touch "$result/complete"
} >&2
echo "$result"
