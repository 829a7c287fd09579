#!/usr/bin/env bash
# `make book`: the documentation as web pages, in target/book.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

need_cargo
install_tool mdbook 0.5.4 --no-default-features
"$tools/bin/mdbook" build docs
