"""`hpc-train COMMAND`: finds the command; the work is in the modules it names."""

import difflib
import importlib
import sys

from hpc_train.console import while_read
from hpc_train.trainers import TRAINERS

_COMMANDS = {
    "build-horovod": (
        "hpc_train.horovod_build.command",
        "BuildHorovod",
        "build Horovod for this machine's MPI, CUDA and TensorFlow",
    ),
    "templates": ("hpc_train.sites.command", "Templates", "write Slurm templates and container recipes to a folder"),
    "prepare": ("hpc_train.prepare.command", "Prepare", "write a data set as HDF5 shards"),
    "prepare climate-synthetic": (
        "hpc_train.prepare.synthetic_climate.command",
        "ClimateSynthetic",
        "make weather with cyclones and rivers in it, in DeepCAM's files",
    ),
    "prepare storm-tracks": (
        "hpc_train.prepare.storm_tracks.command",
        "StormTracks",
        "label maps of real winds by the best tracks of storms",
    ),
    "shard": ("hpc_train.data.repack.command", "Shard", "repack any HDF5 data as shards"),
    "inspect": ("hpc_train.data.inspect.command", "Inspect", "what is in a data set, and how it will be read"),
    "verify": ("hpc_train.data.verify.command", "Verify", "read all of a data set and name what is broken"),
    "stats": ("hpc_train.data.statistics.command", "Stats", "statistics of channels and classes, class weights"),
    "stage": ("hpc_train.data.staging.command", "Stage", "copy a data set to the nodes' own storage"),
    "predict": ("hpc_train.predict.command", "Predict", "class probabilities or maps, and scores, from a trained run"),
    "report": ("hpc_train.report.command", "ReportRuns", "a run's curves and scores as pictures, a study as a page"),
    "flops": ("hpc_train.flops.command", "Flops", "floating-point operations of a network, a sample and a step"),
    "timeline": ("hpc_train.timeline.command", "TimelineSummary", "what Horovod's timeline says of the communication"),
    "doctor": ("hpc_train.doctor.command", "Doctor", "what is wrong with this machine, environment and job"),
    "bench input": (
        "hpc_train.bench.input.command",
        "InputBench",
        "how fast a data set can be read, and by which means",
    ),
    "bench decode": (
        "hpc_train.bench.input.decode",
        "DecodeBench",
        "how fast JPEG images are decoded, beside a plain loop",
    ),
    "bench throughput": (
        "hpc_train.bench.throughput.command",
        "Throughput",
        "how fast a trainer trains, and what bounds it",
    ),
    "bench scaling": (
        "hpc_train.bench.study.command",
        "Scaling",
        "speed and efficiency by number of ranks, from a study",
    ),
    "bench allreduce": (
        "hpc_train.bench.allreduce.command",
        "AllreduceBench",
        "latency and bandwidth of the all-reduce by message size, beside MPI's",
    ),
    "bench predict": (
        "hpc_train.bench.step_model.command",
        "PredictScaling",
        "speed at sizes not run, by a model of a step",
    ),
    "bench frameworks": (
        "hpc_train.bench.frameworks.measure",
        "FrameworkBench",
        "throughput of PyTorch DDP or tf.distribute on the same network and data",
    ),
    "bench overlap": ("hpc_train.bench.overlap", "OverlapBench", "how much of the all-reduce hides behind computation"),
    "bench climate-synthetic": (
        "hpc_train.bench.climate_synthetic.command",
        "ClimateComparison",
        "synthetic weather beside CAM5's, and what rules without learning reach on it",
    ),
    "bench plan": (
        "hpc_train.bench.plan.command",
        "Plan",
        "what planning costs a rank of many, and how random each order is",
    ),
}


@while_read()
def main() -> None:
    """Entry point of the console script."""
    words = sys.argv[1:3] if sys.argv[1:2] == ["bench"] or " ".join(sys.argv[1:3]) in _COMMANDS else sys.argv[1:2]
    name = " ".join(words) or "--help"
    if name in ("-h", "--help", "bench", "bench -h", "bench --help"):
        print("usage: hpc-train COMMAND [OPTIONS]\n\ncommands (hpc-train COMMAND --help tells more):")
        for command, (_, _, purpose) in _COMMANDS.items():
            if command.startswith(words[0] if words and words[0] == "bench" else ""):
                print(f"  {command:25} {purpose}")
        trainers = "|".join(TRAINERS)
        print(f"\ntrainers, one process a GPU: horovodrun -np 4 python -m hpc_train.{trainers} --help")
    elif name == "--version":
        from hpc_train import __version__

        print(f"hpc-train {__version__}")
    elif name in _COMMANDS:
        from hpc_train import command_line

        module, dataclass, _ = _COMMANDS[name]
        home = importlib.import_module(module)
        command_line.main(getattr(home, dataclass), home.run, f"hpc-train {name}", sys.argv[1 + len(words) :])
    else:
        near = difflib.get_close_matches(name, _COMMANDS, 1)
        hint = f"did you mean `hpc-train {near[0]}`?" if near else "`hpc-train --help` lists the commands"
        from hpc_train.parallel.world import exit_usage

        exit_usage(f"error: no command {name!r}; {hint}")


if __name__ == "__main__":
    main()
