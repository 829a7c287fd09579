# The front door. Each target is one script; the scripts say what they need and install it.

.DEFAULT_GOAL := help
.PHONY: help run down test bench load stress lint kernel book deb clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

run: ## build all, start the daemon, boot a guest, leave it running
	@tests/devvm/run.sh

down: ## stop what `make run` started
	@tests/devvm/run.sh down

test: ## everything CI checks: lint, unit tests, end-to-end tests in real guests
	@tests/devvm/test.sh

bench: ## measure in real guests (FIRECRACKER=path compares with it)
	@tests/devvm/suite.sh bench --nocapture

load: ## requests a second that the API answers on one core, without guests
	@tests/devvm/load.sh

stress: ## long runs: guests that come and go, large transfers, the package under systemd, the book
	@VOLANT_TEST_TRANSFER_MIB=256 VOLANT_TEST_PROXY_MIB=2048 VOLANT_TEST_EVENTS_S=120 tests/devvm/suite.sh stress --nocapture
	@tests/devvm/systemd.sh
	@tests/devvm/book.sh

lint: ## shell scripts, format, clippy, licences of packages
	@tests/devvm/lint.sh

kernel: ## build the guest kernel, print its folder
	@bash -c "source tests/devvm/lib.sh && install_kernel_tools"
	@kernel/build.sh

book: ## the documentation as web pages, in target/book
	@tests/devvm/book.sh

deb: ## a Debian package and a release folder, in target/package
	@tests/devvm/package.sh

clean: down ## stop what runs, remove build outputs (the cache in ~/.cache/volant stays)
	@cargo clean
