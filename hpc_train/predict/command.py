"""`hpc-train predict RUN --data DIR`: class probabilities or label maps, and scores if there are labels.

One process, plain Keras, no Horovod: it also runs on a login node or a laptop.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hpc_train.errors import UserError

_CLASSIFIED, _MAPS = (".h5", ".hdf5", ".csv"), (".nc", ".nc4")


@dataclass(frozen=True)
class Predict:
    """Predict with a trained run: a class for each sample, or for each pixel if it was trained on label maps."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, whose path training printed."""
    data: Path
    """Folder of HDF5 shards (JPEG images are decoded as in validation), or a .npy file of samples (n, ...) without
    labels. For label maps also files of the other layouts that training takes, read with the run's options."""
    split: str = "test"
    """Split of the data."""
    output: Path | None = None
    """File for the probabilities (.h5 or .csv), or for the masks of label maps (.nc); by default RUN/predictions.h5 or
    RUN/predictions.nc."""
    which: Literal["best", "last"] = "best"
    """best: the run's best model by its validation score; last: the model at its end."""
    batch_size: int | None = None
    """Samples in each step; by default 256, or 1 for label maps."""
    probabilities: bool = False
    """Label maps: also write the probability of each class, to three digits."""
    maps: int = 0
    """Label maps: draw this many samples, spread over the split, as PNG files beside the output."""
    samples: tuple[int, ...] = ()
    """Label maps: draw the samples with these numbers, counted from 0."""
    show: tuple[str, ...] = ()
    """Label maps: fields in the pictures: names of channels, or pairs such as U850+V850 for the speed of a wind; by
    default wind speed and TMQ if the channels have such names, else the first channel."""
    region: tuple[float, float, float, float] | None = None
    """Label maps: west, east, south and north edges of the pictures in degrees, such as --region -100 -40 10 50."""


def run(options: Predict) -> None:
    """Write predictions, print scores, and draw pictures.

    Raises:
        UserError: the run, model, data or output folder does not exist, or the data do not fit the model.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from hpc_train.parallel.quiet import quiet_import
    from hpc_train.training.run_folder import Run

    folder = Run.open(options.run)
    path = folder.best if options.which == "best" else folder.model
    if not path.exists():
        raise UserError(f"{path} does not exist; let the run finish, or give --which {_other(options.which)}")
    _check(options)
    with quiet_import():
        import keras

    model = keras.models.load_model(path, compile=False)
    maps = len(model.output_shape) == 4
    _check_kind(options, maps)
    if maps:
        from hpc_train.predict.label_maps import predict

        predict(options, folder, path, model, options.output or folder.path / "predictions.nc")
    else:
        from hpc_train.predict.classes import predict

        predict(options, path, model, options.output or folder.path / "predictions.h5")


def _check(options: Predict) -> None:
    """Check the options as far as possible without the model, which takes a while to load."""
    if options.batch_size is not None and options.batch_size < 1:
        raise UserError(f"--batch-size is {options.batch_size}; give at least 1")
    if options.maps < 0:
        raise UserError(f"--maps is {options.maps}; give the number of samples to draw, 0 or more")
    if not (options.maps or options.samples) and (options.show or options.region):
        raise UserError("--show and --region are for pictures; choose samples to draw with --maps or --samples")
    output = options.output or options.run / "predictions.h5"
    if output.suffix not in _CLASSIFIED + _MAPS:
        raise UserError(f"--output {output}: give a name that ends in .h5 or .csv, or in .nc for label maps")
    if options.output and output.with_suffix(".json").resolve() == (options.run / "run.json").resolve():
        raise UserError(f"--output {output}: its scores would overwrite the run's record, run.json; give another name")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise UserError(f"cannot write in the folder {output.parent}; make it, or give another file with --output")


def _check_kind(options: Predict, maps: bool) -> None:
    suffixes, what = (_MAPS, "label maps") if maps else (_CLASSIFIED, "one class for each sample")
    if options.output and options.output.suffix not in suffixes:
        raise UserError(
            f"--output {options.output}: {options.run} predicts {what}; give a name that ends in {suffixes[0]}"
        )
    if not maps and (options.maps or options.samples or options.probabilities):
        raise UserError(
            f"--maps, --samples and --probabilities are for label maps, but {options.run} predicts {what}; leave them "
            "out"
        )


def _other(which: str) -> str:
    return "last" if which == "best" else "best"
