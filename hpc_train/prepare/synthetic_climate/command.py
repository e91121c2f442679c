"""`hpc-train prepare climate-synthetic`: makes synthetic CAM5 data with cyclones and rivers that can be learned."""

import os
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_train.console import ProgressLine, say
from hpc_train.errors import UserError

# File of the options that the samples of a set depend on, besides their split and number; a folder holds one set.
RECIPE = "synthetic-climate.json"
_VERSION = 1
CLASS_NAMES = ("background", "tropical cyclone", "atmospheric river")
LEAST_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class ClimateSynthetic:
    """Make synthetic CAM5 data: alone, or over ranks with `mpirun -np 4 hpc-train prepare climate-synthetic ...`.

    Each sample is a map of 16 named channels in physical units. The zonal means of the air follow the season, and its
    correlated noise is in balance with its winds. It holds warm-core tropical cyclones and atmospheric rivers, which
    are labelled, and extratropical cyclones, cloud clusters, dry jets and windless moist tongues, which are not. Each
    file has one sample, in the layout of the published CAM5 data and DeepCAM: train/, validation/ and test/ with
    data-YYYY-MM-DD-TT-R.h5. A sample depends only on its split, its number, --seed, --size, --cyclones and --rivers.
    To continue after an interruption, give the same command again.
    """

    output: Path
    """Folder for the splits."""
    size: tuple[int, int] = (768, 1152)
    """Latitudes and longitudes of a map, each at least 32. At 768 x 1152, CAM5's own size, about 98.2 % of the pixels
    are background, 0.07 % cyclones and 1.7 % rivers. On a coarser grid, cyclones have a radius of at least 1.75 cells
    and rivers a width of at least 2, so that they can be seen: at 96 x 144 about 0.2 % and 1.7 %."""
    train: int = 200
    """Samples of the training split."""
    validation: int = 40
    """Samples of the validation split."""
    test: int = 40
    """Samples of the test split."""
    seed: int = 0
    """Seed of the weather."""
    cyclones: float = 2.8
    """Mean number of tropical cyclones on a map; one in twenty finds no warm sea and is left out."""
    rivers: float = 6.3
    """Mean number of atmospheric rivers on a map."""


def run(options: ClimateSynthetic) -> None:
    """Write the samples, each rank its share; rank 0 prints a line for each split.

    Raises:
        UserError: an option is wrong, the folder holds other data, or a file cannot be written.
    """
    from hpc_train.parallel.mpi import job

    _check_options(options)
    with job() as comm:
        try:
            _write_all(options, comm)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("finished samples are kept; give the same command again to continue") from None


def _check_options(options: ClimateSynthetic) -> None:
    if min(options.size) < LEAST_SIZE:
        raise UserError(f"--size is {options.size[0]} {options.size[1]}; give at least {LEAST_SIZE} {LEAST_SIZE}")
    for name, number in _numbers(options).items():
        if number < 0:
            raise UserError(f"--{name} is {number}; give 0 or more")
    if not any(_numbers(options).values()):
        raise UserError("--train, --validation and --test are all 0; ask for at least one sample")
    if options.seed < 0:
        raise UserError(f"--seed is {options.seed}; give 0 or more")
    for name, number in (("cyclones", options.cyclones), ("rivers", options.rivers)):
        if not 0 <= number <= 1000:
            raise UserError(f"--{name} is {number}; give a mean number from 0 to 1000")


def _numbers(options: ClimateSynthetic) -> dict[str, int]:
    return {"train": options.train, "validation": options.validation, "test": options.test}


def _write_all(options: ClimateSynthetic, comm) -> None:
    from hpc_train.parallel.mpi import on_root

    kept = on_root(comm, lambda: _begin(options))
    for split, samples in _numbers(options).items():
        if samples:
            _write_split(options, split, samples, kept[split], comm)


def _write_split(options: ClimateSynthetic, split: str, samples: int, kept: set[str], comm) -> None:
    from hpc_train.parallel.mpi import agree
    from hpc_train.prepare.synthetic_climate.grid import EvenGrid
    from hpc_train.prepare.synthetic_climate.weather import make
    from hpc_train.prepare.synthetic_climate.writer import file_name, write

    began = time.perf_counter()
    grid = EvenGrid(*options.size)
    mine = [number for number in range(samples) if file_name(number) not in kept][comm.rank :: comm.size]
    pixels = np.zeros(3, np.int64)
    # A rank that cannot write reports it when the others have finished; their samples are kept.
    with agree(comm), closing(ProgressLine(split, len(mine), comm.rank == 0)) as progress:
        for number in mine:
            weather = make(grid, options.seed, split, number, options.cyclones, options.rivers)
            size = write(options.output / split / file_name(number), grid, weather)
            pixels += np.bincount(weather.labels.ravel().astype(np.int64), minlength=3)
            progress.add(1, size)
    pixels = sum(comm.allgather(pixels))
    if comm.rank == 0:
        shares = ", ".join(
            f"{100 * share:.3g} % {name}"
            for name, share in zip(CLASS_NAMES, pixels / max(1, pixels.sum()), strict=True)
        )
        made = f"{shares}, {time.perf_counter() - began:.1f} s" if pixels.any() else "none to make"
        there = f", {len(kept)} of them already there" if kept else ""
        say(f"{split}: {samples} samples of {(*options.size, 16)} float32 in {options.output / split}{there}: {made}")


def _begin(options: ClimateSynthetic) -> dict[str, set[str]]:
    """Make the folders, and return the names of the samples that are already there; UserError for other data there."""
    from hpc_train.data.hdf5.access import reason
    from hpc_train.data.shards.names import check_space
    from hpc_train.files.whole import leftovers, remove
    from hpc_train.prepare.synthetic_climate.writer import file_name

    recipe = {
        "version": _VERSION,
        "seed": options.seed,
        "size": list(options.size),
        "cyclones": options.cyclones,
        "rivers": options.rivers,
    }
    kept, missing = {}, 0
    try:
        same = _same_recipe(options.output, recipe)
        for split, samples in _numbers(options).items():
            folder = options.output / split
            names = {name for name in os.listdir(folder) if not name.startswith(".")} if folder.is_dir() else set()
            wanted = {file_name(number) for number in range(samples)}
            if strangers := sorted(names - wanted if same else names):
                raise UserError(
                    f"{folder}: holds {strangers[0]}, which is not one of the {samples} samples to make; "
                    "empty the folder or give another --output"
                )
            kept[split] = names
            missing += samples - len(names)
            if samples:
                folder.mkdir(parents=True, exist_ok=True)
                # The second are those of 0.1.0.
                remove([*leftovers(folder), *folder.glob(f".data-*-{'[a-z0-9_]' * 8}.h5")])
        check_space(options.output, missing * options.size[0] * options.size[1] * 17 * 4)
        if not same:
            from hpc_train.files.json_file import write_json

            write_json(options.output / RECIPE, recipe)
    except OSError as error:
        raise UserError(
            f"{error.filename or options.output}: cannot be written ({reason(error)}); give another --output"
        ) from error
    return kept


def _same_recipe(folder: Path, recipe: dict) -> bool:
    """Whether the folder holds samples of this recipe; UserError if it holds those of another recipe."""
    path = folder / RECIPE
    if not path.exists():
        return False
    from hpc_train.files.json_file import read_json

    held = read_json(path, {}, "empty the folder, or give another --output")
    if held != recipe:
        other = " ".join(f"{name} {held.get(name)}" for name in recipe)
        raise UserError(
            f"{path}: the folder holds another set ({other}); give the options of that set, empty the folder, or give "
            "another --output"
        )
    return True
