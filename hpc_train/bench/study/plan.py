"""The jobs of a study, in their order."""

import re
from dataclasses import dataclass, replace

from hpc_train.bench.study.measurements import OURS
from hpc_train.errors import UserError


@dataclass(frozen=True)
class Job:
    """One process group: a size, a repeat, a variant of a sweep, a framework."""

    ranks: int
    repeat: int
    """From 1."""
    modes: tuple[str, ...]
    """The curves that have it as a point: weak, strong or both."""
    variant: tuple[tuple[str, str], ...] = ()
    """(name, value) of everything in the sweep."""
    place: int = 0
    """Of the variant in the sweep; 0 is the base."""
    changed: str = ""
    """What the variant changes from the base, NAME=VALUE; empty for the base."""
    batch_size: int | None = None
    """Of a rank, if it differs from the command's: in strong scaling."""
    framework: str = OURS

    @property
    def name(self) -> str:
        """The name of its files, without the ending."""
        parts = [f"ranks-{self.ranks:05}", "strong" * (self.modes == ("strong",) and self.batch_size is not None)]
        parts += [self.changed, self.framework * (self.framework != OURS), f"repeat-{self.repeat}"]
        return "-".join(part for part in parts if part)

    @property
    def file(self) -> str:
        """The file of its measurement."""
        return f"{self.name}.json"

    @property
    def described(self) -> str:
        """The job in words."""
        strong = f"batch {self.batch_size} a rank" if self.batch_size else ""
        framework = self.framework * (self.framework != OURS)
        parts = [f"{self.ranks} rank{'s' * (self.ranks > 1)}", strong, self.changed, framework, f"repeat {self.repeat}"]
        return ", ".join(part for part in parts if part)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that the variant sets."""
        return {name: value for name, value in self.variant if _is_variable(name)}

    @property
    def options(self) -> list[str]:
        """The words that are added to the benchmark's command line."""
        words = [] if self.batch_size is None else ["--batch-size", str(self.batch_size)]
        for name, value in self.variant:
            option = name.replace("_", "-")
            if value in ("True", "False"):
                words.append(f"--{option}" if value == "True" else f"--no-{option}")
            elif not _is_variable(name):
                words += [f"--{option}", value]
        return words


def sizes_of(text: str) -> list[int]:
    """Read the numbers of `--np 1,2,4`, smallest first.

    Raises:
        UserError: the text is of another form.
    """
    try:
        sizes = sorted({int(number) for number in text.split(",")})
    except ValueError:
        sizes = [0]
    if sizes[0] < 1:
        raise UserError(f"--np {text}: give numbers of ranks with commas between them, as in --np 1,2,4")
    return sizes


def sweep_of(words: tuple[str, ...]) -> dict[str, list[str]]:
    """Read the values of `--sweep bucket_mib=1,8 HOROVOD_CYCLE_TIME=1,5`, by name.

    Raises:
        UserError: a word is of another form, or a name or value is there twice.
    """
    sweep: dict[str, list[str]] = {}
    for word in words:
        name, equals, listed = word.partition("=")
        name = name if _is_variable(name) else name.lstrip("-").replace("-", "_")
        values = listed.split(",")
        if not equals or not name or not all(re.fullmatch(r"[\w.+-]+", value) for value in values):
            raise UserError(f"--sweep {word}: give NAME=VALUE,VALUE,..., as in --sweep bucket_mib=1,8,32")
        if name in sweep or len(set(values)) < len(values):
            raise UserError(f"--sweep {word}: {name} or one of its values is there twice; give each once")
        if len(values) < 2:
            raise UserError(f"--sweep {word}: one value is no sweep; put it into the command, or give another value")
        sweep[name] = values
    return sweep


def variants(sweep: dict[str, list[str]]) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    """(what is changed, all values) of the base, which has the first value of everything, and of each single change."""
    base = {name: values[0] for name, values in sweep.items()}
    changes = [(name, value) for name, values in sweep.items() for value in values[1:]]
    return [("", tuple(base.items())), *((f"{n}={v}", tuple({**base, n: v}.items())) for n, v in changes)]


def jobs(
    sizes: list[int], repeats: int, mode: str, sweep: dict[str, list[str]], batch_size: int, peers: tuple[str, ...] = ()
) -> list[Job]:
    """Make all jobs in the order in which they run: repeat after repeat, each beginning with another size.

    Args:
        sizes: numbers of ranks, smallest first.
        repeats: jobs of each kind.
        mode: weak, strong or both. In strong scaling the global batch is that of the smallest size, so this size is a
            point of both curves.
        sweep: as `sweep_of` returns it.
        batch_size: of a rank, as in the command.
        peers: frameworks to run beside ours, only at the base of the sweep.

    Raises:
        UserError: the global batch of strong scaling does not divide among the ranks.
    """
    once = []
    for ranks in sizes:
        for modes, batch in _points(ranks, sizes[0], mode, batch_size):
            for place, (changed, variant) in enumerate(variants(sweep)):
                once.append(Job(ranks, 0, modes, variant, place, changed, batch))
                beside = peers if place == 0 else ()
                once += [Job(ranks, 0, modes, variant, 0, "", batch, framework) for framework in beside]
    everything = []
    for repeat in range(repeats):
        start = repeat * len(once) // repeats
        everything += [replace(job, repeat=repeat + 1) for job in once[start:] + once[:start]]
    return everything


def _points(ranks: int, smallest: int, mode: str, batch_size: int) -> list[tuple[tuple[str, ...], int | None]]:
    if ranks == smallest:
        return [(("weak", "strong") if mode == "both" else (mode,), None)]
    points: list[tuple[tuple[str, ...], int | None]] = [(("weak",), None)] if mode != "strong" else []
    if mode != "weak":
        whole = batch_size * smallest
        if whole % ranks:
            raise UserError(
                f"--mode {mode}: the global batch, {whole} samples (--batch-size {batch_size} on {smallest}), does not "
                f"divide among {ranks} ranks; choose another --batch-size"
            )
        points.append((("strong",), whole // ranks))
    return points


def _is_variable(name: str) -> bool:
    return re.fullmatch(r"[A-Z][A-Z0-9_]*", name) is not None
