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

WHERE = os.environ.get("UPSTREAM_WRAP", "")
SEED = 1337


def pytest_configure(config):
    own = Path(os.environ["UPSTREAM_OUTCOMES"]) / f"temporary.{outcomes.rank()}"
    own.mkdir(exist_ok=True)
    tempfile.tempdir = str(own)
    if WHERE:
        from hpc_train import parallel

        parallel.init(seed=SEED)
        {"optimizers": wrap_constructed, "fit": wrap_compiled}[WHERE]()


def pytest_runtest_setup(item):
    import keras

    keras.utils.set_random_seed(SEED)


def wrap_constructed() -> None:
    """Make each optimizer distributed that a test file constructs; of one around others only the outer one.

    The classes stay what they are: only what a test gets by calling them changes.
    """
    import keras

    for kind in _kinds(keras.optimizers.Optimizer):
        if "__init__" in vars(kind):
            kind.__init__ = _wrapping(kind.__init__)


def _wrapping(plain_init):
    """`plain_init`, after which the optimizer is distributed where a test file called its class."""
    from hpc_train import parallel

    @functools.wraps(plain_init)
    def init(self, *args, **kwargs):
        if not inspect.currentframe().f_back.f_code.co_filename.endswith("_test.py"):
            plain_init(self, *args, **kwargs)
            return
        for value in _flat([args, kwargs]):
            _make_plain(value)
        plain_init(self, *args, **kwargs)
        parallel.DistributedOptimizer(self)

    return init


def _flat(value) -> list:
    if isinstance(value, (list, tuple, dict)):
        parts = value.values() if isinstance(value, dict) else value
        return [inner for part in parts for inner in _flat(part)]
    return [value]


def _kinds(kind: type) -> list[type]:
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]


def _make_plain(value) -> None:
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
