#!/usr/bin/env bash
# Horovod's own parallel tests against the Horovod that is installed: tests/upstream.sh CHECKOUT [RANKS]
# CHECKOUT: a clone of https://github.com/horovod/horovod. RANKS: 2, or more; process sets get at least 3.
# It prints a table, then a line for each test that fails. The status is 1 if one fails without a known reason.
# The tests run on the CPU; set CUDA_VISIBLE_DEVICES to give them GPUs. UPSTREAM_ONLY=NAME takes the files with that name.
exec python "$(dirname "${BASH_SOURCE[0]}")/upstream/horovod_tests.py" "$@"
