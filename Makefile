# Everything a developer does, in one place. A fresh machine needs Python 3.11 with venv, and make.
#
#   make run [PORT=8025] [SMTP_PORT=2525] [DATA=./data]    the platform; any MAILYARD_* setting works
#   make test                                              what must pass before a change goes in
#   make check                                             style, types and import rules alone
#   make test-fleet   make bench-fleet                     against the real services of a fleet
#   make bench [FULL=1]   make crash   make fuzz   make test-corpora

# The system's own Python first: distributions build it with profile and link-time optimisation, which
# one built by hand often lacks (a tenth of the demonstration's rate).
PYTHON ?= $(shell for one in /usr/bin/python3 python3; do \
	$$one -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2> /dev/null \
	&& echo $$one && exit; done; echo python3)
VENV   ?= .venv
PY      = $(VENV)/bin/python
PIP     = $(PY) -m pip --disable-pip-version-check install -q
TESTS  ?= tests
FUZZ_S ?= 60
# Processes that run the tests. They wait more than they compute: one more than a small machine's cores.
JOBS   ?= 3
# Those of test-fleet start whole clusters beside themselves.
FLEET_JOBS ?= 2

# Short names for the settings that one changes most.
ifdef PORT
export MAILYARD_PORT = $(PORT)
endif
ifdef SMTP_PORT
export MAILYARD_SMTP_PORT = $(SMTP_PORT)
endif
ifdef DATA
export MAILYARD_DATA = $(DATA)
endif

.PHONY: install install-dev run test test-fleet check bench bench-fleet crash fuzz test-corpora clean

install: $(VENV)/.runtime $(VENV)/.package $(VENV)/.assets

install-dev: $(VENV)/.runtime $(VENV)/.dev $(VENV)/.fleet $(VENV)/.semantic $(VENV)/.otel $(VENV)/.package $(VENV)/.assets

run: install
	exec $(VENV)/bin/mailyard up

test: install-dev
	tests/services/install.sh
	$(MAKE) check
	$(PY) -m pytest $(TESTS) --ignore=tests/corpora --ignore=tests/fuzz --ignore=tests/fleet \
		--numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

test-fleet: install-dev
	tests/services/install.sh
	tests/services/install_fleet.sh
	$(PY) -m pytest tests/fleet --numprocesses $(FLEET_JOBS) --dist loadfile --no-loadscope-reorder

check: install-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo

test-corpora: install-dev
	$(PY) -m pytest tests/corpora

crash: install-dev
	tests/services/install.sh
	MAILYARD_TEST_LONG=1 $(PY) -m pytest tests/crash --timeout=2700

bench: install-dev
	tests/services/install.sh
	FULL=$(FULL) $(PY) bench/run.py

bench-fleet: install-dev
	tests/services/install.sh
	tests/services/install_fleet.sh
	FULL=$(FULL) $(PY) bench/run_fleet.py

fuzz: install-dev
	for target in tests/fuzz/fuzz_*.py; do $(PY) $$target -max_total_time=$(FUZZ_S) || exit 1; done

clean:
	rm -rf $(VENV) build dist test-output .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV) || { echo "python3-venv is needed: apt-get install python3-venv"; exit 1; }

$(VENV)/.runtime: $(VENV)/bin/python requirements/runtime.txt
	$(PIP) --require-hashes -r requirements/runtime.txt
	touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	$(PIP) --require-hashes -r requirements/dev.txt
	touch $@

$(VENV)/.fleet: $(VENV)/.runtime requirements/fleet.txt
	$(PIP) --require-hashes -r requirements/fleet.txt
	touch $@

$(VENV)/.semantic: $(VENV)/.runtime requirements/semantic.txt
	$(PIP) --no-deps --require-hashes -r requirements/semantic.txt
	touch $@

$(VENV)/.otel: $(VENV)/.runtime requirements/otel.txt
	$(PIP) --require-hashes -r requirements/otel.txt
	touch $@

$(VENV)/.package: $(VENV)/.runtime pyproject.toml
	$(PIP) --no-deps --editable .
	touch $@

# The pages' scripts come from npm by a lock file. Without a network the pages work without them.
$(VENV)/.assets: $(VENV)/.runtime tools/assets.py $(wildcard tools/assets/*)
	$(PY) tools/assets.py && touch $@ || echo "the pages' scripts were not fetched: the pages stand still until they are (make install)"
