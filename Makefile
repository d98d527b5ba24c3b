# Each target makes what it needs: the virtual environment, the compiled core and engine and, when run as root, Debian's
# packages. As another user it names the one command that installs what is missing, and stops.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PYTEST_ARGS ?=

SANITIZERS := -fsanitize=address,undefined
BIN := $(VENV)/bin
PACKAGES_BUILD := gcc libc6-dev python3-dev python3-venv
PACKAGES_ENGINE := cmake g++ pkg-config patch
PACKAGES_GUEST := busybox-static cpio xz-utils
PACKAGES_TEST := acpica-tools binutils-aarch64-linux-gnu dmidecode git iproute2 iputils-ping libslirp0 qemu-utils socat \
	tmux tshark
# the reference that figures and the rig are measured against; nothing of aioemu needs it
PACKAGES_ORACLE := qemu-system-x86 qemu-utils

.PHONY: help venv core engine demo run test test-kvm test-asan check format bench clean

help: ## name the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

venv: ## .venv with the project (editable) and every tool
	@.ci/need $(PACKAGES_BUILD)
	@PYTHON=$(PYTHON) .ci/venv $(VENV)

core: venv ## compile what changed in aioemu/core, and byte code as an installed package has it
	@$(BIN)/python -m compileall -q aioemu blockdev netdev protocol
	@$(BIN)/python aioemu/core/build.py

engine: venv ## build and install the patched CPU engine of -accel tcg (cached by content)
	@test ! -f engine/pyproject.toml || { .ci/need $(PACKAGES_ENGINE) && .ci/engine $(VENV); }

demo: core engine ## boot Debian's stock kernel, run a few commands in it, use a disk over a reboot; two guests on a link
	@.ci/need $(PACKAGES_GUEST)
	@$(BIN)/python examples/demo.py $(ARGS)
	@$(BIN)/python examples/demo_network.py

run: core engine ## the same guest with an interactive console (Ctrl-A x leaves)
	@.ci/need $(PACKAGES_GUEST)
	@$(BIN)/python examples/demo.py --interactive $(ARGS)

test: core engine ## every test but the rig's; PYTEST_ARGS chooses
	@.ci/need $(PACKAGES_GUEST) $(PACKAGES_TEST)
	@$(BIN)/python -m pytest -m 'not rig' $(PYTEST_ARGS)

test-kvm: core engine ## stock Linux on hardware KVM, which the rig provides on any host
	@.ci/need $(PACKAGES_GUEST) $(PACKAGES_TEST) $(PACKAGES_ORACLE)
	@$(BIN)/python -m pytest -m rig --timeout 900 $(PYTEST_ARGS)

test-asan: core engine ## the tests on a core with the address and undefined-behaviour sanitizers
	@CFLAGS='$(SANITIZERS) -O1' LDFLAGS='$(SANITIZERS)' $(BIN)/python aioemu/core/build.py
	@ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	$(BIN)/python -m pytest -m 'not rig and not package' $(PYTEST_ARGS); \
	status=$$?; $(BIN)/python aioemu/core/build.py; exit $$status

check: venv ## style, types, layers, C warnings and analyser
	@.ci/check $(BIN)

format: venv ## bring Python and C into the one layout
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format .
	@git ls-files -co --exclude-standard '*.c' '*.h' | xargs -r $(BIN)/clang-format -i

bench: core engine ## the figures of docs/performance.md, as JSON
	@.ci/need $(PACKAGES_GUEST) $(PACKAGES_ORACLE)
	@$(BIN)/python -m tests.bench $(ARGS)

clean: ## remove what make made; caches outside the tree stay
	rm -rf $(VENV) build dist aioemu.egg-info aioemu/_core*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
