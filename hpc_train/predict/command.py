"""`hpc-train predict RUN --data DIR`: class probabilities, label maps or numbers, and scores if there are targets.

One process, plain Keras, no Horovod: it also runs on a login node or a laptop.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hpc_train.errors import UserError
from hpc_train.predict.run_data import RunDataOptions

_CLASSIFIED, _MAPS = (".h5", ".hdf5", ".csv"), (".nc", ".nc4")
_ONE_CLASS = "one class for each sample"


@dataclass(frozen=True)
class PredictOptions:
    """The run, the data, and what is written and drawn."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, whose path training printed."""
    data: Path
    """Folder of HDF5 shards (JPEG images are decoded as in validation), files of any other layout that training takes,
    or a .npy file of samples (n, ...) without targets. Files are read with the run's options."""
    split: str = "test"
    """Split of the data."""
    output: Path | None = None
    """File for probabilities or numbers (.h5 or .csv), or for label maps and fields on a grid (.nc); by default
    RUN/predictions.h5, or RUN/predictions.nc for label maps."""
    which: Literal["best", "last"] = "best"
    """best: the run's best model by its validation score; last: the model at its end."""
    script: Path | None = None
    """Python file to import first, where the network has layers of your own that are registered with Keras there."""
    batch_size: int | None = None
    """Samples in each step; by default 256, less for large samples, and 1 for label maps."""
    probabilities: bool = False
    """Label maps: also write the probability of each class, to three digits."""
    maps: int = 0
    """Label maps and numbers: draw this many samples, spread over the split, as PNG files beside the output."""
    samples: tuple[int, ...] = ()
    """Label maps and numbers: draw the samples with these numbers, counted from 0."""
    show: tuple[str, ...] = ()
    """What the pictures show. Label maps: names of channels, or pairs such as U850+V850 for the speed of a wind; by
    default wind speed and TMQ if the channels have such names, else the first channel. Numbers: channels of the target;
    by default the first four."""
    region: tuple[float, float, float, float] | None = None
    """Maps: west, east, south and north edges of the pictures in degrees, such as --region -100 -40 10 50."""


@dataclass(frozen=True)
class Predict(RunDataOptions, PredictOptions):
    """Predict with a trained run: a class for each sample or each pixel, or numbers, as it was trained."""


def run(options: Predict) -> None:
    """Write predictions, print scores, and draw pictures.

    Raises:
        UserError: the run, model, data or output folder does not exist, or the data do not fit the model.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from hpc_train.parallel.quiet import quiet_import
    from hpc_train.training.ownership import warn_of_others
    from hpc_train.training.run_folder import Run

    folder = Run.open(options.run)
    path = folder.best if options.which == "best" else folder.model
    if not path.exists():
        raise UserError(f"{path} does not exist; let the run finish, or give --which {_other(options.which)}")
    _check(options)
    warn_of_others(folder.path, path)
    with quiet_import():
        import keras

    record = folder.record()
    model = _load(keras, path, str(options.script) if options.script else _file_of(record))
    source = _numbers(options, record, model)
    if source:
        from hpc_train.predict.numbers.predict import predict

        _check_kind(options, _CLASSIFIED + _MAPS, "numbers")
        return predict(options, record, path, model, options.output or folder.path / "predictions.h5", source)
    if len(model.output_shape) == 4:
        from hpc_train.predict.label_maps import predict

        _check_kind(options, _MAPS, "label maps")
        return predict(options, folder, path, model, options.output or folder.path / "predictions.nc")
    from hpc_train.predict.classes import predict

    _check_kind(options, _CLASSIFIED, _ONE_CLASS)
    return predict(options, record, path, model, options.output or folder.path / "predictions.h5")


def _numbers(options: Predict, record: dict, model):
    """The `NumberSource` of a run that predicts numbers; None where it predicts classes."""
    from hpc_train.predict.numbers.source import open_source
    from hpc_train.predict.run_data import of_numbers

    recorded = record.get("options", {})
    several = len(getattr(model, "outputs", None) or [model]) > 1

    def catalogue():
        labelled = options.data.suffix != ".npy"
        return options.of_run(recorded, options.data).catalogue(options.split) if labelled else None

    return open_source(options, record, model) if of_numbers(record, options, several, catalogue) else None


def _load(keras, path: Path, script: str | None):
    own = {}
    if script:
        from hpc_train.training.own_model.script import run_once

        # Also those that are not registered with Keras.
        own = {name: value for name, value in vars(run_once(script)).items() if callable(value)}
    from hpc_train.files.keras_file import checked

    try:
        with checked(path, own):
            return keras.models.load_model(path, own, compile=False)
    except UserError:
        raise
    # Keras passes all errors on.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"{path} cannot be loaded ({reason}); classes of your own need "
            "@keras.saving.register_keras_serializable(), and their file: give it with --script"
        ) from error


def _file_of(record: dict) -> str | None:
    """The file or module of the user's function that made the run's network, if it is still there."""
    place = str(record.get("options", {}).get("build") or "").rpartition(":")[0]
    return place if place and (not place.endswith(".py") or Path(place).is_file()) else None


def _check(options: Predict) -> None:
    """Check the options as far as possible without the model, which takes a while to load."""
    if options.batch_size is not None and options.batch_size < 1:
        raise UserError(f"--batch-size is {options.batch_size}; give at least 1")
    if options.maps < 0:
        raise UserError(f"--maps is {options.maps}; give the number of samples to draw, 0 or more")
    if options.script and not options.script.is_file():
        raise UserError(f"--script {options.script} is not a Python file; give the one that defines the network")
    if not (options.maps or options.samples) and (options.show or options.region):
        raise UserError("--show and --region are for pictures; choose samples to draw with --maps or --samples")
    output = options.output or options.run / "predictions.h5"
    if output.suffix not in _CLASSIFIED + _MAPS:
        raise UserError(f"--output {output}: give a name that ends in .h5 or .csv, or in .nc for label maps")
    if options.output and output.with_suffix(".json").resolve() == (options.run / "run.json").resolve():
        raise UserError(f"--output {output}: its scores would overwrite the run's record, run.json; give another name")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise UserError(f"cannot write in the folder {output.parent}; make it, or give another file with --output")


def _check_kind(options: Predict, suffixes: tuple[str, ...], what: str) -> None:
    if options.output and options.output.suffix not in suffixes:
        raise UserError(
            f"--output {options.output}: {options.run} predicts {what}; give a name that ends in {suffixes[0]}"
        )
    if what == _ONE_CLASS and (options.maps or options.samples or options.probabilities):
        raise UserError(
            f"--maps, --samples and --probabilities are for label maps, but {options.run} predicts {what}; leave them "
            "out"
        )
    if what == "numbers" and options.probabilities:
        raise UserError(f"--probabilities is for label maps, but {options.run} predicts numbers; leave it out")


def _other(which: str) -> str:
    return "last" if which == "best" else "best"
