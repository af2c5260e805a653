# Every target makes the environment it needs on first use: .venv to serve and to run the demo, .venv-dev to develop,
# .venv-proto to compile the .proto files.
PYTHON ?= python3
DATA ?= data
MODELS ?= models/zoo
MODEL ?= models/zoo/fashion-mnist
GRID ?= 3x3
RUNS ?= runs
ENGINE ?= $(firstword $(foreach engine,docker podman buildah,$(shell command -v $(engine))))
BASE ?= python:3.12-slim
FIGURES ?=
S_CNN ?=
CODE ?=
K ?= 2
R ?= 1
DEVICE ?=
MINUTES ?=
CORES ?= $(shell nproc 2>/dev/null || echo 2)
TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

DEMO := .venv
DEV := .venv-dev
PROTOC := .venv-proto
STUBS := proto
PROTOS = $(wildcard proto/collage/v1/*.proto proto/inference/*.proto)
IMAGES := frontend s-cnn collage-cnn worker load
SWEEPS := usual budgets long
PIECES := sim frontier transient cells regimes open parm deferral envoy report

# ONNX Runtime's packages report usage to their maker unless told otherwise; ours tell it too, where they import it first.
export ORT_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo up bench bench-full $(PIECES:%=bench-full-%) test test-fleet lint check proto client audit k8s-validate monitoring data zoo evaluate cards results images mutants clean

help: ## Show this help
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1	\2/p' $(MAKEFILE_LIST) | expand -t 14

# An environment is ready when its last step, the stamp, is there; a failed or outdated one is installed again.
$(DEMO)/ready: EXTRA := demo
$(DEV)/ready: EXTRA := dev
$(DEMO)/ready $(DEV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " \
		+ sys.version.split()[0] + ": make PYTHON=/path/to/python3.12 ...")'
	@rm -f $@
	@echo "installing packages into $(@D), which takes minutes ..."
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA)]'
	@touch $@

$(PROTOC)/ready: proto/toolchain.txt
	@rm -f $@
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

demo: $(DEMO)/ready ## Run a cluster with stragglers and compare the policies (under 4 minutes)
	$(DEMO)/bin/python -m bench demo

# Of S_CNN=mine.onnx, or else of MODEL: the s-cnn, and the collage-cnn if there is one beside it.
SERVED = $(or $(S_CNN),$(MODEL)-s-cnn.onnx)
COLLAGE = $(patsubst %-s-cnn,%,$(SERVED:.onnx=))-collage-$(GRID).onnx
# A GRID that was asked for is served or refused, never left out.
BESIDE = $(if $(filter-out file default,$(firstword $(origin GRID))),$(COLLAGE),$(wildcard $(COLLAGE)))

PROTECT = $(if $(CODE),--code "$(CODE)" --k $(K) --r $(R),$(if $(BESIDE),--collage "$(BESIDE)",--no-collage))

up: $(DEMO)/ready ## Start a cluster of MODEL's models, or of S_CNN=mine.onnx (GRID=3x3, or CODE=addition K=2 R=1); Ctrl-C ends it
	exec $(DEMO)/bin/python -m bench cluster up --s-cnn "$(SERVED)" $(PROTECT)

bench: $(DEV)/ready ## Compare policies on a cluster of real processes, 9 + 1 (about 10 minutes)
	rm -rf out/bench
	$(DEV)/bin/python -m bench experiment --policies none,replicate,hedge,collage,adaptive --groups 150 --scale 0.5

# Pieces add up in out/bench-full and go on where they were interrupted; all but the first need the cores for themselves.
FULL = $(DEV)/bin/python -m bench experiment --target bench-full

bench-full: $(PIECES:%=bench-full-%) ## The same at full length, in all regimes and loads, and a report (5 hours; resumes)

bench-full-sim: $(SWEEPS:%=out/bench-full/runs/sweep-%.json) out/bench-scale.json

out/bench-full/runs/sweep-%.json: | $(DEV)/ready
	$(DEV)/bin/python -m bench sweep $* --out $@ --processes $(CORES)

out/bench-scale.json: | $(DEV)/ready
	$(DEV)/bin/python -m bench sweep scale --out $@

bench-full-frontier: $(DEV)/ready
	$(DEV)/bin/python -m bench frontier --processes $(CORES)
	$(DEV)/bin/python -m bench parm --processes $(CORES)
	$(MAKE) results FIGURES=out/parm.json

bench-full-transient: $(DEV)/ready
	$(FULL) --policies none,hedge:quantile=0.9,collage,adaptive --groups 2000 --scale 0.5

bench-full-cells: $(DEV)/ready
	$(FULL) --policies none,hedge:quantile=0.93,collage,adaptive --drawn 4 --groups 300 --scale 0.5
	$(FULL) --policies none,hedge:quantile=0.94,collage,adaptive --drawn 16 --groups 400 --scale 1
	$(FULL) --policies none,hedge:quantile=0.96,collage,adaptive --drawn 25 --groups 300 --scale 1

bench-full-regimes: $(DEV)/ready
	$(FULL) --regimes persistent --policies none,ejection,collage,adaptive --groups 400 --scale 0.5
	$(FULL) --regimes mixture --policies collage,adaptive --groups 2500 --scale 0.5 --seeds 0,1,2,3,4
	$(FULL) --regimes mixture --policies ejection --groups 2500 --scale 0.5 --seeds 0,1
	$(FULL) --regimes failures --policies none,ejection,collage,adaptive --groups 300 --scale 0.75

bench-full-open: $(DEV)/ready
	$(FULL) --policies none,hedge,collage,adaptive --loads 0.3,0.5,0.8 --groups 150 --scale 0.5

bench-full-parm: $(DEV)/ready
	$(DEV)/bin/python -m bench parm --real --seeds 1
	$(MAKE) results FIGURES=out/parm.json

bench-full-deferral: $(DEV)/ready
	$(DEV)/bin/python -m bench experiment --target deferral --drawn 4 --workers 36 --collage-workers 4 --loads 0.5 \
		--policies adaptive:extra_load=0.02,adaptive:extra_load=0.034,adaptive:extra_load=0.08 --groups 200 \
		--scale 2 --seeds 0,1
	$(DEV)/bin/python -m bench frontier --take out/deferral.json --grid 2
	$(MAKE) results FIGURES=out/deferral.json

bench-full-envoy: $(DEV)/ready
	$(DEV)/bin/python -m bench envoy --groups 200 --seeds 2
	$(DEV)/bin/python -m bench frontier --take out/envoy.json
	$(MAKE) results

bench-full-report: $(DEV)/ready
	$(FULL) --collect
	$(DEV)/bin/python -m bench report out/bench-full.json out/bench-scale.json --out docs/results/bench-full
	$(MAKE) results FIGURES="out/bench-full.json out/bench-scale.json"

results: $(DEMO)/ready ## Write the tables of README.md and docs/ from docs/results, after taking in FIGURES
	$(DEMO)/bin/python -m bench tables $(FIGURES)

test: $(DEV)/ready ## Run all tests, two files at a time
	$(DEV)/bin/python -m pytest -n 2 --dist loadfile

# Servers of other makes, each in an environment of its own: their packages do not go together.
.venv-triton/ready: PACKAGES := nvidia-pytriton==0.7.0 onnxruntime
.venv-mlserver/ready: PACKAGES := mlserver==1.7.1 onnxruntime
.venv-triton/ready .venv-mlserver/ready:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(PACKAGES)
	@touch $@

test-fleet: $(DEV)/ready .venv-triton/ready .venv-mlserver/ready ## Test with real Triton and MLServer servers (installs them: 850 MB)
	$(DEV)/bin/python -m pytest tests/fleet

mutants: $(DEV)/ready ## Try wrong versions of the code; docs/mutants.md says which test notices each (half an hour)
	$(DEV)/bin/python -m tests.mutants

lint: $(DEV)/ready ## Style, format, types, import rules
	$(DEV)/bin/ruff check
	$(DEV)/bin/ruff format --check
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports

check: lint test audit ## All checks that must pass before a commit

AUDITED := import json, pathlib, sys; path = pathlib.Path("out/audit.json"); \
	found = json.loads(path.read_text())["dependencies"] if path.exists() else []; \
	known = [one for one in found if "vulns" in one]; bad = [one["name"] for one in known if one["vulns"]]; \
	print(f"{len(known)} dependencies audited" if known else "audit skipped: the advisory service cannot be reached"); \
	sys.exit("vulnerable: " + ", ".join(bad) if bad else 0)

audit: $(DEV)/ready ## Look for known vulnerabilities in the pinned dependencies; skipped offline
	@mkdir -p out && rm -f out/audit.json
	-@$(DEV)/bin/pip-audit -r constraints.txt --no-deps --disable-pip --progress-spinner off -f json -o out/audit.json
	@$(DEV)/bin/python -c '$(AUDITED)'

k8s-validate: $(DEV)/ready ## Render the manifests, check them against Kubernetes' schemas and against the code
	$(DEV)/bin/python -m pytest tests/k8s

monitoring: $(DEV)/ready ## Watch a cluster with a real Prometheus; try every dashboard and alert query (2 minutes)
	$(DEV)/bin/python -m bench monitoring --pictures docs/dashboards

proto: $(PROTOC)/ready ## Generate the committed stubs from the .proto files
	$(PROTOC)/bin/python -m grpc_tools.protoc -I proto --plugin=protoc-gen-mypy_grpc=$(PROTOC)/bin/protoc-gen-mypy_grpc \
		--python_out=$(STUBS) --pyi_out=$(STUBS) --grpc_python_out=$(STUBS) --mypy_grpc_out=quiet:$(STUBS) $(PROTOS)

client: $(DEV)/ready ## Build the wheel of collage-client, for callers, in out/
	$(DEV)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir out ./proto

data: $(DEV)/ready ## Get the public data sets into DATA, or say what to place there
	$(DEV)/bin/python -m models.fetch --data "$(DATA)"

zoo: $(DEV)/ready ## Train every model that DATA has data for, then evaluate (resumes); or those of CODE=addition K=2; or for S_CNN=mine.onnx; or DEVICE=cuda MINUTES=8
	$(DEV)/bin/python -m models.zoo --data "$(DATA)" --runs "$(RUNS)" $(if $(S_CNN),--s-cnn "$(S_CNN)",--out "$(MODELS)") \
		$(if $(CODE),--code "$(CODE)" --members $(K)) $(if $(DEVICE),--device "$(DEVICE)") $(if $(MINUTES),--minutes "$(MINUTES)")
	$(if $(S_CNN)$(MINUTES),,$(MAKE) evaluate cards)

evaluate: $(DEMO)/ready ## Measure the models on the test images in DATA; tables, out/evaluate.json and pictures
	$(DEMO)/bin/python -m models.evaluate --data "$(DATA)" --models "$(MODELS)" "$(RUNS)/zoo"
	$(if $(CODE),$(DEMO)/bin/python -m bench codes --data "$(DATA)" --models "$(MODELS)" "$(RUNS)/zoo" --only "*-$(CODE)*-$(K)")

cards: $(DEMO)/ready ## Write the model cards of MODELS from out/evaluate.json
	$(DEMO)/bin/python -m models.cards --models "$(MODELS)" --figures out/evaluate.json $(if $(wildcard out/codes.json),--codes out/codes.json)

images: $(IMAGES:%=image-%) ## Build the container images, of MODEL's models or of S_CNN=mine.onnx, with ENGINE (docker, podman, buildah) on BASE

# An image of a model says in its tag which one: s-cnn:0.1.0-fashion-mnist-s-cnn. A build sees only what .dockerignore
# names, so the model is copied to where it may be seen.
image-s-cnn: FILE = $(SERVED)
image-collage-cnn: FILE = $(COLLAGE)
HELD = $(if $(FILE),-$(basename $(notdir $(FILE))))

image-%:
	@test -n "$(ENGINE)" || { echo "No docker, podman or buildah found: make images ENGINE=/path/to/one" >&2; exit 1; }
	@test -z "$(FILE)" || { rm -rf out/image/$*; mkdir -p out/image/$*; cp "$(FILE)"* out/image/$*; }
	$(ENGINE) build --target $* --tag collage/$*:$(TAG)$(HELD) --build-arg BASE=$(BASE) \
		$(if $(FILE),--build-arg FOLDER=out/image/$* --build-arg MODEL=$(notdir $(FILE))) .

clean: ## Remove the environments and caches; results and trained models (out/, runs/, DATA) stay
	rm -rf $(DEMO) $(DEV) $(PROTOC) .venv-triton .venv-mlserver .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
