# make mnist                           set up, prepare data, train on 2 ranks
# make mnist DATA=shards/x NP=4 MODEL=dropout ARGS='--epochs 20'
# make test                            set up and run every test that this machine allows
# make test-versions [VERSIONS='2.16 2.21-mpich5']    TensorFlow 2.16 to 2.21, other MPIs, Debian 13 (6 minutes a row)
# make test-debian13                   jobs on Slurm 24.11 (pmi2, PMIx), Python 3.13, GCC 14, as root (40 minutes)
# make test-container [IMAGE=x.sif]    build the CPU image, or take one, and test it (6 minutes)
# make test-upstream HOROVOD=.. KERAS=..   tests of Horovod and of Keras, from clones of theirs (30 minutes)
# make test-files [FILES=10000]        HDF5 files of every kind against h5py, that many (5 minutes)
# make fuzz [CASES=1000000]            damaged files for every reader, that many (two hours)
# make test-kills [KILLS=500]          trainings killed at random moments under each launcher (two hours)
# make test-faults                     trainings in which one rank hangs: is the cause named? (an hour)
# make test-scans                      scans that are killed again and again (20 minutes)
# make test-ranks                      the checks of the Keras layer on 2, 3 and 4 ranks, not on one number (30 minutes)
# make test-sites                      every form of GPU request, and every site's fake cluster (10 minutes)
# make docs                           the site of the pages in docs/, in build/docs
# make venv | lint | clean             GPU=1 takes TensorFlow with CUDA and Horovod with NCCL

PYTHON ?= python3
VENV ?= .venv
NP ?= 2
MODEL ?= deep
DATA ?= shards/digits
ARGS ?= $(if $(filter shards/digits,$(DATA)),--epochs 30 --batch-size 32 --lr 0.05)
# An environment made with GPU=1 stays one.
GPU ?= $(wildcard $(VENV)/.packages-gpu)
EXTRA := $(if $(GPU),gpu,cpu)

export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: mnist test test-versions test-debian13 test-container test-upstream test-files test-kills test-faults test-scans test-ranks test-sites fuzz docs lint venv clean

mnist: venv $(if $(filter shards/digits,$(DATA)),shards/digits/.done)
	horovodrun -np $(NP) python -m hpc_train.mnist --data $(DATA) --model $(MODEL) $(ARGS)

# Two tests at a time: many of them wait, for Slurm or for ranks that end.
test: lint
	pytest --numprocesses 2 --no-loadscope-reorder --durations 60

# Several calls add to one tally, build/kills.jsonl.
test-kills: venv
	python tests/kills.py --kills $(or $(KILLS),500)

# Several calls add to one tally, build/faults.jsonl.
test-faults: venv
	python tests/faults.py --times $(or $(TIMES),5)

test-scans: venv
	python tests/scan_kills.py --search random && python tests/scan_kills.py --search grid

test-ranks: venv
	HPC_TRAIN_TEST_RANKS=all pytest tests/parallel/test_parallel.py tests/parallel/test_own_steps.py \
	  tests/parallel/test_horovod_names.py tests/training/test_kinds.py tests/training/test_own_models.py

test-sites: venv
	HPC_TRAIN_TEST_SITES=1 pytest tests/sites tests/slurm/test_slurm_gpus.py tests/slurm/test_slurm_submit.py

# The same tests as in CI, with cases by chance. -s: the counts of each reader are printed.
fuzz: venv
	HPC_TRAIN_FUZZ=$(or $(CASES),1000000) pytest -s --timeout 0 tests/fuzz

# Every row has an environment of its own: this one is not used.
test-versions:
	$(PYTHON) tests/versions.py $(VERSIONS)

# 3.5 GB, made once: in HPC_TRAIN_CACHE, or ~/.cache/hpc-train.
test-debian13:
	$(PYTHON) tests/debian13.py

test-container: venv
	HPC_TRAIN_TEST_IMAGE='$(IMAGE)' pytest -m container

test-upstream: venv
	$(if $(HOROVOD),tests/upstream.sh '$(HOROVOD)')
	$(if $(KERAS),tests/keras_upstream.sh '$(KERAS)' && tests/keras_upstream.sh '$(KERAS)' 2)

test-files: venv
	HPC_TRAIN_TEST_FILES=$(or $(FILES),10000) pytest -s tests/data/hdf5/test_foreign_files.py

# Shellcheck is no Python package: where it is missing, that part is left out and said to be.
lint: venv
	ruff check .
	ruff format --check .
	lint-imports
	mypy
	@if command -v shellcheck >/dev/null; then shellcheck -x slurm/*.sh containers/*.sh tests/*.sh $(wildcard .ci/run); \
	else echo 'shellcheck is not installed: the shell files were not checked'; fi

# Every page anew (-E), so that no warning is lost: each is an error.
docs: $(VENV)/.packages-$(EXTRA)
	sphinx-build -E -W --keep-going -n -q -d build/doctrees docs build/docs
	@echo build/docs/index.html

# The builder knows whether the Horovod that is installed still fits, and answers at once.
venv: $(VENV)/.packages-$(EXTRA)
	hpc-train build-horovod $(if $(GPU),--gpu)

$(VENV)/.packages-$(EXTRA): setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA),dev]'
	touch $@

shards/digits/.done: | venv
	hpc-train prepare digits --output shards/digits
	touch $@

clean:
	rm -rf $(VENV) shards/digits
