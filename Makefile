# Thin: every target makes .venv when it is missing or stale, then runs one command.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)

# The demo leaves its database here, so that `results` works on it afterwards.
DEMO_HOME := $(CURDIR)/.demo

# Four test workers for two cores: many tests wait for processes. Each has servers and data directories of its own, and
# no test needs one process to be faster than another.
PARALLEL := -n $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN)))) --maxprocesses 8 --dist worksteal

# Where it is set, every process of every test compiles our modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-oracle check unit test lint bench bench-gpu simulate faults report-check image-check clean

demo: $(VENV)/ready
	LORACLE_HOME=$(DEMO_HOME) $(BIN)/loracle run worker/data/sample_reviews.csv
	@echo
	@echo "See the labels:  LORACLE_HOME=$(DEMO_HOME) $(BIN)/loracle results 1 --limit 10"
	@echo "In a browser:    LORACLE_HOME=$(DEMO_HOME) $(BIN)/loracle web"

# A cascade against a fake OpenAI on this machine: no key, no network. It fails every fifth request on purpose.
demo-oracle: $(VENV)/ready
	LORACLE_HOME=$(DEMO_HOME) $(BIN)/python -m tests.fake_openai --fail 0.2 -- \
	  $(BIN)/loracle run worker/data/sample_reviews.csv --policy cascade --below 0.9 --audit 0.1 \
	  --route decisions --max-cost 0.01
	@echo
	@echo "The oracle's labels here come from word lists: they show the way, not the quality."

# After every edit: what needs no other process, both at once.
check: $(VENV)/ready
	$(MAKE) --no-print-directory --jobs 2 lint unit

unit: $(VENV)/ready
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal tests/unit

test: $(VENV)/ready
	$(BIN)/python -m pytest $(PARALLEL)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint --no-color docker/Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker/compose.yaml
	$(BIN)/kubernetes-validate --quiet --strict $(filter-out %/kustomization.yaml %/scale.yaml,$(wildcard docker/kubernetes/*.yaml))
	if command -v promtool >/dev/null; then promtool test rules docker/prometheus/alerts_test.yml; fi

bench: $(VENV)/ready
	$(BIN)/python -m tests.benchmarks

# One card, nine minutes, one table. A part: make bench-gpu GPU="--only score,train".
bench-gpu: $(VENV)/ready
	$(BIN)/python -m tests.benchmarks.gpu $(GPU)

# How often the guarantee holds and what it takes, beside other rules: half an hour. A part: SIMULATE="--sizes 10000".
simulate: $(VENV)/ready
	$(BIN)/python -m tests.benchmarks.simulate $(SIMULATE)

# Hours; goes on where it was interrupted. For half an hour: make faults FAULTS_MINUTES=30. A part: FAULTS="--only Redis".
faults: $(VENV)/ready
	$(BIN)/python -m tests.faults $(if $(FAULTS_MINUTES),--minutes $(FAULTS_MINUTES)) $(FAULTS)

# A report in a real browser: pictures for people, and what only a browser knows. Skips where there is none.
report-check: $(VENV)/ready
	$(BIN)/python -m tests.report_check $(CURDIR)/.report-check

# The image, built and started without a container engine: as root, with buildah and mmdebstrap. docker/image-check.sh
# has its variables; a quarter of an hour and 15 GB.
image-check:
	docker/image-check.sh

clean:
	rm -rf $(VENV) $(DEMO_HOME) .report-check .faults

# Stale when the dependencies changed. The stamp comes last: an install that was cut short is done again.
$(VENV)/ready: pyproject.toml
ifdef UV
	test -x $(BIN)/python || $(UV) venv --quiet --seed --python $(PYTHON) $(VENV)
else
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
endif
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Loracle needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --editable '.[embedded,train,web,dev]'
	touch $@
