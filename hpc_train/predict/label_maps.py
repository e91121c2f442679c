"""Predicts label maps: masks in a NetCDF file, scores if there are labels, and pictures."""

import sys
import textwrap
import time
from pathlib import Path

import numpy as np

from hpc_train import __version__
from hpc_train.console import say
from hpc_train.data.catalogue.layout import CLIMATE_CLASSES
from hpc_train.errors import UserError
from hpc_train.files.json_file import write_json
from hpc_train.metrics import confusion
from hpc_train.metrics.unfound import advice, never_predicted
from hpc_train.predict import coastlines, shown_fields
from hpc_train.predict.checks import check_inputs, samples_drawn
from hpc_train.predict.map_source import MapSource, open_data, open_npy
from hpc_train.predict.netcdf import mask_file
from hpc_train.predict.writing import REMEDY

# Longest line above a picture.
_TITLE = 105


def predict(options, folder, path: Path, model, output: Path) -> None:
    """Predict sample by sample; the maps of at most one step are in memory.

    Writes the masks to `output`, the confusion matrix of labelled data beside it as JSON, where `hpc-train report`
    finds it, and the pictures that were asked for.

    Args:
        options: `command.Predict`.
        folder: `training.run_folder.Run`.
        path: of the model.
        model: a Keras model that gives logits (b, height, width, classes).
        output: .nc.

    Raises:
        UserError: the data cannot be read, or do not fit the model.
    """
    record = folder.record()
    source = _open(options, record)
    names = _class_names(source, model.output_shape[-1], options, record.get("facts", {}))
    check_inputs(model, source.inputs, options.data)
    drawn = samples_drawn(options, source.samples)
    _print_assumed(source.grid, options.data)
    pictures = _Pictures(options, output, source, names) if drawn else None
    scores = _Scores(names)
    timed = source.time(0)
    calendar = timed and timed.calendar
    about = _attributes(options, path, record, source)
    with mask_file(output, source.grid, names, source.labelled, options.probabilities, calendar, about) as file:
        for number, sample, truth, probabilities in _samples(source, model, options.batch_size or 1):
            predicted = probabilities.argmax(-1).astype(np.int8)
            masks = [predicted] if truth is None else [predicted, truth]
            when = source.time(number) if timed else None
            file.add(source.place(number), when, masks, probabilities if options.probabilities else None)
            matrix = None if truth is None else scores.add(truth, predicted)
            if number in drawn:
                pictures.draw(number, sample, predicted, truth, matrix, when)
    if source.labelled:
        scores.print(path)
        if missed := never_predicted(scores.total, names):
            say(advice(missed, "never predicted", record.get("options", {})))
        sources = {"run": str(folder.path), "model": str(path), "data": str(options.data), "split": options.split}
        scores.write(output.with_suffix(".json"), sources)
    say(f"masks of {source.samples} samples in {output}")


def _open(options, record: dict) -> MapSource:
    if options.data.suffix == ".npy":
        return open_npy(options.data, record.get("facts", {}), options.geometry)
    return open_data(options.data, options.split, record.get("options", {}), options, record.get("facts", {}))


def _print_assumed(grid, data: Path) -> None:
    if grid.assumed:
        size = f"{len(grid.latitudes)} x {len(grid.longitudes)}"
        first, kind = grid.latitudes[0], "global" if grid.geometry == "globe" else "regional"
        side = "south" if first < grid.latitudes[-1] else "north"
        say(f"{data} does not say where its maps lie; assumed: a {kind} {size} grid, from the {side}")
    elif not grid.geometry:
        say(
            f"{data} does not say where its maps lie; they are taken for plain pictures (for global maps give "
            "--geometry globe)"
        )


def _samples(source: MapSource, model, step: int):
    """(number, inputs (h, w, channels) as stored, truth (h, w) or None, probabilities (h, w, classes)) of each."""
    for start in range(0, source.samples, step):
        numbers = np.arange(start, min(start + step, source.samples))
        inputs, truth = source.read(numbers)
        logits = np.asarray(model.predict_on_batch(inputs), np.float64)
        for place, number in enumerate(numbers):
            one = source.channels_last(inputs[place])
            yield int(number), one, None if truth is None else truth[place], confusion.softmax(logits[place])


class _Scores:
    """The confusion matrix of labelled samples, and the scores that follow from it."""

    def __init__(self, names: list[str]):
        self.names, self.of_samples, self.ignored = names, [], 0
        self.total = np.zeros((len(names), len(names)), np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Count one sample; returns its confusion matrix."""
        counts = truth >= 0
        matrix = confusion.confusion_matrix(truth[counts], predicted[counts], len(self.names))
        self.total += matrix
        self.of_samples.append(confusion.sample_iou(matrix))
        self.ignored += int(np.sum(~counts))
        return matrix

    def print(self, path: Path) -> None:
        say(confusion.segmentation_table(self.total, self.names))
        left_out = f", {self.ignored} not labelled" if self.ignored else ""
        pixels = self.total.sum()
        say(
            f"mean IoU {confusion.mean_iou(self.total):.4f}, "
            f"accuracy {np.trace(self.total) / max(1, pixels):.4f} of {pixels} pixels{left_out}; "
            f"sample IoU (DeepCAM's) {np.mean(self.of_samples):.4f} of {len(self.of_samples)} samples, {path}"
        )

    def write(self, path: Path, sources: dict[str, str]) -> None:
        found = {"samples": len(self.of_samples), "class_names": self.names, "confusion_matrix": self.total.tolist()}
        write_json(path, sources | found, REMEDY)


class _Pictures:
    """Draws samples beside the output."""

    def __init__(self, options, output: Path, source: MapSource, names):
        from hpc_train.plotting import new_figure

        channels = 1 if source.channel_axis is None else source.shape[source.channel_axis]
        self.plain = source.grid.geometry in ("picture", "")
        # One channel without a choice is grey, three are red, green and blue.
        self.whole = self.plain and channels in (1, 3) and not (options.show or source.channel_names)
        self.shown = shown_fields.choose(source.channel_names, channels, options.show)
        # Raise errors before the first prediction, not after it.
        new_figure(1, 1)
        source.grid.part(options.region)
        if not source.grid.numbered and coastlines.coastlines(0.0) is None:
            say(f"note: no coastlines in the pictures: pip install {coastlines.PACKAGE}", sys.stderr)
        self.output, self.source, self.names, self.region = output, source, names, options.region

    def draw(self, number: int, sample, predicted, truth, matrix, when) -> None:
        from hpc_train.predict.maps import Panel, draw
        from hpc_train.predict.pictures import draw_pictures

        file, row = self.source.place(number)
        title = f"sample {number}: row {row} of {Path(file).name}"
        known = ([f"{when:%Y-%m-%d %H:%M}"] if when else []) + [", ".join(self.source.storms(number))]
        title += "".join(f"\n{line}" for line in textwrap.wrap("  ".join(known), _TITLE))
        if matrix is not None:
            of_classes = list(zip(self.names, confusion.iou(matrix), strict=True))[1:]
            figures = [f"{name} {'none here' if np.isnan(value) else f'{value:.2f}'}" for name, value in of_classes]
            title += f"\nIoU on this {'picture' if self.plain else 'map'}: {', '.join(figures)}"
        packing = self.source.packing
        panels = [Panel(field.title, field.units, field.of(sample, packing)) for field in self.shown]
        path = self.output.with_name(f"{self.output.stem}-{number:05}.png")
        if self.whole:
            panels = [Panel("picture", "", shown_fields.values(sample, packing))]
        if self.plain:
            draw_pictures(path, title, panels, self.names, predicted, truth)
        else:
            draw(path, title, panels, self.source.grid, self.names, predicted, truth, self.region)
        say(f"{'picture' if self.plain else 'map'} of sample {number} in {path}")


def _class_names(source: MapSource, classes: int, options, facts: dict) -> list[str]:
    """Of the command line or the data, else of training; those of the climate data where only their maps are known."""
    if source.classes not in (0, classes):
        raise UserError(
            f"{options.data}: has {source.classes} classes, but the model knows {classes}; give data of its classes"
        )
    names = source.class_names or options.class_names or facts.get("class_names")
    if names and len(names) == classes:
        return list(names)
    if options.class_names:
        raise UserError(f"--class-names has {len(names)} names, but the model knows {classes} classes; name each")
    # ClimateNet's files name no classes, nor did runs of earlier versions.
    return (
        list(CLIMATE_CLASSES)
        if source.climate and classes == len(CLIMATE_CLASSES)
        else [f"class{i}" for i in range(classes)]
    )


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
