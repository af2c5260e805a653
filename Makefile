# Every target makes the environment it needs on first use: .venv to serve and to run the demo, .venv-dev to develop.
PYTHON ?= python3
DATA ?= data/fashion-mnist
RUNS ?= runs
ENGINE ?= $(firstword $(foreach engine,docker podman buildah,$(shell command -v $(engine))))
BASE ?= python:3.12-slim
TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

DEMO := .venv
DEV := .venv-dev
STUBS := proto
PROTOS = $(wildcard proto/collage/v1/*.proto)
IMAGES := frontend s-cnn collage-cnn
MODELS := s-cnn collage-2x2 collage-3x3

# ONNX Runtime's packages report usage to their maker unless told otherwise; ours tell it too, where they import it first.
export ORT_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo up bench bench-full test check proto k8s-validate train export evaluate images clean

help: ## Show this help
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1	\2/p' $(MAKEFILE_LIST) | expand -t 14

# An environment is ready when its last step, the stamp, is there; a failed or outdated one is installed again.
$(DEMO)/ready: EXTRA := demo
$(DEV)/ready: EXTRA := dev
$(DEMO)/ready $(DEV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " \
		+ sys.version.split()[0] + ": make PYTHON=/path/to/python3.12 ...")'
	@rm -f $@
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA)]'
	@touch $@

demo: $(DEMO)/ready ## Run a cluster with stragglers and compare the policies (under 4 minutes)
	$(DEMO)/bin/python -m bench.demo

up: $(DEMO)/ready ## Start a local cluster and say how to call it; Ctrl-C ends it
	$(DEMO)/bin/python -m bench.cluster up

bench: $(DEV)/ready ## Compare policies on a cluster of real processes, 9 + 1 (about 10 minutes)
	$(DEV)/bin/python -m bench.experiment --policies none,replicate,hedge,collage,adaptive --groups 250 --seeds 3 --scale 0.5

bench-full: $(DEV)/ready ## The same at full length and in all regimes, with the simulator's sweeps and a report (hours)
	$(DEV)/bin/python -m bench.experiment --policies none,hedge,collage,adaptive --groups 2000 --seeds 3 --scale 1 \
		--target bench-full
	$(DEV)/bin/python -m bench.experiment --policies none,ejection,collage,adaptive --groups 500 --seeds 3 --scale 1 \
		--regimes persistent,mixture --target bench-regimes
	$(DEV)/bin/python -m bench.comparison sweep --out out/bench-sim.json
	$(DEV)/bin/python -m bench.comparison out/bench-full.json out/bench-regimes.json out/bench-sim.json \
		--out docs/results/bench-full

test: $(DEV)/ready ## Run all tests
	$(DEV)/bin/python -m pytest

check: $(DEV)/ready ## Lint, types, import rules, tests: what has to pass before a commit
	$(DEV)/bin/ruff check
	$(DEV)/bin/ruff format --check
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports
	$(DEV)/bin/python -m pytest

k8s-validate: $(DEV)/ready ## Render the manifests, check them against Kubernetes' schemas and against the code
	$(DEV)/bin/python -m pytest tests/k8s

proto: $(DEV)/ready ## Generate the committed stubs from the .proto files
	$(DEV)/bin/python -m grpc_tools.protoc -I proto --plugin=protoc-gen-mypy_grpc=$(DEV)/bin/protoc-gen-mypy_grpc \
		--python_out=$(STUBS) --pyi_out=$(STUBS) --grpc_python_out=$(STUBS) --mypy_grpc_out=quiet:$(STUBS) $(PROTOS)

# The recipes of the shipped Fashion-MNIST models. A run resumes where it was interrupted.
RECIPE.s-cnn := --model resnet34 --stem small --epochs 10
RECIPE.collage-2x2 := --model collage-resnet --k 2 --widths 80 192 384 --muon-lr 0.1 --epochs 12
RECIPE.collage-3x3 := --model collage-resnet --k 3 --widths 48 128 256 --muon-lr 0.1 --epochs 25

train: $(MODELS:%=train-%) ## Train the shipped models on DATA (a folder with Fashion-MNIST's IDX files)

train-%: $(DEV)/ready
	$(DEV)/bin/python -m models.train --data $(DATA) $(RECIPE.$*) --out $(RUNS)/fashion-mnist-$*.pt

export: $(MODELS:%=export-%) ## Export the trained models to models/zoo and calibrate the collage-cnns
	$(DEV)/bin/python -m models.calibrate --data $(DATA) --s-cnn models/zoo/fashion-mnist-s-cnn.onnx \
		--collage models/zoo/fashion-mnist-collage-2x2.onnx models/zoo/fashion-mnist-collage-3x3.onnx

export-%: $(DEV)/ready
	$(DEV)/bin/python -m models.export $(RUNS)/fashion-mnist-$*.pt --data $(DATA) --storage int8 \
		--out models/zoo/fashion-mnist-$*.onnx

evaluate: $(DEMO)/ready ## Measure accuracy and latency of the shipped models on the test images of DATA
	$(DEMO)/bin/python -m models.evaluate --data $(DATA) --s-cnn models/zoo/fashion-mnist-s-cnn.onnx \
		--collage models/zoo/fashion-mnist-collage-2x2.onnx models/zoo/fashion-mnist-collage-3x3.onnx

images: $(IMAGES:%=image-%) ## Build the container images with ENGINE (docker, podman or buildah) on BASE

image-%:
	@test -n "$(ENGINE)" || { echo "No docker, podman or buildah found: make images ENGINE=/path/to/one" >&2; exit 1; }
	$(ENGINE) build --target $* --tag collage/$*:$(TAG) --build-arg BASE=$(BASE) .

clean: ## Remove the environments and everything generated by a run
	rm -rf $(DEMO) $(DEV) out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
