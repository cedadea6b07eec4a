# make run starts the demo, make test runs the tests. The same steps as plain commands stand in README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
CODE := actors supervisors config runbooks guardian_link bridge_link tests
# Compiled once: the tests start hundreds of interpreters.
COMPILED = $(BIN)/python -m compileall -q $(CODE)
SELFHEAL := $(BIN)/selfheal

.PHONY: help run test check format tree service-start service-stop service-status service-restart conformance \
	bench alert-bench crash-matrix runbook-crash kill-storm peers lock clean

help: ## this list
	@grep -hE '^[.a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is older than 3.11; call make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "make: $(PYTHON) cannot make a venv; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.daemon: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.daemon
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@

.venv: $(VENV)/.daemon ## install what the daemon needs, nothing else
	@true
.PHONY: .venv

run: $(VENV)/.daemon ## start the root supervisor with the demo (Ctrl-C ends it)
	$(SELFHEAL) run $(if $(CONFIG),--config $(CONFIG))

test: $(VENV)/.dev ## run the tests
	$(COMPILED)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup

check: $(VENV)/.dev ## format, lint, types, import contract, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(COMPILED)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup

format: $(VENV)/.dev ## put the code into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tree: $(VENV)/.daemon ## show the tree of the running daemon
	$(SELFHEAL) tree

service-start: $(VENV)/.daemon ## start all services
	$(SELFHEAL) services start --all

service-stop: $(VENV)/.daemon ## stop all services
	$(SELFHEAL) services stop --all

service-status: $(VENV)/.daemon ## show all services
	$(SELFHEAL) services status

service-restart: $(VENV)/.daemon ## restart one service: make service-restart SERVICE=risk-manager
	@test -n "$(SERVICE)" || { echo "make: say which: make service-restart SERVICE=risk-manager" >&2; exit 2; }
	$(SELFHEAL) services restart $(SERVICE)

conformance: $(VENV)/.dev ## run OTP scenarios: make conformance SCENARIOS=file.json
	$(BIN)/python -m tests.conformance $(or $(SCENARIOS),tests/conformance/scenarios/otp_more.json)

bench: $(VENV)/.dev ## crash -> running again, beside a bare Python loop
	$(BIN)/python benchmarks/restart_latency.py

alert-bench: $(VENV)/.dev ## acknowledged alerts per second, beside Redis Streams (needs redis-server) and bare SQLite
	$(BIN)/python benchmarks/alert_throughput.py

runbook-crash: $(VENV)/.dev ## kill the daemon at every place of every runbook, and again: make runbook-crash MINUTES=120
	$(BIN)/python -m tests.crash_runbooks --pairs all --minutes $(or $(MINUTES),120)

crash-matrix: $(VENV)/.dev ## kill daemon and keeper at every fail point, and again while they recover: make crash-matrix MINUTES=60
	$(BIN)/python -m tests.crash --pairs all --limit-min $(or $(MINUTES),60)

kill-storm: $(VENV)/.dev ## kill the daemon a hundred times over 10 processes and 10 containers
	$(BIN)/python benchmarks/kill_storm.py

peers: $(VENV)/.dev ## copies after SIGKILL, survivors of a stop: beside the peers that are installed (PEERS_BIN=folder)
	$(BIN)/python benchmarks/never_twice_peers.py

runbook-faults: $(VENV)/.dev ## every runbook against its real faults, again and again (root): make runbook-faults RUNS=20
	$(BIN)/python benchmarks/runbook_faults.py --runs $(or $(RUNS),20)
.PHONY: runbook-faults

lock: ## write the lock files anew (needs uv)
	uv pip compile --universal --python-version 3.11 --no-header --quiet --extra daemon pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --no-header --quiet --extra daemon --extra dev -c requirements.lock \
		pyproject.toml -o requirements-dev.lock

clean: ## remove what was built
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
