# `make demo` and `make test` set up all that they need in .venv; a bare machine has Python 3.11+ and make.

PYTHON ?= python3
BIN := .venv/bin
RUN := deploy/requirements/run.txt
DEV := deploy/requirements/dev.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check bench bench-long chaos soak packages kafka-jars format schemas lock clean

help: ## what there is to do
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-10s %s\n' "$$name" "$$what"; done

demo: .venv/run ## watch the projector at work on an embedded PostgreSQL (DEMO_SECONDS=20 ends it by itself; KAFKA=1: by Kafka)
	@$(BIN)/projector demo $(if $(KAFKA),--kafka)

test: .venv/dev ## run all tests on a real PostgreSQL
	$(BIN)/python -m pytest

check: .venv/dev ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/dev ## measure against the row-at-a-time baseline and the limit, in one run
	$(BIN)/python -m tests.bench

bench-long: .venv/dev ## measure under a steady load for 40 minutes: bloat, and a pinned vacuum horizon
	$(BIN)/python -m tests.bench.long

chaos: .venv/dev ## break everything at random, and see that nothing is lost (SEED=n runs the same again)
	$(BIN)/python -m pytest tests/chaos tests/kafka/test_feed_*_chaos.py --chaos-full $(if $(SEED),--chaos-seed $(SEED)) --durations=0

packages: ## install the Debian packages that some tests need: pgbouncer, prometheus, Java, Maven (as root, by apt-get)
	@[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		|| { echo "make packages needs root and apt-get; without its packages some tests are skipped"; exit 1; }
	apt-get update --quiet=2
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends \
		pgbouncer prometheus default-jre-headless maven

kafka-jars: .venv/dev ## fetch Apache Kafka from Maven Central for the tests, which else do it themselves
	@$(BIN)/python -m tests.kafka.jars

soak: .venv/dev ## run everything at once for MINUTES=n (30), with faults; tells what grows and what is lost
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED))

format: .venv/dev ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schemas: .venv/dev ## write the messages' JSON Schemas, and the tables of deploy/olap, from the models
	$(BIN)/python -m schemas.published
	$(BIN)/python deploy/olap/ddl.py

lock: .venv/dev ## pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile pyproject.toml --extra demo --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet -o $(RUN)
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet -o $(DEV)

clean: ## remove what the other targets have made
	rm -rf .venv .demo .kafka .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with PYTHON=…"; exit 1; }
	@$(PYTHON) -m venv .venv \
		|| { echo "$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv"; exit 1; }

.venv/run: .venv/bin/python $(RUN) pyproject.toml
	@echo "Setting up .venv …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(RUN)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

.venv/dev: .venv/bin/python $(DEV) pyproject.toml
	@echo "Setting up .venv …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(DEV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@ .venv/run
