"""The log of an MLPerf HPC benchmark: a line for each thing that happened (mlcommons/logging, `hpc_3.0.0`)."""

import json
import os
import time
from pathlib import Path

import keras
import psutil

from hpc_train.console import say

# Of each benchmark: the metric of validation that counts, and the value to reach.
_TARGET = {"deepcam": ("val_mean_iou", 0.82)}
_REACHED = "target_accuracy_reached"


class Log(keras.callbacks.Callback):
    """Appends to the log of a run.

    Each start adds its own lines: what it did, and nothing that a start before it has done.

    Args:
        path: of the log.
        benchmark: MLPerf's name of it.
        settings: what holds for the whole training, by MLPerf's names.
        began: when this start first touched the data, in seconds since 1970.
        rates: returns the learning rates by name.
    """

    def __init__(self, path: Path, benchmark: str, settings: dict, began: float, rates):
        super().__init__()
        self._path, self._rates = path, rates
        self._metric, self._target = _TARGET[benchmark]
        self._broken = self._trained = False
        self._epoch: int | None = None
        path.parent.mkdir(exist_ok=True)
        self._reached = path.exists() and _REACHED in path.read_text()
        self._add("INTERVAL_START", "init_start", at=psutil.Process().create_time())
        self._add("POINT_IN_TIME", "submission_benchmark", benchmark, at=began)
        # Networks and recipe are not the reference's.
        self._add("POINT_IN_TIME", "submission_division", "open", at=began)
        for name in ("org", "platform", "status"):
            if given := os.environ.get(f"MLPERF_SUBMISSION_{name.upper()}"):
                self._add("POINT_IN_TIME", f"submission_{name}", given, at=began)
        self._add("INTERVAL_END", "init_stop", at=began)
        self._add("INTERVAL_START", "run_start", at=began)
        for name, value in settings.items():
            self._add("POINT_IN_TIME", name, value)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1
        self._add("INTERVAL_START", "epoch_start")
        for name, value in self._rates().items():
            self._add("POINT_IN_TIME", name, value)

    def on_test_begin(self, logs=None):
        self._add("INTERVAL_START", "eval_start")

    def on_test_end(self, logs=None):
        self._add("INTERVAL_END", "eval_stop")

    def on_epoch_end(self, epoch, logs=None):
        if (reached := (logs or {}).get(self._metric)) is not None:
            self._add("POINT_IN_TIME", "eval_accuracy", float(reached))
            if reached >= self._target and not self._reached:
                self._reached = True
                self._add("POINT_IN_TIME", _REACHED, self._target)
        self._add("INTERVAL_END", "epoch_stop")

    def end(self) -> None:
        """Log the end of this start."""
        self._epoch = None
        self._add("INTERVAL_END", "run_stop", status="success" if self._reached else "aborted")

    def _add(self, kind: str, key: str, value=None, at: float | None = None, **metadata) -> None:
        if self._epoch is not None:
            metadata["epoch_num"] = self._epoch
        line = {
            "namespace": "",
            "time_ms": int((time.time() if at is None else at) * 1000),
            "event_type": kind,
            "key": key,
            "value": value,
            "metadata": metadata,
        }
        if self._broken:
            return
        try:
            with open(self._path, "a") as file:
                file.write(f":::MLLOG {json.dumps(line)}\n")
        except OSError as error:
            self._broken = True
            say(f"warning: --track mlperf: cannot write {self._path}: {error.strerror}; training goes on without it")


def settings(options, world, assembly) -> dict:
    """What holds for the whole training, by the names of MLPerf's constants and of DeepCAM's reference.

    Args:
        options: of the climate trainer.
        world: the ranks.
        assembly: what is trained.
    """
    plan, schedule = assembly.plan, assembly.rates.schedule
    here = options.batch_size
    values = {
        "seed": options.seed,
        "number_of_ranks": world.size,
        "number_of_nodes": world.nodes,
        "global_batch_size": plan.global_batch,
        "gradient_accumulation_frequency": options.accumulate,
        "batchnorm_group_size": here * world.size if options.sync_batch_norm else here,
        "opt_name": {"sgd": "SGD", "adam": "Adam", "lamb": "LAMB"}[options.optimizer],
        "opt_layerwise": options.layerwise,
        "opt_lr": schedule.peak,
        "opt_weight_decay": options.weight_decay,
        "scheduler_type": {"cosine": "cosine_annealing", "step": "multistep"}.get(options.decay, options.decay),
        "scheduler_lr_warmup_steps": round(options.warmup_epochs * plan.steps()),
        "scheduler_lr_warmup_factor": schedule.peak / schedule.start,
        "train_samples": plan.samples,
        "eval_samples": assembly.feed.held_out.samples,
    }
    if options.optimizer == "sgd":
        return values | {"opt_momentum": options.momentum}
    config = getattr(keras.optimizers, values["opt_name"].capitalize())().get_config()
    return values | {"opt_betas": [config["beta_1"], config["beta_2"]], "opt_eps": config["epsilon"]}
