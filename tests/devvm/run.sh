#!/usr/bin/env bash
# `make run`: from a fresh checkout to a guest that serves a web page, and left running.
#
# `run.sh down` stops all of it. Everything is as a user has it: the daemon in the background, its
# API on 127.0.0.1:7777, the token in ~/.config/volant/token, `volantd ctl` in front of it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

port=${DEVVM_PORT:-7777}
readonly port url=http://127.0.0.1:$port
readonly token_file=${XDG_CONFIG_HOME:-$HOME/.config}/volant/token
readonly socket=/run/volant/volant.sock
readonly programs=/run/volant-run log=/run/volant-run/volantd.log
readonly volantd=$target/release/volantd
readonly ready_seconds=120

ctl() { VOLANT_HOST=$url VOLANT_TOKEN_FILE=$token_file "$volantd" ctl "$@"; }

# The token goes through a file descriptor: an argument would show in the process list.
get() { curl -fsS --max-time 20 -K <(printf 'header = "Authorization: Bearer %s"\n' "$(<"$token_file")") "$@"; }

make_token() {
    [[ -s $token_file ]] && return
    (umask 077 && mkdir -p "$(dirname "$token_file")" && od -An -N32 -tx1 /dev/urandom \
        | tr -d ' \n' >"$token_file")
}

ready() { curl -fsS --max-time 5 -o /dev/null "$url/readyz" 2>/dev/null; }

stop_daemon() {
    # By the recorded pid, and only if that is still our program.
    # shellcheck disable=SC2016 # expanded inside
    inside sh -c 'pid=$(cat "$1/volantd.pid" 2>/dev/null) || exit 0
        [ "$(readlink "/proc/$pid/exe" | sed "s/ (deleted)//")" = "$1/volantd" ] || exit 0
        kill "$pid"
        i=0
        while [ -e "/proc/$pid" ] && [ $i -lt 150 ]; do sleep 0.2; i=$((i + 1)); done
        [ ! -e "/proc/$pid" ] || kill -KILL "$pid"
        rm -f "$1/volantd.pid"' _ "$programs" </dev/null
}

# What is running is what would be started now: same programs, same kernel, same place.
identity() { { cat "$volantd" "$agent"; echo "$kernel $place $port"; } | sha256sum | cut -c1-32; }

start_daemon() {
    local listen=127.0.0.1:$port image
    # The devvm's forwarded port arrives at its network card, not at its loopback.
    [[ $place == host ]] || listen=0.0.0.0:7777
    copy_in "$programs" "$volantd" "$agent"
    # A kernel's folder never changes, and the copy takes seconds in the devvm.
    image=$programs/$(basename "$kernel")
    inside test -e "$image/vmlinux" </dev/null || copy_in "$image" "$kernel/vmlinux"
    # setsid -f: the daemon outlives the command that starts it.
    # shellcheck disable=SC2016 # expanded inside
    inside sh -c 'log=$1; shift
        [ -t 0 ] || exec </dev/null
        exec setsid -f sh -c '\''echo $$ >"${0%/*}/volantd.pid"; exec "$@"'\'' "$log" "$@" >"$log" 2>&1' \
        _ "$log" "$programs/volantd" serve --state-dir /var/lib/volant --socket "$socket" \
        --listen "$listen" --token-file "$token_file" --kernel "$image/vmlinux" \
        --agent "$programs/volary" --busybox /bin/busybox </dev/null
    local deadline=$((SECONDS + ready_seconds))
    until ready; do
        if ((SECONDS > deadline)) || ! inside sh -c "kill -0 \$(cat $programs/volantd.pid)" </dev/null; then
            inside tail -n 40 "$log" </dev/null >&2 || true
            die "the daemon is not ready at $url/readyz; the end of its log is above"
        fi
        sleep 0.3
    done
    inside sh -c "echo $(identity) >$programs/identity" </dev/null
}

down() {
    place=$("$here/where")
    if [[ $place == devvm ]]; then
        "$here/devvm" down
    else
        stop_daemon
    fi
}

show() {
    printf '$ %s\n' "$*"
}

demonstrate() {
    step "a guest"
    if ctl vms get demo >/dev/null 2>&1; then ctl vms delete demo; fi
    show "volantd ctl vms create demo --cpu 1 --memory 256 --wait"
    ctl vms create demo --cpu 1 --memory 256 --wait
    show "volantd ctl vms exec demo -- uname -a"
    ctl vms exec demo -- uname -a

    step "a web server in it, reached through the daemon"
    local page='mkdir -p /www && echo "hello from a microVM" >/www/index.html'
    ctl vms exec demo -- sh -c "$page && busybox httpd -p 8080 -h /www"
    local proxied=$url/api/v1/vms/demo/proxy/8080/ answer
    show "curl -H 'Authorization: Bearer …' $proxied"
    answer=$(get --retry 5 --retry-delay 1 --retry-all-errors "$proxied")
    echo "$answer"
    [[ $answer == "hello from a microVM" ]] || die "that is not the page of the guest"

    step "how it booted"
    ctl vms timeline demo
}

run() {
    step "what is needed"
    need_cargo
    install_kernel_tools
    install_daemon_tools
    make_token

    step "guest kernel"
    kernel=$("$root/kernel/build.sh")
    step "guest agent and daemon"
    build_agent
    (cd "$root" && cargo build --locked --release --bin volantd)

    step "a place for guests"
    place_up
    step "daemon"
    if ready && [[ $(inside cat "$programs/identity" </dev/null 2>/dev/null) == "$(identity)" ]]; then
        echo "runs already, unchanged"
    else
        stop_daemon
        start_daemon
        echo "ready at $url"
    fi

    demonstrate
    # Elsewhere than at the usual address the client must be told.
    local host=
    [[ $port == 7777 ]] || host=" VOLANT_HOST=$url"
    step "all of it is left running"
    cat <<END
Next:

  export PATH=$(dirname "$volantd"):\$PATH$host
  volantd ctl vms list
  volantd ctl vms console demo
  curl -H "Authorization: Bearer \$(cat $token_file)" $url/api/v1/vms
  make down
END
}

case ${1:-run} in
    run) run ;;
    down) down ;;
    *) die "run or down?" ;;
esac
