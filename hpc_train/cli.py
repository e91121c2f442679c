"""`hpc-train COMMAND`: finds the command and calls the module that does its work."""

import difflib
import importlib
import shlex
import shutil
import sys
import textwrap

from hpc_train.console import while_read
from hpc_train.trainers import TRAINERS

_COMMANDS = {
    "build-horovod": (
        "hpc_train.horovod_build.command",
        "BuildHorovod",
        "build Horovod for this machine's MPI, CUDA and TensorFlow",
    ),
    "port": ("hpc_train.port.command", "Port", "show what a Keras 2 or TensorFlow 1 script needs for Keras 3"),
    "templates": ("hpc_train.sites.command", "Templates", "write Slurm templates and container recipes to a folder"),
    "submit": ("hpc_train.sites.submit", "Submit", "submit a trainer as a job, in the way that your site wants"),
    "scan": ("hpc_train.scan.command", "Scan", "find the best hyperparameters by many trainings, a GPU each"),
    "prepare": ("hpc_train.prepare.command", "Prepare", "write a data set as HDF5 shards"),
    "prepare csv": ("hpc_train.prepare.tables.command", "Csv", "write the columns of CSV files as HDF5 shards"),
    "prepare parquet": (
        "hpc_train.prepare.tables.command",
        "Parquet",
        "write the columns of Parquet files as HDF5 shards",
    ),
    "prepare arrays": ("hpc_train.prepare.arrays.command", "Arrays", "write NumPy arrays of any shape as HDF5 shards"),
    "prepare masks": ("hpc_train.prepare.masks.command", "Masks", "write pictures with mask pictures as HDF5 shards"),
    "prepare climate-synthetic": (
        "hpc_train.prepare.synthetic_climate.command",
        "ClimateSynthetic",
        "make synthetic weather with cyclones and rivers, in DeepCAM's format",
    ),
    "prepare storm-tracks": (
        "hpc_train.prepare.storm_tracks.command",
        "StormTracks",
        "make label maps from wind fields and the best tracks of storms",
    ),
    "shard": ("hpc_train.data.repack.command", "Shard", "repack any HDF5 data as shards"),
    "inspect": ("hpc_train.data.inspect.command", "Inspect", "show what is in a data set and how it will be read"),
    "verify": ("hpc_train.data.verify.command", "Verify", "read all of a data set and list what is damaged"),
    "stats": (
        "hpc_train.data.statistics.command",
        "Stats",
        "compute statistics of channels and classes, and class weights",
    ),
    "stage": ("hpc_train.data.staging.command", "Stage", "copy a data set to the nodes' own storage"),
    "predict": (
        "hpc_train.predict.command",
        "Predict",
        "predict classes or class maps with a trained run, and score them",
    ),
    "report": ("hpc_train.report.command", "ReportRuns", "draw a run's curves and scores, or write a study as a page"),
    "flops": ("hpc_train.flops.command", "Flops", "count floating-point operations of a network, a sample and a step"),
    "timeline": ("hpc_train.timeline.command", "TimelineSummary", "summarise the communication in Horovod's timeline"),
    "doctor": ("hpc_train.doctor.command", "Doctor", "find what is wrong with this machine, environment or job"),
    "bench input": (
        "hpc_train.bench.input.command",
        "InputBench",
        "measure how fast a data set is read, by several readers",
    ),
    "bench decode": (
        "hpc_train.bench.input.decode",
        "DecodeBench",
        "measure how fast JPEG images are decoded, beside a plain loop",
    ),
    "bench throughput": (
        "hpc_train.bench.throughput.command",
        "Throughput",
        "measure how fast a trainer trains, and what limits it",
    ),
    "bench scaling": (
        "hpc_train.bench.study.command",
        "Scaling",
        "measure and report speed and efficiency by number of ranks",
    ),
    "bench allreduce": (
        "hpc_train.bench.allreduce.command",
        "AllreduceBench",
        "measure latency and bandwidth of the all-reduce by message size, beside MPI's",
    ),
    "bench predict": (
        "hpc_train.bench.step_model.command",
        "PredictScaling",
        "predict the speed on sizes that were not run, by a model of a step",
    ),
    "bench frameworks": (
        "hpc_train.bench.frameworks.measure",
        "FrameworkBench",
        "measure PyTorch DDP or tf.distribute on the same network and data",
    ),
    "bench overlap": (
        "hpc_train.bench.overlap",
        "OverlapBench",
        "measure how much of the all-reduce runs beside computation",
    ),
    "bench checkpoints": (
        "hpc_train.bench.checkpoints",
        "CheckpointBench",
        "measure for how long a checkpoint stops the training",
    ),
    "bench climate-synthetic": (
        "hpc_train.bench.climate_synthetic.command",
        "ClimateComparison",
        "compare synthetic weather with CAM5's, and score simple rules on it",
    ),
    "bench plan": (
        "hpc_train.bench.plan.command",
        "Plan",
        "measure what planning costs one of many ranks, and how random each order is",
    ),
}


@while_read()
def main() -> None:
    """Run the command that the command line names."""
    try:
        _run()
    except ModuleNotFoundError as error:
        from hpc_train.requirements import not_installed

        if not (line := not_installed(error)):
            raise
        _wrong(line)


def _run() -> None:
    words = sys.argv[1:]
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if words[:1] == ["train"] and words[1:] and words[1] in TRAINERS:
        words = words[1:]
    two = " ".join(words[:2])
    name = two if words[:1] == ["bench"] or two in _COMMANDS else " ".join(words[:1])
    if name in ("", "-h", "--help", "bench", "bench -h", "bench --help"):
        print(_commands("bench " if words[:1] == ["bench"] else ""))
    elif name == "--version":
        from hpc_train import __version__

        print(f"hpc-train {__version__}")
    elif name in _COMMANDS:
        from hpc_train import command_line

        home = importlib.import_module(_COMMANDS[name][0])
        if name == "submit" and (line := home.misplaced(words[1:])):
            _wrong(line)
        command_line.main(_options(name), home.run, f"hpc-train {name}", words[len(name.split()) :])
    elif name == "completion":
        _complete(words[1:])
    elif name in (*TRAINERS, "train"):
        _trainer(name, words[1:])
    else:
        _wrong(f"no command {name!r}; {_nearest(name)}")


def _commands(start: str) -> str:
    """The list of commands that begin with `start`, each with its purpose, as wide as the terminal."""
    rows = [(command, purpose) for command, (_, _, purpose) in _COMMANDS.items() if command.startswith(start)]
    if not start:
        rows += [
            ("help [COMMAND]", "print this list, or the options of a command"),
            ("completion bash", "print a script that makes bash complete commands and options"),
        ]
    lines = ["usage: hpc-train COMMAND [OPTIONS]", "", "commands (`hpc-train COMMAND --help` lists the options):"]
    lines += _table(rows, 26)
    if not start:
        lines += ["", "trainers (`python -m hpc_train.mnist --help` lists the options):"]
        lines += _table([(f"python -m hpc_train.{one.name}", f"train {one.trains}") for one in TRAINERS.values()], 29)
        lines += ["", "on 4 GPUs, one process for each: horovodrun -np 4 python -m hpc_train.mnist ..."]
    return "\n".join(lines)


def _table(rows: list[tuple[str, str]], column: int) -> list[str]:
    width = shutil.get_terminal_size().columns
    lines = []
    for left, right in rows:
        first, *rest = textwrap.wrap(right, max(20, width - column - 2))
        lines += [f"  {left:{column}}{first}", *(" " * (column + 2) + line for line in rest)]
    return lines


def _options(name: str):
    module, options, _ = _COMMANDS[name]
    return getattr(importlib.import_module(module), options)


def _complete(words: list[str]) -> None:
    usage = "`hpc-train completion bash` prints a script that makes bash complete commands and options"
    if words in (["--help"], ["-h"]):
        print(usage)
    elif words != ["bash"]:
        _wrong(f"name the shell, which can only be bash: {usage}")
    else:
        from hpc_train.help import completion

        print(completion.script({name: _options(name) for name in _COMMANDS}, ("help", "completion bash")), end="")


def _trainer(name: str, words: list[str]) -> None:
    """Print the help of a trainer, or an error that says how to start it."""
    args = [word for word in words if word not in ("-h", "--help")]
    asks = args != words
    if asks and name in TRAINERS:
        from hpc_train import command_line

        home = TRAINERS[name].module
        return command_line.main(home.Options, home.run, f"python -m hpc_train.{name}", ["--help"])
    module = f"python -m hpc_train.{name if name in TRAINERS else 'mnist'} {shlex.join(args) or '...'}"
    *first, last = TRAINERS
    what = "start this trainer" if name in TRAINERS else f"the trainers are {', '.join(first)} and {last}; start one"
    how = f"{what} with `{module}`, or on 4 GPUs with `horovodrun -np 4 {module}`"
    if asks:
        print(how)
    else:
        _wrong(f"`hpc-train {name}` is not a command: {how}")


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, [*_COMMANDS, *TRAINERS, "help"], 1)
    if not near:
        return "`hpc-train --help` lists the commands"
    return f"did you mean `{'python -m hpc_train.' if near[0] in TRAINERS else 'hpc-train '}{near[0]}`?"


def _wrong(message: str) -> None:
    from hpc_train.parallel.world import exit_usage

    exit_usage(f"error: {message}")


if __name__ == "__main__":
    main()
