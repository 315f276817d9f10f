# ingle: make run boots a microVM, make test proves that it works. `make help` lists the rest.

PYTHON ?= python3
BIN := .venv/bin
AGENT := build/ingle-agent-amd64
PULLER := build/ingle-image-puller-amd64
sources = $(shell find $(1) -name '*.go' ! -name '*_test.go' 2>/dev/null) $(wildcard $(1)/go.mod $(1)/go.sum)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: deps ## Boot a microVM, run a command in it, delete it; the first time everything it takes is installed
	@scripts/run.sh

test: lint ## Lint, then all tests (real VMs), those of the lab last; ARGS="-k NAME" picks some and leaves out the lab
	@scripts/go.sh test -C guest_agent ./...
	@scripts/go.sh test -C image_puller ./...
	@$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile --durations 15 --ignore tests/lab $(ARGS)
	@$(if $(ARGS),,$(BIN)/pytest --durations 15 tests/lab)

lint: test-deps ## Style, types, layers, contracts, generated code, scripts
	@scripts/lint.sh

format: venv ## Format the Python and the Go
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .
	@scripts/go.sh gofmt -w guest_agent image_puller

proto: venv ## Generate Python and Go from proto/
	@scripts/generate_proto.sh

proto-accept: venv ## Make the present proto/ the reference that changes are checked against
	@$(BIN)/buf build --path proto/ingle/v1 -o proto/ref.binpb
	@$(BIN)/buf build --path proto/ingle/helper --path proto/ingle/agent -o proto/ref-internal.binpb

surface-accept: venv ## Rewrite the golden file of the gRPC surface
	@$(BIN)/python -m tests.contract.surface_text >tests/contract/surface.golden

agent: $(AGENT) ## Build the guest agent into build/

puller: $(PULLER) ## Build what brings images from registries into build/

deb: deps ## Build the Debian package into build/, from this commit's time and what is in the checkout
	@scripts/make_deb.sh

smoke: deps ## Drive the installed command line end to end, in directories of its own, and show the coverage
	@scripts/smoke.sh

smoke-coverage-html: ## The coverage of the last smoke run as pages
	@scripts/smoke.sh --html

smoke-clean: ## Remove what smoke runs left
	@scripts/smoke.sh --clean

bench: deps ## Percentiles, each beside a floor measured in the same run; ARGS=--quick for a first look
	@PYTHONPATH=tests $(BIN)/python -m bench.bench $(ARGS)

bench-agent: deps ## The same for the guest agent, on a socket and in a VM; ARGS=--quick, --no-vm
	@PYTHONPATH=tests $(BIN)/python -m bench.agent $(ARGS)

bench-memory: deps ## The same for a guest's memory, kept and gone on from; ARGS=--quick
	@PYTHONPATH=tests $(BIN)/python -m bench.memory $(ARGS)

bench-images: deps ## Images of a registry as file systems, beside skopeo, umoci and mke2fs; ARGS=--quick
	@PYTHONPATH=tests $(BIN)/python -m bench.images $(ARGS)

bench-helper: deps ## The same for the root helper, as root; ARGS=--quick
	@PYTHONPATH=tests $(BIN)/python -m bench.helper $(ARGS)

fuzz: venv ## Feed each fuzz target for FUZZTIME (10m); ARGS=NAME picks one
	@FUZZTIME=$(or $(FUZZTIME),10m) scripts/fuzz.sh $(ARGS)

lab: test-deps ## The tests that need KVM, device-mapper and systemd, in a VM that has them; ARGS="-k NAME" picks some
	@$(BIN)/pytest tests/lab $(ARGS)

soak: deps ## 50 boots in a row; all must come up
	@scripts/soak.sh

deps: agent puller ## Everything that running takes: Debian packages, .venv, agent, image puller

system-packages: ## Install the Debian packages that are missing
	@scripts/install_debian_packages.sh scripts/debian-packages.txt

test-deps: agent puller
	@scripts/install_debian_packages.sh scripts/debian-packages.txt scripts/debian-packages-test.txt

venv: .venv/.up-to-date ## Make .venv, or bring it up to date

lock: venv ## Write constraints.txt anew from pyproject.toml; UPGRADE=1 takes newer versions
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes --no-annotate \
	  --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade) --output-file constraints.txt pyproject.toml

clean: ## Remove what make made; VMs, images and kernels stay
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/.up-to-date: constraints.txt pyproject.toml scripts/make_venv.sh | system-packages
	@PYTHON=$(PYTHON) scripts/make_venv.sh

$(AGENT): $(call sources,guest_agent) api_server/ingle/version.py scripts/build_go.sh | venv
	@. scripts/progress.sh; say "building $@"
	@scripts/build_go.sh ingle-agent amd64
	@touch $@

$(PULLER): $(call sources,image_puller) api_server/ingle/version.py scripts/build_go.sh | venv
	@. scripts/progress.sh; say "building $@"
	@scripts/build_go.sh ingle-image-puller amd64
	@touch $@

.PHONY: help run test lint format proto proto-accept surface-accept agent puller deb smoke smoke-coverage-html smoke-clean bench \
	bench-agent bench-memory bench-images bench-helper fuzz lab soak deps system-packages test-deps venv lock clean
