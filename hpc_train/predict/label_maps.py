"""Predictions of label maps: masks in a NetCDF file, scores where there are labels, and pictures."""

import sys
import textwrap
import time
from pathlib import Path

import numpy as np

from hpc_train import __version__
from hpc_train.console import say
from hpc_train.data.catalogue.layout import CLIMATE_CLASSES
from hpc_train.errors import UserError
from hpc_train.files import write_json
from hpc_train.metrics import confusion
from hpc_train.predict import shown_fields
from hpc_train.predict.map_source import MapSource, open_data, open_npy
from hpc_train.predict.netcdf import mask_file

# Letters in a line above a picture.
_TITLE = 105


def predict(options, folder, path: Path, model, output: Path) -> None:
    """Predict sample by sample; at no time are the maps of more than one step in memory.

    Writes the masks to `output`, the confusion matrix of labelled data beside it as JSON, where `hpc-train report`
    finds it, and the pictures that were asked for.

    Args:
        options: `command.Predict`.
        folder: `run.Run`.
        path: of the model.
        model: a Keras model that gives logits (b, height, width, classes).
        output: .nc.

    Raises:
        UserError: data that cannot be read, or that the model does not take.
    """
    record = folder.record()
    if options.data.suffix == ".npy":
        source = open_npy(options.data)
    else:
        source = open_data(options.data, options.split, record.get("options", {}))
    classes = model.output_shape[-1]
    names = _class_names(source, classes, options.data)
    _check_shape(model.input_shape, source.shape, options.data)
    _check_dtype(np.dtype(model.inputs[0].dtype), source, options.data)
    _check_packing(model, source, options.data)
    drawn = _drawn(options, source.samples)
    channels = 1 if source.channel_axis is None else source.shape[source.channel_axis]
    shown = shown_fields.choose(source.channel_names, channels, options.show) if drawn else []
    if source.grid.assumed:
        height, width = len(source.grid.latitudes), len(source.grid.longitudes)
        say(f"{options.data} does not say where its maps lie: taken as a global {height} x {width} grid from the south")
    pictures = _Pictures(output, source, shown, names, options.region) if drawn else None
    total, of_samples, ignored = np.zeros((classes, classes), np.int64), [], 0
    timed = source.time(0)
    calendar = timed and timed.calendar
    about = _attributes(options, path, record, source)
    with mask_file(output, source.grid, names, source.labelled, options.probabilities, calendar, about) as file:
        for number, sample, truth, probabilities in _samples(source, model, options.batch_size or 1):
            predicted = probabilities.argmax(-1).astype(np.int8)
            masks = [predicted] if truth is None else [predicted, truth]
            when = source.time(number) if timed else None
            file.add(source.place(number), when, masks, probabilities if options.probabilities else None)
            matrix = None
            if truth is not None:
                counts = truth >= 0
                matrix = confusion.confusion_matrix(truth[counts], predicted[counts], classes)
                total += matrix
                of_samples.append(confusion.sample_iou(matrix))
                ignored += int(np.sum(~counts))
            if number in drawn:
                pictures.draw(number, sample, predicted, truth, matrix, when)
    if source.labelled:
        _tell(total, names, of_samples, ignored, path)
        found = {"run": str(folder.path), "model": str(path), "data": str(options.data), "split": options.split}
        found |= {"samples": source.samples, "class_names": names, "confusion_matrix": total.tolist()}
        scored = output.with_suffix(".json")
        try:
            write_json(scored, found)
        except OSError as error:
            raise UserError(f"cannot write the scores, {scored}: {error.strerror}") from error
    say(f"masks of {source.samples} samples in {output}")


def _samples(source: MapSource, model, step: int):
    """(number, inputs (h, w, channels) as stored, truth (h, w) or None, probabilities (h, w, classes)) of each."""
    for start in range(0, source.samples, step):
        numbers = np.arange(start, min(start + step, source.samples))
        inputs, truth = source.read(numbers)
        logits = np.asarray(model.predict_on_batch(inputs), np.float64)
        for place, number in enumerate(numbers):
            one = source.channels_last(inputs[place])
            yield int(number), one, None if truth is None else truth[place], confusion.softmax(logits[place])


class _Pictures:
    """Draws samples beside the output."""

    def __init__(self, output: Path, source: MapSource, shown, names, region):
        from hpc_train.plotting import new_figure
        from hpc_train.predict import coastlines

        # Found out before the first prediction rather than after it.
        new_figure(1, 1)
        source.grid.part(region)
        if coastlines.coastlines(0.0) is None:
            say(f"note: no coastlines in the pictures: pip install {coastlines.PACKAGE}", sys.stderr)
        self.output, self.source, self.shown, self.names, self.region = output, source, shown, names, region

    def draw(self, number: int, sample, predicted, truth, matrix, when) -> None:
        from hpc_train.predict.maps import Panel, draw

        file, row = self.source.place(number)
        title = f"sample {number}: row {row} of {Path(file).name}"
        known = ([f"{when:%Y-%m-%d %H:%M}"] if when else []) + [", ".join(self.source.storms(number))]
        title += "".join(f"\n{line}" for line in textwrap.wrap("  ".join(known), _TITLE))
        if matrix is not None:
            of_classes = list(zip(self.names, confusion.iou(matrix), strict=True))[1:]
            figures = [f"{name} {'none here' if np.isnan(value) else f'{value:.2f}'}" for name, value in of_classes]
            title += f"\nIoU on this map: {', '.join(figures)}"
        panels = [Panel(field.title, field.units, field.of(sample, self.source.packing)) for field in self.shown]
        path = self.output.with_name(f"{self.output.stem}-{number:05}.png")
        draw(path, title, panels, self.source.grid, self.names, predicted, truth, self.region)
        say(f"map of sample {number} in {path}")


def _tell(matrix, names, of_samples, ignored: int, path: Path) -> None:
    say(confusion.segmentation_table(matrix, names))
    left_out = f", {ignored} not labelled" if ignored else ""
    accuracy = np.trace(matrix) / max(1, matrix.sum())
    say(
        f"mean IoU {confusion.mean_iou(matrix):.4f}, accuracy {accuracy:.4f} of {matrix.sum()} pixels{left_out}; "
        f"sample IoU (DeepCAM's) {np.mean(of_samples):.4f} of {len(of_samples)} samples, {path}"
    )


def _class_names(source: MapSource, classes: int, data: Path) -> list[str]:
    if source.classes not in (0, classes):
        raise UserError(f"the model knows {classes} classes, {data} has {source.classes}; give data of its classes")
    if source.class_names:
        return list(source.class_names)
    return list(CLIMATE_CLASSES) if classes == len(CLIMATE_CLASSES) else [f"class{i}" for i in range(classes)]


def _check_shape(takes, shape, data: Path) -> None:
    takes = tuple(takes[1:])
    if len(takes) != len(shape) or any(wanted not in (None, given) for wanted, given in zip(takes, shape, strict=True)):
        raise UserError(f"the model takes samples of {takes}, {data} holds {tuple(shape)}")


def _check_dtype(takes: np.dtype, source: MapSource, data: Path) -> None:
    # A model of packed integers unpacks them, and no other: Keras would turn what it is given into integers.
    packed = any(pair != (1.0, 0.0) for pair in source.packing)
    if takes != source.dtype and (takes.kind != "f" or packed):
        held = f"{source.dtype}{' packed' * packed}"
        raise UserError(f"the model takes numbers stored as {takes}, {data} holds {held}; give data of that form")


def _check_packing(model, source: MapSource, data: Path) -> None:
    from hpc_train.models.inputs import UNPACK

    layer = next((layer for layer in model.layers if layer.name == UNPACK), None)
    if layer is None:
        return
    trained = tuple(zip(layer.scale, layer.offset, strict=True))
    if trained != source.packing:
        raise UserError(
            f"{data} has its values packed by (scale, offset) {source.packing}, those for training were by {trained}; "
            "bring them into one form with `hpc-train shard`"
        )


def _drawn(options, samples: int) -> set[int]:
    for number in options.samples:
        if not 0 <= number < samples:
            raise UserError(f"--samples {number}: {options.data} has samples 0 to {samples - 1}")
    spread = np.linspace(0, samples - 1, min(options.maps, samples)).round().astype(int)
    return {*options.samples, *spread.tolist()}


def _attributes(options, path: Path, record: dict, source: MapSource) -> dict[str, str]:
    data = options.data if options.data.suffix == ".npy" else f"{options.data}, split {options.split}"
    return {
        "title": "Classes of pixels predicted by a neural network",
        "source": f"hpc-train {__version__}, model {path}, trained as {record.get('facts', {}).get('trainer', '?')}",
        "history": f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} hpc-train predict {options.run} --data {options.data}",
        "run": str(options.run),
        "data": str(data),
        "channels": " ".join(source.channel_names),
    }
