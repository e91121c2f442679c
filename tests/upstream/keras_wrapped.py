"""A pytest plugin that puts this package's layer into Keras's own tests, as a user would who changes nothing else.

`UPSTREAM_WRAP` says where: "optimizers" makes each optimizer that a test constructs a distributed one; "fit" does so
in every `compile`, and gives every `fit` the callbacks; without it the tests run as they are. Ranks run in lockstep:
the same seeds before each test, and a folder for temporary files each.
"""

import functools
import inspect
import os
import tempfile
from pathlib import Path

import outcomes
import pytest

WHERE = os.environ.get("UPSTREAM_WRAP", "")
SEED = 1337


def pytest_configure(config):
    # Keras's own conftest.py has these marks.
    config.addinivalue_line("markers", "requires_trainable_backend: needs a backend that trains")
    config.addinivalue_line("markers", "multi_device: needs several devices")
    own = Path(os.environ["UPSTREAM_OUTCOMES"]) / f"temporary.{outcomes.rank()}"
    own.mkdir(exist_ok=True)
    tempfile.tempdir = str(own)
    if WHERE:
        from hpc_train import parallel

        parallel.init(seed=SEED)
        {"optimizers": wrap_constructed, "fit": wrap_compiled}[WHERE]()


def pytest_collection_modifyitems(items):
    for item in items:
        if "multi_device" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs several devices"))


def pytest_runtest_setup(item):
    import keras

    keras.utils.set_random_seed(SEED)


def wrap_constructed() -> None:
    """Make each optimizer distributed that a test file constructs; of one around others only the outer one.

    The classes stay what they are: only what a call of them returns to a test changes.
    """
    import keras

    from hpc_train import parallel

    class Wrapping(type):
        def __call__(cls, *args, **kwargs):
            if not inspect.currentframe().f_back.f_code.co_filename.endswith("_test.py"):
                return super().__call__(*args, **kwargs)
            keras.tree.map_structure(lambda value: _plain(value) or value, [args, kwargs])
            return parallel.DistributedOptimizer(super().__call__(*args, **kwargs))

    for kind in _kinds(keras.optimizers.Optimizer):
        kind.__class__ = Wrapping


def _kinds(kind: type) -> list[type]:
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]


def _plain(value) -> None:
    """Make a distributed optimizer plain again: one around it averages in its place."""
    from hpc_train.parallel.optimizer import DistributedOptimizer, _set_class

    if isinstance(value, DistributedOptimizer):
        _set_class(value, value._plain)


def wrap_compiled() -> None:
    """Make the optimizer of every `compile` distributed, and give every `fit` the callbacks first."""
    import keras

    from hpc_train import parallel
    from hpc_train.parallel.optimizer import DistributedOptimizer

    trainer = next(kind for kind in keras.Model.__mro__ if "fit" in vars(kind))
    base = next(kind for kind in keras.Model.__mro__ if "compile" in vars(kind))
    plain_compile, plain_fit = base.compile, trainer.fit

    @functools.wraps(plain_compile)
    def compile(self, optimizer="rmsprop", *args, **kwargs):
        if optimizer is not None:
            optimizer = keras.optimizers.get(optimizer)
            if not isinstance(optimizer, DistributedOptimizer):
                optimizer = parallel.DistributedOptimizer(optimizer)
        return plain_compile(self, optimizer, *args, **kwargs)

    @functools.wraps(plain_fit)
    def fit(self, *args, **kwargs):
        given = inspect.signature(plain_fit).bind(self, *args, **kwargs).arguments
        theirs = given.get("callbacks") or []
        theirs = theirs if isinstance(theirs, (list, tuple)) else [theirs]
        return plain_fit(**{**given, "callbacks": [*parallel.callbacks(), *theirs]})

    base.compile, trainer.fit = compile, fit
