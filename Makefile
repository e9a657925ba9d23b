PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
PRESET ?= quick

.PHONY: figures all-figures test float32 slow lint bench accelerator docs clean

figures: $(READY)           ## the theory figures, quick preset
	$(RUN) examples/reproduce.py --theory --preset $(PRESET)

all-figures: $(READY)       ## every script; goes on where it stopped
	$(RUN) examples/reproduce.py --resume --preset $(PRESET)

test: $(READY)
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

float32: $(READY)           ## the part of the suite that runs without 64-bit numbers
	$(RUN) -m pytest tests/test_float32.py

slow: $(READY)
	$(RUN) -m pytest -m slow -n 2 --dist load

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

docs: $(READY)              ## the manual, into docs/_build/html
	$(RUN) -m sphinx -W --keep-going -q -j 2 -d docs/_build/doctrees docs docs/_build/html

bench: $(READY)             ## keeps its medians and ratios in benchmarks/results/
	BENCHMARK_RESULTS=benchmarks/results $(RUN) -m pytest benchmarks -m "" --benchmark-columns=median,rounds --benchmark-sort=name -s
	$(RUN) benchmarks/bench_flow_solvers.py
	$(RUN) benchmarks/bench_first_calls.py

accelerator: $(READY)       ## ten minutes on whatever accelerator JAX finds; goes on where it stopped
	$(RUN) benchmarks/accelerator.py

# uv reads pyproject's override: neural-tangents asks for TensorFlow, which nothing here imports.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(abspath $(VENV)) $(RUN) -m uv pip install --quiet -e ".[all]"
	touch $@

clean:
	rm -rf $(VENV)
