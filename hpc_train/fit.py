"""Train your own Keras model: horovodrun -np 4 python -m hpc_train.fit mine.py:build --data DIR --loss mse."""

import json
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import tyro

from hpc_train import command_line, training
from hpc_train.data.options import ScaleOptions
from hpc_train.errors import UserError
from hpc_train.training.own_model import build_args, judges, script


@dataclass(frozen=True, kw_only=True)
class ScriptOptions:
    """Where the model is."""

    build: Annotated[str, tyro.conf.Positional]
    """FILE.py:FUNCTION or package.module:FUNCTION. The function is called with the catalogue of the training data, or
    with nothing, and returns a Keras model."""
    build_args: tuple[str, ...] = ()
    """More arguments for the function, by name: units=64 dropout=0.2 name=wide. Numbers, True, False, None, lists and
    tuples are written as in Python; all else is text."""


@dataclass(frozen=True)
class JudgeOptions:
    """How the model is judged."""

    GROUP = "loss"

    loss: tuple[str, ...] = ()
    """Loss of Keras, such as mse or huber, or FILE.py:NAME of your own; y=mse mask=bce for several targets. By default,
    for class numbers, cross-entropy. A compiled model has its own loss, metrics and optimizer."""
    metrics: tuple[str, ...] = ()
    """Metrics of Keras, such as mae AUC, or FILE.py:NAME of your own, of all targets, or of one as y=mae; with the
    default loss, accuracy by default."""


@dataclass(frozen=True)
class Options(ScriptOptions, JudgeOptions, ScaleOptions, training.Options):
    """Train the Keras model that a function of your own returns, one process a GPU.

    A model that is not compiled is trained by the options of the recipe. A compiled one keeps its loss, metrics,
    optimizers and their learning rates, on any number of ranks; --lr-scaling, --warmup-epochs and --decay, where given,
    multiply these rates.
    """

    optimizer: Literal["sgd", "adam", "lamb"] = "adam"
    """sgd: SGD with momentum; adam: Adam (Kingma and Ba 2015); lamb: LAMB, Adam with layer-wise rates (You et al.
    2020)."""
    lr: float = 0.001
    """Learning rate at the base batch."""
    lr_scaling: Literal["linear", "sqrt", "none"] = "sqrt"
    """How the learning rate grows with global batch / base batch; more than sqrt seldom works with Adam."""


def run(options: Options) -> None:
    """Train by the options; every rank calls it."""
    options = _absolute(options)
    training.train(options, task(options))


def task(options: Options) -> training.Task:
    """The model that the options name, as a task.

    Raises:
        UserError: a file that is missing, or options that do not go together.
    """
    script.check(options.build)
    arguments = build_args.read(options.build_args)
    build_args.check(options.build, arguments)
    judges.check(options.loss, options.metrics)
    for option in ("new_head", "input_range"):
        if getattr(options, option):
            raise UserError(
                f"--{option.replace('_', '-')}: the model of {options.build} is taken as it is; leave it out"
            )
    if options.normalise:
        from hpc_train.training.early_checks import check_statistics
        from hpc_train.training.scaling import statistics_of

        check_statistics(options, lambda: statistics_of(options))
    return training.Task(
        name(options.build),
        partial(script.build, options.build, arguments=arguments),
        loss=options.loss,
        metrics=options.metrics,
        monitor="loss",
        facts=partial(_facts, options),
        transfer=_initialised,
    )


def name(build: str) -> str:
    """The name of a run: that of the file or module."""
    place = build.rpartition(":")[0]
    return place.removesuffix(".py").rpartition("/")[2].rpartition(".")[2]


def _absolute(options: Options) -> Options:
    """The options with absolute paths, as the run's record keeps them."""
    loss, metrics = (tuple(map(judges.absolute, words)) for words in (options.loss, options.metrics))
    return replace(options, build=script.absolute(options.build), loss=loss, metrics=metrics)


def _facts(options: Options, catalogue) -> dict:
    # As run.json gives them back: JSON has no tuples.
    arguments = json.loads(json.dumps(build_args.read(options.build_args)))
    # A script may be moved between two starts.
    return {"build_args": arguments, "metrics": [name.rpartition("/")[2] for name in options.metrics]}


def _initialised(options: Options, catalogue):
    """The model of the script with the weights of --init, where they fit."""
    from hpc_train.training import transfer

    model = script.build(options.build, catalogue, build_args.read(options.build_args))
    transfer.begin_with(model, options)
    return model


def network(build: str, catalogue, arguments: tuple[str, ...] = ()):
    """The model, for `hpc-train flops`.

    Args:
        build: FILE.py:FUNCTION.
        catalogue: of the data.
        arguments: words of --build-args.
    """
    return script.build(build, catalogue, build_args.read(arguments))


if __name__ == "__main__":
    command_line.main(Options, run, "python -m hpc_train.fit")
