"""The space of a scan: what `lr=log:1e-4..1e-1 model=cnn,deep units=int:16..256` means, and all points of a grid."""

import ast
import itertools
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_train.errors import UserError
from hpc_train.files.json_file import read_text

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_FORMS = "write NAME=A,B,C, NAME=0.0..0.5, NAME=log:1e-4..1e-1, NAME=int:16..256 or NAME=int:16..256:16"
# The most points of a grid that are listed.
_MOST = 1_000_000
MARK = "build."


@dataclass(frozen=True)
class Dimension:
    """What one option may be.

    Args:
        kind: "choice", "float" or "int".
        choices: of a choice, as written.
        low, high: of a range, both included.
        step: between values of a range; None for any value.
        log: whether the range is searched by its logarithm.
    """

    kind: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False

    def distribution(self) -> "BaseDistribution":
        """The same for Optuna."""
        from optuna import distributions as of

        if self.kind == "choice":
            return of.CategoricalDistribution(self.choices)
        # Optuna wants the last value that the steps reach.
        high = self._exact(self.low + self._count(self.step) * self.step) if self.step else self.high
        if self.kind == "int":
            return of.IntDistribution(int(self.low), int(high), log=self.log, step=int(self.step or 1))
        return of.FloatDistribution(self.low, high, log=self.log, step=self.step)

    def values(self) -> list | None:
        """All values, in order; None where they are too many to try."""
        if self.kind == "choice":
            return list(self.choices)
        step = self.step or (1 if self.kind == "int" and not self.log else None)
        if not step:
            return None
        count = self._count(step)
        if count >= _MOST:
            return None
        return [self._exact(self.low + place * step) for place in range(count + 1)]

    def _exact(self, value: float) -> float:
        """A value without the noise of sums of steps."""
        return int(value) if self.kind == "int" else float(f"{value:.12g}")

    def _count(self, step: float) -> int:
        """How many steps fit into the range."""
        return math.floor((self.high - self.low) / step + 1e-9)

    def samples(self) -> list:
        """Some of its values: all choices, or both ends."""
        whole = int if self.kind == "int" else float
        return list(self.choices) or [whole(self.low), whole(self.high)]


@dataclass(frozen=True)
class Space:
    """All dimensions by name, or a function of the user's that suggests values.

    Args:
        dimensions: by the names of options; `build.NAME` for an argument of the user's function that makes the model.
        reference: FILE.py:FUNCTION, in place of dimensions.
    """

    dimensions: Mapping[str, Dimension]
    reference: str = ""

    def distributions(self) -> "dict[str, BaseDistribution]":
        """The dimensions for Optuna."""
        return {name: one.distribution() for name, one in self.dimensions.items()}

    def suggest(self) -> Callable[[Any], dict[str, Any]]:
        """The user's function, as one from Optuna's trial to values by name, which reports its errors in a line.

        Raises:
            UserError: there is no such function.
        """
        from hpc_train.training.own_model import script

        function = script.load(self.reference)

        def values(trial) -> dict[str, Any]:
            with script.explained(self.reference):
                found = function(trial)
            if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
                raise UserError(f"{self.reference} returns {type(found).__name__}; return a dict of options and values")
            return found

        return values

    def points(self, seed: int) -> list[dict[str, Any]]:
        """All points of the grid, in an order that the seed decides: a scan that ends early has looked everywhere.

        Raises:
            UserError: a range has no step, or there are too many points.
        """
        if self.reference:
            raise UserError("--search grid needs lists of values, and a function has none; write NAME=A,B,C")
        axes: list[list] = []
        for name, one in self.dimensions.items():
            values = one.values()
            if values is None:
                raise UserError(f"--search grid: {name} has no list of values; write NAME=A,B,C or give a step")
            axes.append(values)
        if (count := math.prod(map(len, axes))) > _MOST:
            raise UserError(f"--search grid: {count} points; give fewer values, or --search random with --trials")
        points = [dict(zip(self.dimensions, point, strict=True)) for point in itertools.product(*axes)]
        random.Random(seed).shuffle(points)
        return points


def read(words: Sequence[str]) -> Space:
    """The space of `--space`: words NAME=VALUES, files of them, or one FILE.py:FUNCTION.

    Raises:
        UserError: a word is of another form, or a name is there twice.
    """
    references = [word for word in words if "=" not in word and ":" in word]
    if references:
        if len(words) > 1:
            raise UserError(f"--space {references[0]} is a function, which gives all values; give it alone")
        from hpc_train.training.own_model import script

        script.check(references[0], "--space")
        return Space({}, references[0])
    dimensions: dict[str, Dimension] = {}
    for word in lines(words):
        name, equals, text = word.partition("=")
        name = name.strip().lstrip("-")
        if not equals or not re.fullmatch(r"(build\.)?[A-Za-z_][\w-]*", name):
            raise UserError(f"--space {word}: {_FORMS}")
        if name.replace("-", "_") in (one.replace("-", "_") for one in dimensions):
            raise UserError(f"--space {word}: {name} is there twice; give it once")
        dimensions[name] = dimension(word, text.strip())
    if not dimensions:
        raise UserError(f"--space is missing or empty: what shall be scanned? {_FORMS}")
    return Space(dimensions)


def lines(words: Sequence[str]) -> list[str]:
    """The words of `--space`, with their lines in place of the names of files.

    Raises:
        UserError: there is no such file.
    """
    return [line for word in words for line in ([word] if ":" in word and "=" not in word else _lines(word))]


def _lines(word: str) -> list[str]:
    if "=" in word:
        return [word]
    if not Path(word).is_file():
        raise UserError(f"--space {word}: there is no such file; {_FORMS}, or name a file of such lines")
    lines = (line.strip() for line in read_text(Path(word), "write NAME=VALUES on each line").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def dimension(word: str, text: str) -> Dimension:
    """The dimension that `text` describes.

    Args:
        word: the whole word, for messages.
        text: such as `log:1e-4..1e-1`, `int:16..256:16` or `cnn,deep`.

    Raises:
        UserError: it is of another form, or empty.
    """
    kinds, rest = set[str](), text
    while (mark := re.match("(int|float|log):", rest)) and ".." in rest:
        kinds.add(mark[1])
        rest = rest[mark.end() :]
    if ".." not in rest or "," in rest:
        choices = tuple(one.strip() for one in text.split(","))
        if "" in choices or len(set(choices)) < len(choices):
            raise UserError(f"--space {word}: a value is empty or there twice; {_FORMS}")
        if len(choices) < 2:
            raise UserError(f"--space {word}: one value is no scan; put it after `--`, or give another value")
        return Dimension("choice", choices)
    first, _, last = rest.partition("..")
    last, colon, by = last.partition(":")
    low, high, step = _number(word, first), _number(word, last), _number(word, by) if colon else None
    if not low < high or not math.isfinite(high - low):
        raise UserError(f"--space {word}: nothing lies in {rest}; write the smaller number first")
    whole = all(isinstance(part, int) for part in (low, high, step) if part is not None)
    if whole and not kinds:
        raise UserError(f"--space {word}: whole numbers only? Write int:{rest}, else float:{rest}")
    if "int" in kinds and (not whole or "float" in kinds):
        raise UserError(f"--space {word}: int: needs whole numbers")
    if "log" in kinds and (low <= 0 or step is not None):
        raise UserError(f"--space {word}: log: needs numbers above 0, and no step")
    if step is not None and not 0 < step <= high - low:
        raise UserError(f"--space {word}: the step {step} does not fit into {low}..{high}")
    return Dimension("int" if "int" in kinds else "float", (), low, high, step, "log" in kinds)


def _number(word: str, text: str) -> int | float:
    try:
        number = ast.literal_eval(text.strip())
        if type(number) in (int, float) and math.isfinite(number):
            return number
    except (ValueError, SyntaxError, MemoryError, RecursionError, OverflowError):
        pass
    raise UserError(f"--space {word[:80]}: {text[:80]!r} is no number; {_FORMS}")
