# make demo | test | stress | bench | soak | lint | docs    on this machine; each installs what it lacks, and says so
# make test-versions VERSIONS=…            on PostgreSQL 17 and 18, and from 15 to 18 by pg_upgrade, in trees of Debian
# make test-systemd                         the guide of docs/operations/install.md, on a booted Debian with systemd
# make install install-python PG_CONFIG=…   into a PostgreSQL server of your own

PG_CONFIG ?= pg_config
PYTHON_DIRECTORY ?= /usr/local/lib/wardkey/python
PYTHON3 ?= python3
PYTHON := .venv/bin/python

.PHONY: help demo test stress test-versions test-systemd bench soak lint docs build install install-python clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo:
	@tools/setup.sh demo
	@.venv/bin/wardkey demo

test: lint
	@$(PYTHON) -m pytest -n 4 --dist loadfile --no-loadscope-reorder

# In random order, beside two busy cores: the seed is in the heading, and STRESS="--randomly-seed=N" repeats it.
stress:
	@tools/setup.sh test
	@trap 'kill $$busy' EXIT; for core in 1 2; do (while :; do :; done) & busy="$$busy $$!"; done; \
	$(PYTHON) -m pytest -p randomly -n 4 --dist loadfile $(STRESS)

test-versions:
	@tools/test-versions.sh $(VERSIONS)

test-systemd:
	@tools/test-systemd.sh

bench:
	@tools/setup.sh bench
	@$(PYTHON) bench/run.py

soak:
	@tools/setup.sh test
	@$(PYTHON) -m tests.soak $(SOAK)

lint:
	@tools/setup.sh test
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports --no-logo

# The pages of docs/ and the references made of the code, into build/docs.
docs:
	@tools/setup.sh docs
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict
	@echo build/docs/index.html

build:
	@$(PYTHON3) sql/build.py >/dev/null

# PGXS when the server's development files are here, else the same by hand.
install: build
	@tools/install-extension.sh "$(PG_CONFIG)" "$(DESTDIR)"

# cryptography and our own modules for the interpreter that the server embeds.
install-python:
	@PYTHONPATH=src:plpython $(PYTHON3) -m wardkey.install --pg-config "$(PG_CONFIG)" "$(DESTDIR)$(PYTHON_DIRECTORY)"

clean:
	rm -rf .venv build sql/dist bench/results
