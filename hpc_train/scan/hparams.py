"""Fills the HPARAMS tab of TensorBoard: a table and charts of all trials, for `tensorboard --logdir STUDY`.

Everything is written with TensorBoard's own messages and without TensorFlow, which the process of a scan does not
import. A trial's scores are the scalars that Keras wrote in its folder tensorboard/validation.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc_train.files.whole import atomic_path, remove, writing

# TensorBoard reads every file with "tfevents" in its name. That of a temporary file ends with the last 32 letters of
# these, where the word is not: what a killed writer leaves is not read.
_FILE = "events.out.tfevents.{order}.hpc-train-scan.hparams-{kind}"
_EXPERIMENT = _FILE.format(order=0, kind="of-this-study")
_START = _FILE.format(order=1, kind="session-start")
_END = _FILE.format(order=2, kind="session-ended")


def write_experiment(study: Path, distributions: Mapping[str, Any], objective: str, direction: str) -> None:
    """Write which parameters are searched and by which score trials are compared, once a study.

    Args:
        study: the study's folder.
        distributions: Optuna's, by the names of the parameters.
        objective: name of the metric, without `val_`.
        direction: "max" or "min".

    Raises:
        NotWritten: the file cannot be written.
    """
    from tensorboard.plugins.hparams import summary_v2 as summary

    described = f"{'The larger, the better' if direction == 'max' else 'The smaller, the better'}; of the last epoch"
    metric = summary.Metric(
        f"epoch_{objective}", "validation", f"val_{objective}", described, summary.Metric.VALIDATION
    )
    parameters = [summary.HParam(name, _domain(one)) for name, one in distributions.items()]
    _write(study / _EXPERIMENT, summary.hparams_config_pb(parameters, [metric], time.time()))


def write_session(
    trial: Path, number: int, params: Mapping[str, Any], state: str, distributions: Mapping[str, Any] | None = None
) -> None:
    """Write a trial's parameters and how it ended; what was written of an earlier try is replaced.

    TensorBoard's filter of states knows a trial that is complete as a success, one that failed as a failure, and one
    that is open or was pruned as unknown.

    Args:
        trial: the trial's folder.
        number: the trial's number, its name in the table.
        params: values by the names of the parameters.
        state: "open", "complete", "pruned" or "failed".
        distributions: as of `write_experiment`; needed where choices are of several types, such as 1 and "auto".

    Raises:
        NotWritten: a file cannot be written.
    """
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
    from tensorboard.plugins.hparams import summary_v2 as summary

    folder = trial / "tensorboard"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    kinds = distributions or {}
    values = {name: _value(value, kinds.get(name)) for name, value in params.items()}
    # A file for each, since a TensorBoard that runs already does not read again what it has read.
    _write(folder / _START, summary.hparams_pb(values, f"{number:05}", time.time()))
    if state == "open":
        remove([folder / _END])
        return
    status = {"complete": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE}.get(state, api_pb2.STATUS_UNKNOWN)
    ended = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    _write(folder / _END, _session_end(ended))


def _session_end(ended):
    """The summary of a session's end; TensorBoard's own function for it imports TensorFlow."""
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended))
    summary = summary_pb2.Summary()
    summary.value.add(tag=metadata.SESSION_END_INFO_TAG, metadata=content, tensor=metadata.NULL_TENSOR)
    return summary


def _domain(distribution):
    """TensorBoard's description of the values that a parameter can have."""
    from tensorboard.plugins.hparams import summary_v2 as summary

    choices = getattr(distribution, "choices", None)
    if choices is None:
        low, high = distribution.low, distribution.high
        kind = summary.IntInterval if isinstance(low, int) else summary.RealInterval
        return kind(low, high)
    values = dict.fromkeys(_value(one, distribution) for one in choices)
    # TensorBoard has one type for all numbers.
    return summary.Discrete([float(one) if _kind(one) is float else one for one in values])


def _value(value, distribution=None):
    """A parameter's value as TensorBoard can sort and filter it: text where choices are of several types."""
    kinds = {_kind(one) for one in getattr(distribution, "choices", (value,))}
    return value if kinds in ({bool}, {float}) else str(value)


def _kind(value) -> type:
    if isinstance(value, bool):
        return bool
    return float if isinstance(value, int | float) and math.isfinite(value) else str


def _write(path: Path, summary) -> None:
    """Write one event with a summary as a file of TensorBoard, whole or not at all."""
    from tensorboard.compat.proto import event_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = time.time()
    events = (
        event_pb2.Event(wall_time=now, file_version="brain.Event:2"),
        event_pb2.Event(wall_time=now, summary=summary),
    )
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        records = RecordWriter(file)
        for event in events:
            records.write(event.SerializeToString())
