"""Says in one line why a build failed: the first error in its log, and what would mend it."""

import re
from pathlib import Path

# What an error looks like, the surest kind first; the first match of the first kind that occurs is the cause.
ERRORS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"^.*fatal error: Killed signal terminated program.*$",
        r"^.*(?:virtual memory exhausted|out of memory allocating|No space left on device).*$",
        r"^\s*\S+:\d+(?::\d+)?: (?:fatal )?error: .*$",
        r"^\s*\S+\(\d+\): (?:fatal |catastrophic )?error.*: .*$",
        r"^\s*CMake Error.*(?:\n(?:\s*\n)?\s+\S.*)?",
        r"^.*undefined reference to .*$",
        r"^.*ld(?:\.\w+)?: (?:cannot find|error:).*$",
        r"^\s*\w*(?:Error|Exception): .*$",
        r"^\s*(?:error|ERROR): .*$",
    )
)

REMEDIES = tuple(
    (re.compile(pattern), remedy)
    for pattern, remedy in (
        (
            r"Killed signal|memory exhausted|out of memory",
            "the compiler ran out of memory: give it 2 GB a job, or fewer jobs (`taskset -c 0` before the command)",
        ),
        (r"No space left on device", "the disk is full: point TMPDIR or HPC_TRAIN_CACHE at one with 1 GB free"),
        (r"Python\.h", "install Python's headers (Debian: `apt-get install python3-dev`)"),
        (
            r"unsupported GNU version|host_config\.h|Unsupported gpu architecture",
            "this CUDA does not take this compiler or architecture: name an older g++ in CXX, or set --cuda-archs",
        ),
        (r"nccl\.h|-lnccl|NCCL", "NCCL is missing or incomplete: say where it is with --nccl-home"),
        (
            r"CUDAToolkit|CUDA_COMPILER|CMAKE_CUDA|nvcc",
            "CMake cannot use this CUDA toolkit: name another with --cuda-home, or a compiler that it takes in CXX",
        ),
        (
            r"cmake_minimum_required|Compatibility with CMake|CMake \d\S* or higher is required",
            "this cmake is too old or too new: `pip install 'cmake>=3.27,<5'`",
        ),
        (
            r"CMAKE_CXX_COMPILER|No CMAKE_C_COMPILER|CMAKE_C_COMPILER",
            "CMake finds no working C and C++ compiler: install gcc and g++, or name them in CC and CXX",
        ),
        (r"MPI", "CMake cannot use this MPI: set MPICXX to a working wrapper, or `pip install mpich`"),
        (r"Tensorflow|TENSORFLOW", "CMake cannot import TensorFlow: does `python -c 'import tensorflow'` work?"),
        (
            r"tensorflow/|xla/|absl/|tsl/",
            "Horovod does not compile against this TensorFlow: install tensorflow 2.21, which is known to work",
        ),
        (r"-std=c\+\+17|c\+\+1[47]", "the compiler is too old: name GCC 9 or newer in CXX"),
    )
)


def first_error(log: str) -> str:
    """The first error in a build's output, one line; empty where none is recognised."""
    for pattern in ERRORS:
        if found := pattern.search(log):
            return " ".join(found[0].split())
    return ""


def explain(log: str, path: Path) -> str:
    """One line on a failed build: its first error, the remedy where it is known, the full log's place."""
    error = first_error(log) or " ".join(log.split("\n")[-1].split()) or "no output"
    remedy = next((text for pattern, text in REMEDIES if pattern.search(error)), "see the log")
    return f"Horovod did not build: {error}; {remedy} (full log: {path})"
