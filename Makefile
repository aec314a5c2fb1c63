# The project's tasks: `make help` lists them. Each installs what it needs into .venv first, and nothing twice.

VENV   := .venv
BIN    := $(VENV)/bin
KERNEL := jobs/almanac_jobs/kernel/libkernel.so
# Bytecode is compiled when it is first needed: installing takes half the time.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# Where Pythons are looked for. Name one yourself with `make setup PYTHON=/path/to/python`.
PYTHON ?= python3.14 python3.13 python3.12 python3.11 python3 $(wildcard $(HOME)/.pyenv/versions/3.*/bin/python)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format java bench bench-forecast bench-forecast-end-to-end bench-spark bench-engines bench-operator bench-soak reliability bench-anomaly bench-extract postgresql site docs crds chart kernel promtool constraints clean
.DELETE_ON_ERROR:

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-26s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/dev.stamp $(KERNEL) ## Install everything for development into .venv

demo: $(VENV)/local.stamp $(KERNEL) data/cdnow/_SUCCESS ## Forecast a real data set on this machine
	$(BIN)/almanac run -f examples/cdnow.yaml

test: setup java postgresql ## Run the tests (make test ARGS="-k calendar -x")
	$(BIN)/pytest $(ARGS)

reliability: setup java ## Run the tests of faults, and write what they saw into docs/reliability.md
	$(BIN)/pytest -m cell --matrix=docs/reliability.md $(ARGS)

lint: setup ## Check style, types and who may import whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Format the code and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: bench-forecast ## Run every benchmark

bench-forecast: setup data/cdnow/_SUCCESS ## Fitting against other engines on one core, then end to end (about three minutes)
	$(BIN)/python -m benchmarks.forecast $(ARGS)

bench-forecast-end-to-end: setup data/cdnow/_SUCCESS ## Parquet in, run directory out: 100,000 entities of 120 days
	$(BIN)/python -m benchmarks.end_to_end $(ARGS)

bench-spark: setup java data/cdnow/_SUCCESS ## Spark by hand and one machine against Almanac on Spark (about fifteen minutes)
	$(BIN)/python -m benchmarks.spark $(ARGS)

bench-engines: setup java ## The same forecast on one process, Dask and Spark, at growing sizes (about ten minutes)
	$(BIN)/python -m benchmarks.sizes $(ARGS)

bench-operator: setup ## The operator against the API server of KUBECONFIG: 1000 jobs at once (about six minutes)
	$(BIN)/python -m benchmarks.operating $(ARGS)

bench-soak: setup ## 5000 short jobs and an operator that is killed, against the API server of KUBECONFIG (about ten minutes)
	$(BIN)/python -m benchmarks.soak $(ARGS)

bench-anomaly: setup data/shuttle/.fetched ## Detectors on published data, speed and memory beside XGBoost by hand (about ten minutes)
	$(BIN)/python -m benchmarks.anomaly $(ARGS)

bench-extract: setup postgresql ## A table of PostgreSQL to Parquet against adbc and connectorx by hand (about five minutes)
	$(BIN)/python -m benchmarks.extract $(ARGS)

site: setup ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: site data/cdnow/_SUCCESS ## Build the documentation, and check its links, examples and commands
	$(BIN)/pytest -q tests/unit/test_docs.py tests/unit/test_examples.py tests/e2e/test_docs.py

crds: setup ## Write crds/ and docs/reference/ from the API's models
	$(BIN)/almanac crds --output crds
	$(BIN)/almanac crds --format markdown --output docs/reference
	@$(MAKE) --no-print-directory chart

chart: setup ## Write what is made in helm/almanac, and from it deploy/ and pages of docs/reference/
	$(BIN)/python -m tools.chart
	$(BIN)/python -m tools.dashboards
	$(BIN)/python -m tools.deploy
	$(BIN)/python -m tools.gitops
	$(BIN)/python -m tools.reference

kernel: $(KERNEL) ## Compile the numerical kernel

constraints: $(VENV)/local.stamp ## Resolve every dependency anew and pin it with its hashes
	$(INSTALL) --upgrade uv
	$(BIN)/uv pip compile $(COMPILE) pyproject.toml --all-extras --group dev --group docs --group peers -o constraints.txt
	$(BIN)/uv pip compile $(COMPILE) pyproject.toml --extra local --group build --constraints constraints.txt -o constraints-local.txt
	$(BIN)/uv pip compile $(COMPILE) --group compiler -o constraints-compiler.txt
	$(BIN)/uv pip compile $(COMPILE) pyproject.toml --extra anomaly --extra extract --extra operator --constraints constraints.txt -o constraints-operator.txt
	$(BIN)/uv pip compile $(COMPILE) pyproject.toml --extra spark --constraints constraints.txt -o constraints-spark.txt
	$(BIN)/uv pip compile $(COMPILE) pyproject.toml --extra anomaly --extra dask --constraints constraints.txt -o constraints-dask.txt
	$(BIN)/uv pip compile $(COMPILE) --group images --constraints constraints.txt --constraints constraints-compiler.txt -o constraints-images.txt
COMPILE := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

# Spark needs Java. Where this user may install it, it is; elsewhere the tests that need it are skipped, and say so.
java:
	@command -v java >/dev/null || [ -n "$$JAVA_HOME" ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && { DEBIAN_FRONTEND=noninteractive apt-get install -qq -y openjdk-21-jre-headless || \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y openjdk-17-jre-headless; } >/dev/null; } || \
	  echo 'There is no Java, which Spark needs, and it cannot be installed here: install a JRE of version 17 or newer.' >&2

# Extracts are tested with a PostgreSQL of the tests' own, in the same way.
postgresql:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y postgresql >/dev/null; } || \
	  echo 'There is no PostgreSQL, which tests of extracts need, and it cannot be installed here: install a server.' >&2

# Prometheus' own tool, which alerts and metrics are tried with: that program of Debian's package alone. Without it, tests skip.
promtool: | $(BIN)/python
	@command -v promtool >/dev/null || [ -x $(BIN)/promtool ] || { command -v apt-get >/dev/null && \
	  { [ "$$(id -u)" != 0 ] || apt-get update -qq; } && cd $(VENV) && apt-get download -qq prometheus && \
	  dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xO ./usr/bin/promtool >promtool && \
	  rm prometheus_*.deb && chmod +x promtool && mv promtool bin/; } >/dev/null 2>&1 || \
	  echo 'There is no promtool (https://prometheus.io/download): tests of alerts and metrics that need it are skipped.' >&2

clean: ## Remove what was built, and caches (keeps .venv, data and out)
	rm -rf build dist site $(KERNEL) .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find operator jobs tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

# The newest Python that runs: version managers put stand-ins on the PATH that fail when they are called, so each is called.
$(BIN)/python:
	@newest=$$(for python in $(PYTHON); do \
	  "$$python" -c 'import ctypes, ensurepip, ssl, sys, venv; v = sys.version_info; assert (3, 11) <= v < (3, 15); \
	print("%d.%02d.%02d %s" % (*v[:3], sys.executable))' 2>/dev/null; \
	done | sort | tail -n 1 | cut -d ' ' -f 2-); \
	if [ -z "$$newest" ]; then \
	  echo 'No Python from 3.11 to 3.14 that can make a virtual environment was found.' \
	    'Install one (on Debian and Ubuntu: apt-get install python3 python3-venv) or name it: make setup PYTHON=/path/to/python' >&2; \
	  exit 1; \
	fi; \
	echo "Installing into $(VENV) with $$("$$newest" -V)"; \
	rm -rf $(VENV) && "$$newest" -m venv $(VENV)

# What a job needs to run on this machine. hatch_build.py compiles the kernel with the same compilers in the same order.
$(VENV)/local.stamp: constraints-local.txt constraints-compiler.txt pyproject.toml | $(BIN)/python
	@$(INSTALL) --require-hashes -r constraints-local.txt
	@{ [ -n "$$CC" ] || command -v cc || command -v gcc || command -v clang; } >/dev/null || \
	  $(INSTALL) --require-hashes -r constraints-compiler.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: constraints.txt $(VENV)/local.stamp
	@$(INSTALL) --require-hashes -r constraints.txt
	@touch $@

# Installing has just compiled it in a fresh clone, which make cannot know: hence the second look.
$(KERNEL): $(wildcard jobs/almanac_jobs/kernel/*.[ch]) hatch_build.py | $(VENV)/local.stamp
	@[ -e $@ ] && [ -z "$$(find $^ -newer $@)" ] || $(BIN)/python hatch_build.py

data/cdnow/_SUCCESS: examples/cdnow.py examples/cdnow.txt | $(VENV)/local.stamp
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -r examples/cdnow.txt -d data/downloads
	$(BIN)/python examples/cdnow.py data/downloads data/cdnow

# The wheel of river brings the shuttle data of ODDS.
data/shuttle/.fetched: benchmarks/shuttle.txt | $(VENV)/dev.stamp
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
	  --python-version 3.12 -r benchmarks/shuttle.txt -d data/shuttle
	@touch $@
