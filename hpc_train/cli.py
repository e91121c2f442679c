"""`hpc-train COMMAND`: finds the command; the work is in the modules it names."""

import difflib
import importlib
import sys

_COMMANDS = {
    "build-horovod": (
        "hpc_train.horovod_build.command",
        "BuildHorovod",
        "build Horovod for this machine's MPI, CUDA and TensorFlow",
    ),
    "prepare": ("hpc_train.data.prepare", "Prepare", "write a data set as HDF5 shards"),
    "predict": ("hpc_train.predict", "Predict", "class probabilities and confusion matrix from a trained run"),
}


def main() -> None:
    """Entry point of the console script."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: hpc-train COMMAND [OPTIONS]\n\ncommands (hpc-train COMMAND --help tells more):")
        for command, (_, _, purpose) in _COMMANDS.items():
            print(f"  {command:15} {purpose}")
        print("\ntrainers, one process a GPU: horovodrun -np 4 python -m hpc_train.mnist --help")
    elif name == "--version":
        from hpc_train import __version__

        print(f"hpc-train {__version__}")
    elif name in _COMMANDS:
        from hpc_train import options

        module, dataclass, _ = _COMMANDS[name]
        home = importlib.import_module(module)
        options.main(getattr(home, dataclass), home.run, f"hpc-train {name}", sys.argv[2:])
    else:
        near = difflib.get_close_matches(name, _COMMANDS, 1)
        hint = f"did you mean `hpc-train {near[0]}`?" if near else "`hpc-train --help` lists the commands"
        print(f"error: no command {name!r}; {hint}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
