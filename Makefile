# The two commands to start with: `make demo` and `make test`. Both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell sed -n 's/^torch==//p' containers/torch.lock)
STAMP := $(VENV)/.ready-$(shell cat containers/torch.lock containers/requirements.lock pyproject.toml | sha256sum | cut -c1-16)
# So many tests at a time: those of Slurm mostly wait, so there are more than two cores could compute.
WORKERS := 3
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-slurm test test-image lint docs-check bench evidence chaos container container-cpu lock clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Make .venv with everything pinned (about 2 GB); quick when it is there

$(STAMP): containers/torch.lock containers/requirements.lock pyproject.toml
	@echo "== setting up $(VENV): torch $(TORCH), then $$(grep -c '==' containers/requirements.lock) pinned packages (a few minutes, about 2 GB)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first and by pip, so that a CPU build is taken where pip finds one and the CUDA build elsewhere
	$(BIN)/pip install --quiet --requirement containers/torch.lock
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement containers/requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.ready-*; touch $@
	@command -v java >/dev/null || echo "== no Java found: scores will read 'not available' (install a Java runtime, such as default-jre-headless)"

demo: setup  ## The whole path on this machine: data, both stages, captions, scores, table (about 8 minutes on 2 cores)
	@echo "== the demo grid; interrupted, the same command goes on where it stopped"
	$(BIN)/cwdpo submit --grid demo --cluster local
	$(BIN)/cwdpo report --grid demo

demo-slurm: setup  ## The same through a real Slurm on this machine (Debian, root; first seed; GRID=main-demo is another grid)
	@echo "== a Slurm of four virtual nodes; interrupted, the same command goes on where it stopped"
	slurm/demo.sh $(BIN)/cwdpo --set seeds=[0]

test: setup lint  ## Lint, then the tests, with real processes (about 40 minutes on 2 cores)
	$(BIN)/python -m pytest --numprocesses=$(WORKERS)

test-image: setup  ## Build the small image, test it, and run Slurm jobs in it (about 20 minutes, 7 GB)
	CWDPO_TEST_IMAGE=build $(BIN)/python -m pytest tests/container

lint: setup  ## ruff, mypy, the layers of the architecture, YAML files, README links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(MAKE) --no-print-directory docs-check

docs-check: setup  ## Every shipped YAML parses; every README link exists (`make test` runs its commands, too)
	$(BIN)/python -m pytest -q tests/docs -k "not commands_run"

bench: setup  ## Time what must be quick, beside others where there are any; writes tests/perf/results (about an hour)
	@# bench_gpu.py is for a machine with a GPU: python tests/perf/bench_gpu.py --size 7b
	@for file in $(filter-out %/bench_gpu.py,$(wildcard tests/perf/bench_*.py)); do $(BIN)/python $$file || exit 1; done

evidence: setup  ## Methods, sources of negatives and squeezing on the demo world; writes tests/evidence/results (hours)
	$(BIN)/python tests/evidence/perturb.py
	$(BIN)/python tests/evidence/methods.py
	$(BIN)/python tests/evidence/negatives.py
	$(BIN)/python tests/evidence/squeezing.py

chaos: setup  ## Kill campaigns in full, more faults on Slurm, more engines and online training (about two hours)
	CWDPO_CHAOS=1 $(BIN)/python -m pytest -s -m "campaign or not campaign" tests/jobs/test_kill.py tests/slurm tests/train

container:  ## The image for the cluster, in containers/build/ (IMAGE=file elsewhere, SIGN=1 signs it; about 65 GB of disk)
	containers/build.sh cluster $(if $(IMAGE),--output "$(IMAGE)") $(if $(SIGN),--sign)

container-cpu:  ## A small image for trying it out and for tests, the same way (some minutes, 7 GB; gets Apptainer on Debian 12)
	containers/build.sh cpu $(if $(IMAGE),--output "$(IMAGE)") $(if $(SIGN),--sign)

lock: setup  ## Write containers/requirements.lock anew from pyproject.toml (needs a package index)
	containers/lock.sh $(BIN)/python

clean:  ## Remove the virtual environment and caches; results in runs/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info
