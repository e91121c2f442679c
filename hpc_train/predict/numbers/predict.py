"""Predicts numbers: values in a file, errors of each channel if there are targets, and pictures."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from hpc_train import __version__
from hpc_train.console import say
from hpc_train.data.sample_checks import rows_not_finite
from hpc_train.errors import UserError
from hpc_train.files.json_file import write_json
from hpc_train.predict.checks import check_inputs, samples_drawn
from hpc_train.predict.numbers.drawn import Pictures
from hpc_train.predict.numbers.files import number_file
from hpc_train.predict.numbers.quantity import Quantity, as_target, describe, outputs, pair
from hpc_train.predict.numbers.scores import Scores
from hpc_train.predict.numbers.source import NumberSource
from hpc_train.predict.writing import REMEDY
from hpc_train.units import MIB

_BATCH_SIZE, _BATCH_BYTES = 256, 64 * MIB


@dataclass(frozen=True, eq=False)
class _Batch:
    """Samples in a step: their numbers, and for each output its name, predictions and targets (None without)."""

    numbers: np.ndarray
    names: list[str]
    predicted: list[np.ndarray]
    targets: list[np.ndarray | None]


def predict(options, record: dict, path: Path, model, output: Path, source: NumberSource) -> None:
    """Write predictions to `output`; with targets print the scores and write them beside it as JSON.

    Args:
        options: `command.Predict`.
        record: the content of run.json.
        path: of the model.
        model: a Keras model.
        output: .h5, .csv or .nc.
        source: of the samples.

    Raises:
        UserError: the data cannot be read, or do not fit the model.
    """
    check_inputs(model, source.inputs, options.data)
    drawn = samples_drawn(options, source.samples)
    batches = _batches(source, model, options.batch_size or _step(source), options.data)
    first = next(batches)
    quantities = _quantities(source, first)
    labelled = bool(source.targets)
    scores = [Scores(one) for one in quantities] if labelled else []
    pictures = Pictures(options, output, source, quantities, drawn) if drawn else None
    not_finite = 0
    with number_file(output, quantities, labelled, source, _attributes(options, path, record)) as add:
        for batch in chain([first], batches):
            add(batch.numbers, batch.predicted, batch.targets)
            not_finite += sum(len(rows_not_finite(values)) for values in batch.predicted)
            for place, one in enumerate(scores):
                one.add(batch.targets[place], batch.predicted[place])
            if pictures:
                pictures.add(batch.numbers, batch.predicted, batch.targets)
    if pictures:
        pictures.finish()
    for one in scores:
        say(one.text(path))
    if labelled:
        _write_scores(output.with_suffix(".json"), scores, options, path)
    if not_finite:
        say(f"note: {not_finite} predictions hold NaN or infinity", sys.stderr)
    say(f"predictions of {source.samples} samples in {output}")


def _batches(source: NumberSource, model, step: int, data: Path) -> Iterator[_Batch]:
    for start in range(0, source.samples, step):
        numbers = np.arange(start, min(start + step, source.samples))
        inputs, stored = source.read(numbers)
        found = outputs(model, model.predict_on_batch(inputs))
        order = pair([name for name, _ in found], source.targets, data)
        predicted, targets = [], []
        for (name, values), place in zip(found, order, strict=True):
            truth = None if place is None else stored[place]
            known = name if place is None else source.targets[place].name
            if values.shape[:1] != numbers.shape:
                raise UserError(f"the model predicts {known} of shape {values.shape} for {len(numbers)} samples")
            values = values if truth is None else as_target(known, values, truth)
            predicted.append(source.restore(values, known))
            targets.append(truth)
        yield _Batch(numbers, [name for name, _ in found], predicted, targets)


def _quantities(source: NumberSource, batch: _Batch) -> list[Quantity]:
    order = pair(batch.names, source.targets, "--data")
    known = [None if place is None else source.targets[place] for place in order]
    shapes = [values.shape[1:] for values in batch.predicted]
    return [describe(source, *one) for one in zip(known, batch.names, shapes, strict=True)]


def _step(source: NumberSource) -> int:
    sample = sum(part.bytes for part in source.inputs)
    sample += sum(4 * int(np.prod(target.shape)) for target in source.targets)
    return max(1, min(_BATCH_SIZE, _BATCH_BYTES // max(1, sample)))


def _write_scores(path: Path, scores: list[Scores], options, model: Path) -> None:
    about = {"run": str(options.run), "model": str(model), "data": str(options.data), "split": options.split}
    found = {one.quantity.name: one.as_dict() for one in scores}
    write_json(path, {**about, "samples": scores[0].samples, "scores": found}, REMEDY)


def _attributes(options, path: Path, record: dict) -> dict[str, str]:
    trainer = record.get("facts", {}).get("trainer", "?")
    return {
        "title": "Numbers predicted by a neural network",
        "source": f"hpc-train {__version__}, model {path}, trained as {trainer}",
        "history": f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} hpc-train predict {options.run} --data {options.data}",
        "run": str(options.run),
        "data": f"{options.data}, split {options.split}",
    }
