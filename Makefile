# One environment in .venv, made by the first target that needs it.
#   make demo    train on the digits, export, verify, say where the report lies; with Lava as a
#                witness where its private environment can be had
#   make test    lint, types, import contracts and all tests
#   make bench   the tables of docs/results.md
# PYTHON=python3.12 picks an interpreter; PIPARGS="--index-url ..." is handed to every pip install.

PYTHON ?= python3
PIPARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed
SOURCES := pyproject.toml setup.py $(wildcard deploy/engine/*.?pp train/kernels/*.?pp)
ROOMS := network hardware train export deploy verify
MODULES := cli training calibration lava_setup options inputs overview console commands runs plugins files errors
TORCH := torch>=2.6,<2.14

.PHONY: install demo test lint types bench clean

install: $(STAMP)

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "snnpipe needs Python 3.11 or newer; try: make PYTHON=python3.11 ..."; exit 3; }
	@$(PYTHON) -m venv .venv || \
	  { echo "no virtual environment could be made; on Debian: apt install python3-venv python3-dev"; \
	    rm -rf .venv; exit 3; }

$(STAMP): $(SOURCES) | $(BIN)/pip
	@command -v $${CXX:-c++} >/dev/null || \
	  { echo "no C++ compiler found; on Debian: apt install g++"; exit 3; }
	$(BIN)/pip install --quiet $(PIPARGS) "pip>=25.1,<26.2"
	$(BIN)/python .ci/torch_guard.py "$(TORCH)" $(PIPARGS)
	$(BIN)/pip install --quiet $(PIPARGS) --group dev "$(TORCH)" "numpy>=2.0"
	$(BIN)/pip install --quiet $(PIPARGS) --no-build-isolation --editable ".[all]"
	@touch $@

demo: $(STAMP)
	$(BIN)/snnpipe train recipes/digits.toml
	$(BIN)/snnpipe export --target nir,onnx,lava
	@if $(BIN)/snnpipe lava setup; then witness=,lava_batched; fi; set -x; \
	  $(BIN)/snnpipe verify --on torch,onnx,event,loihi$$witness

test: $(STAMP) lint types
	$(BIN)/pytest

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

# The package is the folder itself, so static checkers see it through a link; and a check that read
# fewer files than there are would be no check.
types: $(STAMP)
	@mkdir -p .typed && ln -sfn .. .typed/snnpipe
	$(BIN)/mypy $(ROOMS:%=-p snnpipe.%) $(MODULES:%=-m snnpipe.%) > .mypy.log || { cat .mypy.log; exit 1; }
	@cat .mypy.log
	@read=$$(sed -n 's/.* in \([0-9]*\) source files/\1/p' .mypy.log); \
	 have=$$(find $(ROOMS) -name '*.py' | wc -l); \
	 test "$$read" -ge "$$have" || { echo "mypy read $$read files, the rooms hold $$have"; exit 1; }

bench: $(STAMP)
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv .typed build dist *.egg-info .mypy_cache .mypy.log .ruff_cache .pytest_cache
	find . -name '*.so' -path './*/*' -delete
