# SPDX-License-Identifier: GPL-2.0-only
# `make` alone explains what can be made. Every target sets up what it needs.

BIN := .venv/bin
NEEDS = analysis/setup/os-packages --for $@
MAKEFLAGS += --no-print-directory

# Ends when make is killed, instead of working on unseen. No signal tells of a make that was gone
# before it was asked for: then whose child it is tells, and nothing begins.
WITH_MAKE = exec setpriv --pdeathsig TERM -- \
	sh -c 'test $$PPID = $(shell echo $$PPID) && exec "$$@"' with-make

define LINT
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
endef

# Tests run side by side, each module on one worker: see tests/conftest.py. With 0 there is no worker.
WORKERS ?= $(shell cpus=$$(nproc) && echo $$((cpus < 4 ? cpus + 1 : 4)))
# They start hundreds of Pythons, of which only the first is to compile what they import.
PYTEST := env -u PYTHONDONTWRITEBYTECODE analysis/setup/as-root $(BIN)/pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

# As they stand they open recorded data, so they print the same every time.
NOTEBOOKS := $(wildcard notebooks/[0-9]*.ipynb) notebooks/explore.ipynb

.DEFAULT_GOAL := help
.PHONY: help report demo lab test check lint bench notebooks packages venv build constraints clean
.PHONY: kernels test-kernels survey matrix programs ready probe workload guest
export OS_PACKAGES PYTHON

##@ See the answer

report: ## run the workload here, take the census, print the answer
	@$(NEEDS) --root venv build measure
	@$(MAKE) ready probe workload guest
	@$(WITH_MAKE) $(BIN)/anonvma report $${COST:+--cost "$$COST"} $(ARGS)

demo: ## the same report from recorded data; no root, no compiler
	@$(NEEDS) venv
	@$(MAKE) ready
	@$(WITH_MAKE) $(BIN)/anonvma demo $(ARGS)

lab: ## JupyterLab on the explorer: a run, or this machine, live
	@$(NEEDS) venv build lab
	@$(MAKE) ready probe
	@$(WITH_MAKE) $(BIN)/anonvma lab $(ARGS)

##@ Work on it

test: ## lint, pytest, and the notebooks' outputs
	@$(NEEDS) venv build measure guest mail browser lab hosts
	@$(MAKE) ready probe workload guest
	@$(MAKE) lint & lint=$$!; trap 'kill $$lint; exit 130' INT TERM; \
		$(PYTEST) --nbval tests $(NOTEBOOKS) $(ARGS); tests=$$?; \
		wait $$lint || { echo 'make lint failed: its words are above.' >&2; exit 1; }; \
		exit $$tests

check: ## the part worth running before each commit: lint, and the tests that start nothing large
	@$(NEEDS) venv build
	@$(MAKE) ready probe workload guest
	$(LINT)
	$(PYTEST) -m 'not slow and not kernels' tests $(ARGS)

lint: ## ruff, mypy, and which folder imports from which
	@$(NEEDS) venv
	@$(MAKE) ready
	$(LINT)

bench: ## what observing costs, against the usual ways
	@$(NEEDS) --root venv build measure bench hosts
	@$(MAKE) ready probe workload guest
	$(BIN)/python tests/bench/bench.py $(ARGS)
	$(BIN)/python tests/bench/bench_faults.py
	$(BIN)/python tests/bench/bench_guest.py
	$(BIN)/python tests/bench/bench_compare.py
	$(BIN)/python tests/bench/bench_perf.py
	$(BIN)/python tests/bench/bench_explore.py
	$(BIN)/python tests/bench/bench_start.py
	$(BIN)/python tests/bench/bench_store.py
	$(BIN)/python tests/bench/bench_ssh.py

notebooks: ## run them again on the recorded data, to commit
	@$(NEEDS) venv
	@$(MAKE) ready
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False \
		--ExecutePreprocessor.store_widget_state=False \
		--ExecutePreprocessor.extra_arguments=--log-level=ERROR $(NOTEBOOKS)

##@ Kernels in guests

kernels: ## two kernels that differ in the early check (SERIES=7.3, ARCH=arm64), or BASE= and HEAD= of TREE=
	@$(NEEDS) kernels guest
	@python=$$(analysis/setup/find-python) && $(WITH_MAKE) "$$python" analysis/setup/kernels \
		$${SERIES:+--series "$$SERIES"} $${TREE:+--tree "$$TREE"} \
		$${BASE:+--base "$$BASE"} $${HEAD:+--head "$$HEAD"} \
		$${ALSO:+--also "$$ALSO"} $${JOBS:+--jobs "$$JOBS"} \
		$${ARCH:+--arch "$$ARCH"} $${PAGES:+--pages "$$PAGES"}

test-kernels: ## build that pair, and test it
	@$(NEEDS) venv build measure kernels guest
	@$(MAKE) ready probe workload guest
	@$(MAKE) kernels SERIES= TREE= BASE= HEAD= ALSO= ARCH= PAGES=
	$(PYTEST) -m kernels tests $(ARGS)

survey: ## every stock kernel and the pair, each against the one before; an hour and a half
	@$(NEEDS) venv build measure kernels guest
	@$(MAKE) ready probe workload guest
	@$(MAKE) kernels SERIES= TREE= BASE= HEAD= ALSO= ARCH= PAGES=
	@$(WITH_MAKE) analysis/setup/stock-kernel --image-only all
	@$(WITH_MAKE) analysis/setup/stock-kernel --image-only ubuntu-6.8
	@$(WITH_MAKE) $(BIN)/anonvma batch data/studies/kernels.yaml $(ARGS)

matrix: ## how faults and locks can be seen on which kernel, as recorded; FRESH=stock:7.3 boots it
	@$(NEEDS) venv build measure guest
	@$(MAKE) ready probe workload guest
	$(BIN)/python tests/helpers/matrix.py $${FRESH:+--fresh $$FRESH} $(ARGS)

##@ Its parts

packages: ## name and install the system packages it lacks
	@$(NEEDS) venv build measure guest mail browser lab hosts

venv: ## .venv, with uv if that is installed, else with pip
	@$(NEEDS) venv
	@$(MAKE) ready

programs: ## name and unpack the programs that data/studies/programs.yaml runs, or STUDY=; installs nothing
	@analysis/setup/programs $(STUDY)

build: ## the programs in build/: vmaprobe, vmload, specimens, guest-init, anonvma-agent; ARCH=
	@$(NEEDS) build
	@$(MAKE) probe workload guest

constraints: ## pin the newest versions that pyproject.toml allows
	@analysis/setup/constraints

clean: ## remove build/ and the caches; .venv and data/ stay
	rm -rf build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

ready: .venv/.ready
	@:

# A virtual environment knows its own path: one that was moved or copied here is made again.
ifneq ($(shell test -x .venv/bin/python && cat .venv/.ready 2>/dev/null),$(CURDIR)/.venv)
.PHONY: .venv/.ready
endif
.venv/.ready: pyproject.toml constraints.txt analysis/setup/venv
	@analysis/setup/venv

probe workload guest:
	@$(MAKE) -s -C analysis/$@ OUT=../../build
	@test -z "$(ARCH)" || analysis/setup/cross "$(ARCH)" $(MAKE) -s -C analysis/$@

help:
	@echo 'anonvma: which VMAs have a NULL vm_ops and no anon_vma, and what that costs.'
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo 'On a new machine `make report` is enough: it says what it lacks, then installs it.'
	@echo 'It needs root, or sudo without a password; `make demo` does not.'
	@echo '  OS_PACKAGES=no      leave the operating system as it is; say what it lacks'
	@echo '  PYTHON=python3.13   make .venv with this Python (3.11 or later)'
	@echo '  WORKERS=1           run so many tests side by side; by default one more than CPUs, 4 at most'
	@echo '  ARCH=arm64          build also the programs that guests of arm64 run, into build/arm64;'
	@echo '                      or the two kernels for it (kernels), with PAGES=64k of pages of 64 KiB'
	@echo '  COST=0              seconds for what mmap_lock costs here (report); 0 leaves it out'
	@echo "  ARGS='-k census'    pass these on to the command: report, demo, test or bench"
	@echo '  SERIES=7.3          build kernels from this series of Debian, or from its newest (newest)'
	@echo '  STUDY=mine.yaml     the packages of this study (programs)'
	@echo '  TREE=../linux       build kernels from this source; BASE= and HEAD= are revisions of it'
