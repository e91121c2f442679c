# make mnist                           set up, prepare data, train on 2 ranks
# make mnist DATA=shards/x NP=4 MODEL=dropout ARGS='--epochs 20'
# make test                            set up and run every test that this machine allows
# make venv | lint | clean             GPU=1 takes TensorFlow with CUDA and Horovod with NCCL

PYTHON ?= python3
VENV ?= .venv
NP ?= 2
MODEL ?= deep
DATA ?= shards/digits
ARGS ?= $(if $(filter shards/digits,$(DATA)),--epochs 30 --batch-size 32 --lr 0.05)
EXTRA := $(if $(GPU),gpu,cpu)

export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: mnist test lint venv clean

mnist: venv $(if $(filter shards/digits,$(DATA)),shards/digits)
	horovodrun -np $(NP) python -m hpc_train.mnist --data $(DATA) --model $(MODEL) $(ARGS)

test: venv
	ruff check .
	pytest

lint: venv
	ruff check .

venv: $(VENV)/.horovod

$(VENV)/.packages: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA),dev]'
	touch $@

# Asks the builder every time: it knows whether the Horovod that is installed still fits, and answers at once.
$(VENV)/.horovod: $(VENV)/.packages FORCE
	hpc-train build-horovod $(if $(GPU),--gpu)
	touch $@

.PHONY: FORCE
FORCE:

shards/digits: | venv
	hpc-train prepare digits --output $@

clean:
	rm -rf $(VENV) shards/digits
