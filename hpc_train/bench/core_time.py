"""What cores did during a measurement: for it, and for all else on this machine."""

import time

import psutil


class CoreTime:
    """A context. elapsed: seconds in it; own: core-seconds of this process and its children; others: cores, on average,
    of all other work."""

    def __enter__(self) -> "CoreTime":
        machine, own = _machine(), _own()
        self._begun = time.perf_counter(), machine, own
        return self

    def __exit__(self, *_) -> None:
        end = time.perf_counter()
        begun, machine, own = self._begun
        self.elapsed = end - begun
        self.own = _own() - own
        self.others = max(0.0, _machine() - machine - self.own) / self.elapsed


def _machine() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def _own() -> float:
    process = psutil.Process()
    seconds = sum(process.cpu_times()[:4])
    for child in process.children(recursive=True):
        seconds += sum(child.cpu_times()[:2])
    return seconds
