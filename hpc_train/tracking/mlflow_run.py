"""A run in MLflow: on the server that MLFLOW_TRACKING_URI names, or else in a database in the run folder."""

import logging
import os
import re
import time
from itertools import islice

from hpc_train.tracking.subject import FAILED, FINISHED, STOPPED, Subject

# The user's own settings hold. MLflow's defaults try for many minutes, and report its use to its makers.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_ID = "hpc_train.id"
_STATUS = {FINISHED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}
# What MLflow's servers take: characters of a value, parameters in a request, characters of a name.
_VALUE, _AT_ONCE = 500, 100
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")


class MLflowRun:
    """The run of a subject, found by its id or made.

    Raises:
        Exception: of MLflow or of what it uses.
    """

    def __init__(self, subject: Subject):
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        # They would print each try.
        for logger in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(logger).setLevel(logging.ERROR)
        here = f"sqlite:///{(subject.kept / 'mlflow.db').resolve()}"
        given = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(given or here)
        artifacts = None if given else (subject.kept / "artifacts").resolve().as_uri()
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or self._experiment(artifacts)
        found = self._client.search_runs([experiment], f"tags.`{_ID}` = '{subject.id}'", max_results=1)
        if found:
            [run] = found
            self._client.update_run(run.info.run_id, "RUNNING")
        else:
            run = self._client.create_run(experiment, tags={_ID: subject.id}, run_name=subject.folder.resolve().name)
        self._run = run.info.run_id
        self.last = max((one.step for one in self._client.get_metric_history(self._run, "epoch")), default=0)
        self._describe(subject, run.data.params)

    def _experiment(self, artifacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "hpc-train"
        if not (known := self._client.get_experiment_by_name(name)):
            try:
                return self._client.create_experiment(name, artifacts)
            except MlflowException:  # another job has just made it
                if not (known := self._client.get_experiment_by_name(name)):
                    raise
        return known.experiment_id

    def _describe(self, subject: Subject, known: dict[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        options = {name: str(value)[:_VALUE] for name, value in subject.options.items()}
        # MLflow's parameters never change: what another start was given is a tag.
        changed = {f"resumed.{name}": value for name, value in options.items() if known.get(name, value) != value}
        tags = subject.tags | changed
        both = ((Param, {name: options[name] for name in options if name not in known}), (RunTag, tags))
        for kind, values in both:
            left = iter([kind(_name(name), value[:_VALUE]) for name, value in values.items()])
            while batch := list(islice(left, _AT_ONCE)):
                self._client.log_batch(self._run, **{"params" if kind is Param else "tags": batch}, synchronous=True)

    def log(self, line: dict) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(_name(name), value, now, line["step"]) for name, value in line.items() if name != "step"]
        self._client.log_batch(self._run, values, synchronous=True)

    def end(self, status: str) -> None:
        self._client.set_terminated(self._run, _STATUS[status])


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("_", text)
