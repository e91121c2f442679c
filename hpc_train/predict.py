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
    """Folder of HDF5 shards, whose JPEG images are decoded as in validation; or a .npy file of samples (n, ...)
    without labels."""
    split: str = "test"
    """Split of the shards."""
    output: Path | None = None
    """Where the probabilities go, .h5 or .csv; RUN/predictions.h5 if not given."""
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

    from hpc_train.parallel.quiet import quiet_import
    from hpc_train.run import Run

    folder = Run.open(options.run)
    path = folder.best if options.which == "best" else folder.model
    if not path.exists():
        raise UserError(f"{path} does not exist; let the run finish, or take --which {_other(options.which)}")
    output = options.output or folder.path / "predictions.h5"
    _check_output(output)
    if options.batch_size < 1:
        raise UserError(f"--batch-size is {options.batch_size}; it must be at least 1")
    with quiet_import():
        import keras

    model = keras.models.load_model(path, compile=False)
    opened = _open_npy(options.data) if options.data.suffix == ".npy" else _open_shards(options, model.input_shape)
    samples, shape, names, read = opened
    classes = model.output_shape[-1]
    if tuple(model.input_shape[1:]) != tuple(shape):
        raise UserError(f"the model takes samples of {model.input_shape[1:]}, {options.data} holds {shape}")
    if names is not None and len(names) != classes:
        raise UserError(f"the model knows {classes} classes, {options.data} has {len(names)}")
    probabilities, targets = [], []
    for start in range(0, samples, options.batch_size):
        inputs, labels = read(np.arange(start, min(start + options.batch_size, samples)))
        probabilities.append(softmax(np.asarray(model.predict_on_batch(inputs), "float64")))
        targets.append(labels)
    probabilities = np.concatenate(probabilities).astype("float32")
    targets = np.concatenate(targets) if names is not None else None
    names = names or [str(i) for i in range(classes)]
    write = _write_csv if output.suffix == ".csv" else _write_hdf5
    write(output, probabilities, targets, names)
    if targets is not None:
        matrix = confusion_matrix(targets, probabilities.argmax(1), classes)
        print(table(matrix, names))
        print(f"accuracy {np.trace(matrix) / matrix.sum():.4f} of {matrix.sum()} samples, {path}")
    print(f"probabilities of {samples} samples in {output}")


def _open_shards(options: Predict, input_shape: tuple):
    from hpc_train.data.catalogue import Catalogue
    from hpc_train.data.encoded_reader import open_reader

    catalogue = Catalogue.open(options.data, options.split)
    names = list(catalogue.class_names) or [str(i) for i in range(catalogue.classes)]
    if not catalogue.encoding:
        return catalogue.samples, catalogue.input_shape, names, open_reader(catalogue).read
    from hpc_train.data.decode import DecodedReader

    # To what the model takes; its caller compares the shapes.
    catalogue = catalogue.resized(input_shape[1] or catalogue.input_shape[0]) if len(input_shape) == 4 else catalogue
    return catalogue.samples, catalogue.input_shape, names, DecodedReader(open_reader(catalogue)).read


def _open_npy(path: Path):
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"--data {path} cannot be read as a NumPy array ({error}); write it with numpy.save") from error
    if array.ndim < 2 or not len(array):
        raise UserError(f"--data {path} has shape {array.shape}; give samples along the first axis")
    return len(array), array.shape[1:], None, lambda rows: (np.asarray(array[rows[0] : rows[-1] + 1]), None)


def _check_output(output: Path) -> None:
    if output.suffix not in (".h5", ".hdf5", ".csv"):
        raise UserError(f"--output {output}: give a name that ends in .h5 or .csv")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise UserError(f"cannot write in the folder {output.parent}; make it, or name another file with --output")


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
        if targets is not None:
            file["targets"] = targets
        file.attrs["class_names"] = names


def _write_csv(path: Path, probabilities, targets, names) -> None:
    from hpc_train.files import atomic_path

    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", *(["target"] if targets is not None else []), "predicted", *names])
        for i, row in enumerate(probabilities):
            label = [targets[i]] if targets is not None else []
            writer.writerow([i, *label, row.argmax(), *(f"{p:.6g}" for p in row)])


def _other(which: str) -> str:
    return "last" if which == "best" else "best"
