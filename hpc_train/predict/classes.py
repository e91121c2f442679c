"""Predicts one class for each sample: probabilities in a file, and the confusion matrix if there are labels."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from hpc_train.console import say
from hpc_train.data.catalogue.part import Part
from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.errors import UserError
from hpc_train.files.whole import atomic_path
from hpc_train.metrics.confusion import confusion_matrix, softmax, table
from hpc_train.names import cell
from hpc_train.predict.checks import check_inputs
from hpc_train.predict.samples import RunSamples
from hpc_train.predict.writing import REMEDY

_BATCH_SIZE = 256


def predict(options, record: dict, path: Path, model, output: Path) -> None:
    """Write probabilities to `output` and print accuracy and confusion matrix.

    Args:
        options: `command.Predict`.
        record: the content of run.json.
        path: of the model.
        model: a Keras model that gives logits (b, classes).
        output: .h5 or .csv.

    Raises:
        UserError: the data cannot be read, or do not fit the model.
    """
    classes = model.output_shape[-1]
    if options.data.suffix == ".npy":
        samples, shape, names, read = open_npy(options.data)
        inputs = (Part("input", "", (), tuple(shape), read(np.arange(1))[0].dtype),)
    else:
        samples, inputs, names, read = _open_data(options, record, model, classes)
    check_inputs(model, inputs, options.data)
    if names is not None and len(names) != classes:
        raise UserError(
            f"{options.data}: has {len(names)} classes, but the model knows {classes}; give data of its classes"
        )
    probabilities, targets = [], []
    step = options.batch_size or _BATCH_SIZE
    for start in range(0, samples, step):
        inputs, labels = read(np.arange(start, min(start + step, samples)))
        probabilities.append(softmax(np.asarray(model.predict_on_batch(inputs), "float64")))
        targets.append(labels)
    probabilities = np.concatenate(probabilities).astype("float32")
    targets = np.concatenate(targets) if names is not None else None
    names = names or [str(i) for i in range(classes)]
    write = _write_csv if output.suffix == ".csv" else _write_hdf5
    write(output, probabilities, targets, names)
    if targets is not None:
        matrix = confusion_matrix(targets, probabilities.argmax(1), classes)
        say(table(matrix, names))
        say(f"accuracy {np.trace(matrix) / matrix.sum():.4f} of {matrix.sum()} samples, {path}")
    say(f"probabilities of {samples} samples in {output}")


def open_npy(path: Path):
    """Open a NumPy file of samples without labels.

    Returns:
        The number of samples, the shape of one, None for the names of classes, and a function from row numbers to
        (inputs (b, ...), None).

    Raises:
        UserError: it cannot be read.
    """
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"--data {path} cannot be read as a NumPy array ({error}); write it with numpy.save") from error
    if array.ndim < 2 or not len(array):
        raise UserError(f"--data {path} has shape {array.shape}; give samples along the first axis")
    return len(array), array.shape[1:], None, lambda rows: (np.asarray(array[rows[0] : rows[-1] + 1]), None)


def _open_data(options, record: dict, model, classes: int):
    """(number of samples, inputs of one, names of classes, function from numbers to inputs and labels)."""
    catalogue = options.of_run(record.get("options", {}), options.data).catalogue(options.split)
    # Class numbers in data sets whose number of classes nothing says are those that the model knows.
    names = list(catalogue.class_names) or [str(i) for i in range(catalogue.classes or classes)]
    catalogue = replace(catalogue, classes=len(names))
    if not catalogue.encoding:
        run = RunSamples(catalogue, record, model)

        def read(numbers):
            given, stored = run.read(numbers)
            return given, next((stored[part.label] for part in catalogue.targets), None)

        return catalogue.samples, run.inputs, names if catalogue.targets else None, read
    from hpc_train.data.reading.encoded_reader import open_reader
    from hpc_train.data.tensors.jpeg import DecodedReader

    # Resize images to the model's size; the caller compares the shapes.
    shape = model.input_shape
    catalogue = catalogue.resized(shape[1] or catalogue.input_shape[0]) if len(shape) == 4 else catalogue
    return catalogue.samples, catalogue.inputs, names, DecodedReader(open_reader(catalogue)).read


def _write_hdf5(path: Path, probabilities, targets, names) -> None:
    with atomic_path(path, REMEDY) as temporary, open_hdf5(temporary, "w") as file:
        file["probabilities"] = probabilities
        file["predicted"] = probabilities.argmax(1)
        if targets is not None:
            file["targets"] = targets
        file.attrs["class_names"] = names


def _write_csv(path: Path, probabilities, targets, names) -> None:
    with atomic_path(path, REMEDY) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", *(["target"] if targets is not None else []), "predicted", *map(cell, names)])
        for i, row in enumerate(probabilities):
            label = [targets[i]] if targets is not None else []
            writer.writerow([i, *label, row.argmax(), *(f"{p:.6g}" for p in row)])
