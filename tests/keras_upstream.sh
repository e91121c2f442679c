#!/usr/bin/env bash
# Keras's own tests with this package's layer in them: tests/keras_upstream.sh CHECKOUT [RANKS]
# CHECKOUT: a clone of https://github.com/keras-team/keras at the installed version. RANKS: 1, or more.
# Its tests of optimizers run with each optimizer wrapped; those of trainers and callbacks with every compile wrapped
# and every fit given parallel.callbacks(). What passes without that must pass with it, or have a known reason:
# otherwise the status is 1. UPSTREAM_ONLY=optimizers or fit runs a part, UPSTREAM_FILES='a_test.py b_test.py' files.
exec python "$(dirname "${BASH_SOURCE[0]}")/upstream/keras_tests.py" "$@"
