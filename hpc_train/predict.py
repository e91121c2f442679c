"""`hpc-train predict RUN --data DIR`: class probabilities, and the confusion matrix where there are labels.

One process, plain Keras, no Horovod: it runs on a login node or a laptop as well.
"""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hpc_train.errors import UserError


@dataclass(frozen=True)
class Predict:
    """Predict with a trained run."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, as training printed it."""
    data: Path
    """Folder of HDF5 shards."""
    split: str = "test"
    """Split of the data."""
    output: Path | None = None
    """Where the probabilities go, .h5 or .csv; RUN/predictions-SPLIT.h5 if not given."""
    which: Literal["best", "last"] = "best"
    """The best model of the run by its validation accuracy, or the one at its end."""
    batch_size: int = 256
    """Samples a step."""


def run(options: Predict) -> None:
    """Write probabilities and print accuracy and confusion matrix.

    Raises:
        UserError: no such run, model, data or output folder, or data that the model does not take.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import numpy as np

    from hpc_train.data.catalogue import Catalogue
    from hpc_train.data.reader import Reader
    from hpc_train.parallel.quiet import quiet_import
    from hpc_train.run import Run

    folder = Run.open(options.run)
    path = folder.best if options.which == "best" else folder.model
    if not path.exists():
        raise UserError(f"{path} does not exist yet; let the run finish, or take --which {_other(options.which)}")
    output = options.output or folder.path / f"predictions-{options.split}.h5"
    if output.suffix not in (".h5", ".hdf5", ".csv"):
        raise UserError(f"--output {output}: give a name that ends in .h5 or .csv")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: the folder {output.parent} does not exist; make it first")
    if options.batch_size < 1:
        raise UserError(f"--batch-size is {options.batch_size}; it must be at least 1")
    catalogue = Catalogue.open(options.data, options.split)

    with quiet_import():
        import keras

    model = keras.models.load_model(path, compile=False)
    if tuple(model.input_shape[1:]) != tuple(catalogue.input_shape):
        raise UserError(
            f"the model takes samples of {model.input_shape[1:]}, {options.data} holds {catalogue.input_shape}"
        )
    reader = Reader(catalogue, check=True)
    probabilities, targets = [], []
    for start in range(0, catalogue.samples, options.batch_size):
        rows = np.arange(start, min(start + options.batch_size, catalogue.samples))
        inputs, labels = reader.read(rows)
        probabilities.append(softmax(np.asarray(model.predict_on_batch(inputs), "float64")))
        targets.append(labels)
    probabilities, targets = np.concatenate(probabilities).astype("float32"), np.concatenate(targets)
    names = list(catalogue.class_names) or [str(i) for i in range(probabilities.shape[1])]
    if len(names) != probabilities.shape[1]:
        raise UserError(f"the model knows {probabilities.shape[1]} classes, {options.data} has {len(names)}")
    write = _write_csv if output.suffix == ".csv" else _write_hdf5
    write(output, probabilities, targets, names)
    matrix = confusion_matrix(targets, probabilities.argmax(1), len(names))
    print(table(matrix, names))
    print(f"accuracy {np.trace(matrix) / matrix.sum():.4f} of {matrix.sum()} samples, {path}")
    print(f"probabilities in {output}")


def softmax(logits):
    """Probabilities (n, classes) from logits (n, classes)."""
    import numpy as np

    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def confusion_matrix(targets, predicted, classes: int):
    """Counts (classes, classes), int64: a row for each true class, a column for each predicted one."""
    import numpy as np

    pairs = np.asarray(targets, "int64") * classes + np.asarray(predicted, "int64")
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def table(matrix, names: list[str]) -> str:
    """The confusion matrix as text, with the recall of each class."""
    width = max(6, *(len(name) for name in names), len(str(matrix.max()))) + 1
    lines = ["confusion matrix: a row for each true class, a column for each predicted one"]
    lines.append(" " * width + "".join(name.rjust(width) for name in names) + "recall".rjust(width))
    for i, (name, row) in enumerate(zip(names, matrix, strict=True)):
        recall = f"{row[i] / row.sum():.3f}" if row.sum() else "-"
        lines.append(name.rjust(width) + "".join(str(count).rjust(width) for count in row) + recall.rjust(width))
    return "\n".join(lines)


def _write_hdf5(path: Path, probabilities, targets, names) -> None:
    import h5py

    from hpc_train.files import atomic_path

    with atomic_path(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        file["probabilities"] = probabilities
        file["predicted"] = probabilities.argmax(1)
        file["targets"] = targets
        file.attrs["class_names"] = names


def _write_csv(path: Path, probabilities, targets, names) -> None:
    from hpc_train.files import atomic_path

    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", "target", "predicted", *names])
        for i, (row, target) in enumerate(zip(probabilities, targets, strict=True)):
            writer.writerow([i, target, row.argmax(), *(f"{p:.6g}" for p in row)])


def _other(which: str) -> str:
    return "last" if which == "best" else "best"
