# GNU make. Targets that are not in `make help` don't exist.

SHELL = bash

PREFIX = /usr/local
DESTDIR =
ASK = remember to send the invoice tomorrow
FTAI_TEST_SCALE ?= 1
# As it was typed: make would read a `$` in it.
export SENTENCE := $(value ASK)
export FTAI_TEST_SCALE

venv = $(CURDIR)/.venv
python = $(venv)/bin/python
# An environment that shows a flush that is missing, and keeps byte code.
clean_env = env -u PYTHONUNBUFFERED -u PYTHONDONTWRITEBYTECODE -u PYTHONPATH -u MAKEFLAGS -u MAKELEVEL PATH="$(venv)/bin:$(CURDIR)/bin:$$PATH"
pytest = pytest -q -rs -n 2 --dist worksteal
bats = $(firstword $(wildcard $(venv)/node_modules/bats/bin/bats) bats)
root = $(DESTDIR)$(PREFIX)

help:
	@echo 'make run            the main job on a sample sentence: its records and its answer (sets up .venv on first use)'
	@echo 'make run ASK="..."  the same with your own; what is remembered stays in .run/ here (FTAI_HOME=DIR: there)'
	@echo 'make test           everything below up to docs; test-full: the same at ten times the scale, and coverage'
	@echo 'make lint types     ruff; mypy, over lib/ and bin/'
	@echo 'make unit faults    pytest: functions; kill -9, full disks and the like'
	@echo 'make stages         bats'
	@echo 'make cases docs     the cases in tests/cases; man pages, completions and README against the stages'
	@echo 'make coverage       which lines of lib/ and bin/ the unit and stage tests ran; at least 90 % of each'
	@echo 'make bench          speed, each figure against its yardstick in the same run'
	@echo 'make completions    write completions/ anew from the options of bin/'
	@echo 'make install        into PREFIX=$(PREFIX), below DESTDIR; uninstall takes it away again'
	@echo 'make wheel          dist/*.whl; release-check: the gates of the release spec; clean: what make made but .run/'

run: $(venv)/run.stamp
	@set -o pipefail -e; export FTAI_HOME="$${FTAI_HOME:-$(CURDIR)/.run}"; mkdir -p -m 700 "$$FTAI_HOME"; out="$$FTAI_HOME/last.ndjson"; \
	pipe() { ftai-listen "$$SENTENCE" | ftai-route | ftai-exec | ftai-log --status; }; \
	export PATH="$(venv)/bin:$(CURDIR)/bin:$$PATH"; rc=0; \
	echo "\$$ ftai-listen \"$$SENTENCE\" | ftai-route | ftai-exec | ftai-log | ftai-show"; pipe >"$$out" || rc=$$?; \
	ftai-show "$$out"; echo; echo "\$$ … | ftai-show -a"; ftai-show -a "$$out"; exit $$rc

# The environment: what a run needs, and what the tests need on top.

PYTHON = python3 python3.14 python3.13 python3.12 python3.11
uv := $(shell command -v uv)
pip = $(if $(uv),$(uv) pip install --quiet --compile-bytecode --python $(python),$(python) -m pip install --quiet --disable-pip-version-check)
needs = import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*p["dependencies"],

$(python):
	@p=$$(for p in $(PYTHON); do "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v "$$p" && break; done); \
	test -n "$$p" || { echo "make: no Python 3.11 or newer on the PATH" >&2; echo "hint: make run PYTHON=/where/it/is/python3" >&2; exit 1; }; \
	echo "setting up .venv with $$p"; \
	{ if [ -n "$(uv)" ]; then "$(uv)" venv --quiet --seed --python "$$p" "$(venv)"; else "$$p" -m venv "$(venv)"; fi; } || { \
	rm -rf "$(venv)"; echo "hint: Debian keeps venv in the package python3-venv" >&2; exit 1; }

$(venv)/run.stamp: pyproject.toml | $(python)
	@$(python) -c '$(needs) sep="\n")' >$(venv)/run.txt
	@$(pip) -r $(venv)/run.txt
	@$(clean_env) $(python) -m compileall -q lib
	@touch $@

$(venv)/test.stamp: $(venv)/run.stamp
	@$(python) -c '$(needs) *p["optional-dependencies"]["test"], sep="\n")' >$(venv)/test.txt
	@$(pip) -r $(venv)/test.txt
	@npm install --silent --no-save --no-package-lock --no-fund --no-audit --prefix $(venv) bats@1.13.0 2>/dev/null || command -v bats >/dev/null || { \
	echo "make: bats is missing: the stage tests can't run" >&2; echo "hint: install npm, or Debian's package bats" >&2; exit 1; }
	@for p in mandoc strace faketime jq zsh fish age zstd openssl gnome-keyring-daemon secret-tool; do command -v $$p >/dev/null || echo "make: WARNING: '$$p' is missing: the tests that need it are skipped" >&2; done
	@touch $@

# Tests.

# Two parts at a time, as each waits a good deal: for disks, locks and its last test.
test: lint types
	@$(MAKE) --no-print-directory -k -j2 -Otarget stages faults unit docs cases || { echo 'make test: FAILED, see above' >&2; exit 1; }

test-full:
	@FTAI_TEST_SCALE=10 $(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory coverage

# Apart from the tests, as it makes each start of a stage twice as long.
coverage: $(venv)/test.stamp
	@$(clean_env) coverage erase
	@COVERAGE_FILE=$(CURDIR)/.coverage COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml $(MAKE) --no-print-directory -k unit stages
	@$(clean_env) bash -o pipefail -c 'coverage combine --quiet && rm -f .coverage.* && coverage report --skip-covered && coverage json --quiet -o - | python tests/covered.py'

lint: $(venv)/test.stamp
	@$(clean_env) ruff check --quiet .

types: $(venv)/test.stamp
	@$(clean_env) mypy lib/serenamaster bin/ftai-*

unit: $(venv)/test.stamp
	@$(clean_env) $(pytest) tests/unit

faults: $(venv)/test.stamp
	@$(clean_env) $(pytest) tests/faults

# The longest first. Within a file one after another: else bats looks for a free place once a second.
stages: $(venv)/test.stamp
	@flags=; parallel --version 2>/dev/null | grep -q 'GNU parallel' && flags="--jobs 2 --no-parallelize-within-files"; $(clean_env) $(bats) $$flags $$(ls -S tests/stages/*.bats)

cases: $(venv)/test.stamp
	@$(clean_env) $(pytest) tests/cases

docs: $(venv)/test.stamp
	@$(clean_env) $(pytest) tests/docs

completions: $(venv)/test.stamp
	@$(clean_env) python tests/docs/completions.py

bench: $(venv)/test.stamp
	@$(clean_env) python -m compileall -q lib
	@printf '%-52s %12s %-10s %12s %8s\n' what value unit yardstick ratio
	@for bench in tests/bench/[a-z]*.py; do $(clean_env) python $$bench; done | awk -F'\t' '{ printf "%-52s %12s %-10s %12s %8s\n", $$1, $$2, $$3, $$4, $$5; fflush() }'

# Into a system, and out of it.

# What goes where below PREFIX; what stands in lib/serenamaster is taken away with its folder.
install: $(venv)/run.stamp
	@set -e; umask 022; lib="$(root)/lib/serenamaster"; python=$$($(python) -c 'import os, sys; print(os.path.realpath(sys._base_executable))'); \
	put() { mode=$$1 to=$$2; shift 2; install -d "$(root)/$$to"; for f; do install -m $$mode "$$f" "$(root)/$$to"; echo "$$to/$${f##*/}"; done; }; \
	install -d "$$lib/specs"; install -m 644 lib/serenamaster/*.py "$$lib"; install -m 644 specs/*.ftai "$$lib/specs"; \
	$(pip) --upgrade --target "$$lib/packages" -r $(venv)/run.txt; \
	{ put 755 bin bin/ftai-*; put 644 share/man/man1 man/*.1; put 644 share/man/man5 man/*.5; put 644 share/man/man7 man/*.7; \
	put 644 share/bash-completion/completions completions/bash/*; put 644 share/zsh/site-functions completions/zsh/*; \
	put 644 share/fish/vendor_completions.d completions/fish/*; } >"$$lib/installed.txt"; \
	for f in bin/ftai-*; do sed -i.old "1s|.*|#!$$python|" "$(root)/$$f"; rm "$(root)/$$f.old"; done; \
	"$$python" -m compileall -q -s "$(DESTDIR)" "$$lib"

uninstall:
	@test -f "$(root)/lib/serenamaster/installed.txt" || { echo "make: nothing of ours is installed in '$(root)'" >&2; exit 1; }
	@while read -r f; do rm -f "$(root)/$$f"; done <"$(root)/lib/serenamaster/installed.txt"
	@rm -rf "$(root)/lib/serenamaster"

wheel: $(venv)/test.stamp
	@rm -f dist/*.whl
	@$(python) -m pip wheel --quiet --no-deps --wheel-dir dist .

release-check: $(venv)/test.stamp
	@$(clean_env) python tests/gates.py

clean:
	@rm -rf $(venv) dist build .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find lib bin tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help run test test-full coverage lint types unit faults stages cases docs completions bench install uninstall wheel release-check clean
