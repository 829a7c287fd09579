# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this one
# Shared by the scripts of this folder: where things are, step headings, missing packages.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The checkout. Everything outside it that we make lives below $cache or the target folder.
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/volant

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# A heading with the seconds since the first script began: slow steps show themselves.
export STEP_START=${STEP_START:-$EPOCHSECONDS}
step() { printf '\n==> [%4d s] %s\n' "$((EPOCHSECONDS - STEP_START))" "$*"; }

# install_missing COMMAND-OR-FILE=PACKAGE…: installs the packages whose command or file is absent.
install_missing() {
    local pair wanted=()
    for pair in "$@"; do
        if [[ $pair == /* ]]; then
            [[ -e ${pair%%=*} ]] || wanted+=("${pair#*=}")
        else
            command -v "${pair%%=*}" >/dev/null || wanted+=("${pair#*=}")
        fi
    done
    ((${#wanted[@]} > 0)) || return 0
    printf 'installing with apt: %s\n' "${wanted[*]}"
    [[ $EUID -eq 0 ]] || die "not root: apt-get install ${wanted[*]}"
    # Several of our scripts may want something at a time. No lock is for what a package starts.
    mkdir -p "$cache"
    exec 5>"$cache/apt.lock"
    flock 5
    # Without recommends: they would bring a desktop along with QEMU.
    if ! apt_get install -y --no-install-recommends "${wanted[@]}" 2>/dev/null; then
        apt_get update
        apt_get install -y --no-install-recommends "${wanted[@]}"
    fi
    exec 5>&-
}

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >/dev/null 4>&- 5>&- 7>&-; }

# What the kernel build needs; kernel/build.sh itself installs nothing.
install_kernel_tools() {
    install_missing gcc=gcc make=make flex=flex bison=bison bc=bc xz=xz-utils lz4=lz4 \
        strip=binutils /usr/include/gelf.h=libelf-dev
}

# What the daemon uses on the machine it runs on (in the devvm this is the same file system).
install_daemon_tools() {
    install_missing nft=nftables ip=iproute2 /bin/busybox=busybox-static curl=curl
}

# Real clients that the end-to-end suite drives, and where its tests find them.
readonly -a python_clients=(kubernetes==37.0.2 grpcio==1.85.3 e2b==2.63.0)
install_clients() {
    local venv
    venv=$cache/clients/python-$(printf '%s\n' "${python_clients[@]}" | sha256sum | cut -c1-16)
    install_missing tmux=tmux python3=python3 openssl=openssl
    if [[ ! -e $venv/complete ]]; then
        echo "installing ${python_clients[*]} into $venv"
        python3 -c 'import ensurepip' 2>/dev/null || install_missing /usr/share/doc/python3-venv=python3-venv
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "${python_clients[@]}"
        touch "$venv/complete"
    fi
    export VOLANT_TEST_PYTHON=$venv/bin/python
}

# A load generator, and nginx out of its package: installed, it would begin to serve.
install_bench_tools() {
    local nginx=$tools/nginx
    install_missing wrk=wrk
    if [[ ! -x $nginx/usr/sbin/nginx ]]; then
        rm -rf "$nginx"
        mkdir -p "$nginx"
        (cd "$nginx" && apt-get -qq download nginx && dpkg -x nginx_*.deb .)
    fi
    export VOLANT_BENCH_NGINX=$nginx/usr/sbin/nginx
}

install_devvm_tools() {
    install_missing qemu-system-x86_64=qemu-system-x86 ssh=openssh-client dropbear=dropbear-bin \
        dropbearkey=dropbear-bin /bin/busybox=busybox-static cpio=cpio depmod=kmod xz=xz-utils
}

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        # A refused connection is a free port; QEMU's bind decides in the end.
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    printf '%s\n' "$port"
}

# --- Building ------------------------------------------------------------------------------------

need_cargo() {
    command -v cargo >/dev/null || die "cargo is missing: install Rust, for example with rustup"
    install_missing cc=gcc strip=binutils
}

readonly tools=$cache/tools

# install_tool PACKAGE VERSION [FLAG…]: from source, once. Unoptimized: it builds in a quarter of the time
# and runs in two seconds.
install_tool() {
    local package=$1 version=$2
    shift 2
    if ! "$tools/bin/$package" --version 2>/dev/null | grep -qF "$version"; then
        echo "building $package $version into $tools"
        cargo install --quiet --locked --debug --root "$tools" "$@" "$package@$version"
    fi
}

# The guest agent runs where there is no C library, so it carries its own.
readonly agent=$target/x86_64-unknown-linux-gnu/agent/volary
readonly agent_bytes_max=$((3 * 1024 * 1024))

build_agent() {
    local bytes
    # For this target only: build scripts and procedural macros must not be static.
    (cd "$root" && CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS='-C target-feature=+crt-static' \
        cargo build --locked -p volary --profile agent --target x86_64-unknown-linux-gnu)
    bytes=$(stat -c %s "$agent")
    # Every guest holds it in memory.
    ((bytes <= agent_bytes_max)) || die "the agent has $bytes bytes, allowed are $agent_bytes_max"
}

# The daemon that is tested has code that the normal one has not.
readonly test_features=crash-points,mcp-fixtures

# How the daemon is compiled that is only tested: it waits for guests most of its time, and takes a third of the time so.
# For the whole workspace, as tests without guests are: packages have the same features then, and are the same.
readonly -a as_tested=(--workspace --config 'profile.dev.package.volantd.opt-level=1'
    --config 'profile.dev.package.volantd.debug=false')

# Builds the test target $1 and its daemon, sets $program and $volantd. The features are part of
# each artifact's name: a normal build in the same folder neither sees nor disturbs this one.
build_suite() {
    local messages
    # What is measured is compiled as what is shipped.
    local -a compiled=(--release)
    [[ $1 != e2e ]] || compiled=("${as_tested[@]}")
    messages=$(mktemp)
    (cd "$root" && cargo test --locked "${compiled[@]}" \
        --features "$test_features" --test "$1" --no-run \
        --message-format=json-render-diagnostics >"$messages")
    program=$(stripped "$1" "$(program_of "$1")")
    volantd=$(stripped "$1" "$(program_of volantd)")
    rm -f "$messages"
}

# Prints where a copy of the program $2 for the suite $1 is. It has no line tables, which are nine tenths
# of it: a devvm takes half a minute to read them.
stripped() {
    local copy=$target/suite-$1/${2##*/}
    [[ -x $2 ]] || die "cargo did not say where it put a program for $1"
    mkdir -p "${copy%/*}"
    strip --strip-debug -o "$copy.$$" "$2"
    mv "$copy.$$" "$copy"
    printf '%s\n' "$copy"
}

# Prints the program that cargo made for the test target $1, or for the binary $1.
program_of() {
    sed -n "s/.*\"name\":\"$1\",\"src_path\".*\"executable\":\"\([^\"]*\)\".*/\1/p" "$messages" | tail -1
}

# --- The place where guests run: this machine, or the devvm -------------------------------------

# place_up: afterwards `inside CMD…` runs CMD as root where /dev/kvm is.
place_up() {
    place=$("$here/where")
    if [[ $place == host ]]; then
        echo "guests run on this machine's KVM"
    else
        echo "this machine's KVM cannot run Linux guests: using the devvm"
        "$here/devvm" up
    fi
}

inside() {
    if [[ $place == devvm ]]; then
        "$here/devvm" exec -- "$@"
    elif [[ $EUID -eq 0 ]]; then
        "$@"
    else
        sudo -- "$@"
    fi
}

# copy_in FOLDER FILE…: files are copied to where guests run before they are used there. Programs
# start from memory then, and a later build does not pull the file from under a running one.
copy_in() {
    # shellcheck disable=SC2016 # expanded inside
    inside sh -c 'to=$1; shift
        mkdir -p "$to"
        for file; do rm -f "$to/${file##*/}" && cp "$file" "$to/" || exit 1; done' _ "$@" </dev/null
}
