# Everything a newcomer or CI runs. Each target installs what it needs; nothing is written outside .venv, .state and
# the user's cache folder.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/pytest
# Tests wait for processes more than they compute; a file stays on one worker, so its cluster is started once.
WORKERS ?= 3
PARALLEL := --numprocesses $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-kind test test-unit test-process test-api test-gpu test-cluster cluster-packages check check-deploy check-monitoring format generate lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv from the hashed lock

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "CyxWiz needs Python 3.11 or newer: make PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV) (torch is large: some minutes on a slow line)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@awk '/^uv==/ { on = 1 } on { print } on && !/\\$$/ { exit }' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	@$(BIN)/uv pip sync --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## Four jobs on a real control plane on this machine; KEEP=1 keeps it running
	@$(BIN)/python -m cyxwiz_platform.demo $(if $(KEEP),--keep)

demo-kind: ## The same in a kind cluster; needs docker, kind, kubectl and helm. CI does not run it, and nobody has yet
	kind get clusters | grep -qx cyxwiz || kind create cluster --name cyxwiz
	docker build -q -f Dockerfile.operator -t localhost/cyxwiz-operator:0.1.0 .
	docker build -q -f Dockerfile.agent --target agent -t localhost/cyxwiz-agent:0.1.0 .
	docker build -q -f Dockerfile.agent --target runner -t localhost/cyxwiz-runner:0.1.0 .
	kind load docker-image --name cyxwiz $(foreach part,operator agent runner,localhost/cyxwiz-$(part):0.1.0)
	helm upgrade --install cyxwiz helm/cyxwiz --kube-context kind-cyxwiz --namespace cyxwiz-system --create-namespace \
	  --set nodes.gpu.access=none
	kubectl --context kind-cyxwiz apply -f examples/digits-cnn.yaml
	kubectl --context kind-cyxwiz wait --for=condition=Finished --timeout=10m trainingjob/digits-cnn
	kubectl --context kind-cyxwiz get trainingjobs,computenodes

test: $(READY) ## All tests that need neither root nor a GPU
	@$(BIN)/cyxwiz-devcluster build
	@$(PYTEST) $(PARALLEL) tests/unit tests/process tests/api

test-unit: $(READY) ## Decisions, schema, import rules: seconds
	@$(PYTEST) $(PARALLEL) tests/unit

test-process: $(READY) ## Trainer, runner and dev cluster as real processes
	@$(PYTEST) $(PARALLEL) tests/process

test-api: $(READY) ## The whole thread on a real API server
	@$(PYTEST) $(PARALLEL) tests/api

test-gpu: $(READY) ## The thread on this machine's NVIDIA GPU
	@$(PYTEST) tests/gpu

test-cluster: $(READY) ## The chart on a real kubelet: root and Debian packages, else a skip that says what is missing
	@$(PYTEST) -s tests/cluster

cluster-packages: $(READY) ## Install what test-cluster needs of Debian's packages; root
	@apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	  $$($(BIN)/python -c 'from cyxwiz_devcluster.machine.requirements import packages; print(*packages())') > /dev/null

check: $(READY) ## Lint, types, generated files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: run make format"; exit 1; }
	@$(BIN)/pyright
	@$(BIN)/python -m cyxwiz_crds --check
	@$(BIN)/yamllint --strict crds helm/cyxwiz/values.yaml helm/cyxwiz/Chart.yaml helm/cyxwiz/files helm/everything.yaml examples .*.yaml
	@$(BIN)/python helm/dashboards.py --check
	@$(BIN)/python crds/reference.py --check
	@$(BIN)/python helm/reference.py --check
	@$(BIN)/hadolint --failure-threshold style Dockerfile.* tests/cluster/probe/Dockerfile

RENDERED := .state/rendered
EVERYTHING := --values helm/everything.yaml
# A tool with a hundred dependencies of its own, for its own environment.
CHECKOV := $(BIN)/uv tool run --from checkov==3.2.500 checkov

check-deploy: $(READY) ## The chart: lint, rendered and judged. Builds helm and kubeconform the first time
	@mkdir -p $(RENDERED)
	@helm=$$($(BIN)/cyxwiz-devcluster build helm) && $$helm lint --strict --quiet helm/cyxwiz $(EVERYTHING) \
	  && $$helm template cyxwiz helm/cyxwiz --namespace cyxwiz-system > $(RENDERED)/default.yaml \
	  && $$helm template cyxwiz helm/cyxwiz --namespace cyxwiz-system $(EVERYTHING) > $(RENDERED)/everything.yaml
	@$(BIN)/yamllint --strict -d '{rules: {key-duplicates: enable, anchors: enable}}' $(RENDERED)
	@$(BIN)/python helm/conform.py $(RENDERED)/default.yaml $(RENDERED)/everything.yaml
	@$(BIN)/kubernetes-validate --strict --quiet --kubernetes-version 1.36.0 $(RENDERED)/default.yaml
	@$(CHECKOV) --config-file .checkov.yaml --file $(RENDERED)/default.yaml

check-monitoring: $(READY) ## Alerts by promtool, dashboards by a real Prometheus. Builds both the first time
	@$(BIN)/cyxwiz-devcluster build promtool prometheus > /dev/null
	@$(PYTEST) tests/monitoring

format: $(READY) ## Format the code
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

generate: $(READY) ## Write the CRDs from the models, the dashboards, the references of fields and values
	@$(BIN)/python -m cyxwiz_crds
	@$(BIN)/python helm/dashboards.py
	@$(BIN)/python crds/reference.py
	@$(BIN)/python helm/reference.py

COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11

lock: $(READY) ## Renew the hashed locks within the bounds of pyproject.toml
	@$(COMPILE) --upgrade --extra dev pyproject.toml -o requirements.lock
	@$(COMPILE) -c requirements.lock --extra operator pyproject.toml -o locks/operator.lock
	@$(COMPILE) -c requirements.lock --extra agent pyproject.toml -o locks/agent.lock
	@$(COMPILE) -c requirements.lock --extra runner --extra store --extra trainer --extra export pyproject.toml -o locks/runner.lock

clean: ## Remove .venv and .state; built Kubernetes binaries stay in the cache
	rm -rf $(VENV) .state
