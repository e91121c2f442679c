"""Explains in one line why a build failed: the first error in its log, and how to fix it."""

import re
from pathlib import Path

# Patterns of errors, the most certain first. The first match of the first pattern that occurs is the cause.
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
            "the compiler ran out of memory: it needs 2 GB a job; run fewer jobs (`taskset -c 0` before the command)",
        ),
        (r"No space left on device", "the disk is full: set TMPDIR or HPC_TRAIN_CACHE to a folder with 1 GB free"),
        (r"Python\.h", "install Python's headers (Debian: `apt-get install python3-dev`)"),
        (
            r"unsupported GNU version|host_config\.h|Unsupported gpu architecture",
            "this CUDA does not support this compiler or architecture: set CXX to an older g++, or set --cuda-archs",
        ),
        (r"nccl\.h|-lnccl|NCCL", "NCCL is missing or incomplete: give its folder with --nccl-home"),
        (
            r"CUDAToolkit|CUDA_COMPILER|CMAKE_CUDA|nvcc",
            "CMake cannot use this CUDA toolkit: give another with --cuda-home, or set CXX to a compiler it supports",
        ),
        (
            r"cmake_minimum_required|Compatibility with CMake|CMake \d\S* or higher is required",
            "this cmake is too old or too new: `pip install 'cmake>=3.27,<5'`",
        ),
        (
            r"CMAKE_CXX_COMPILER|No CMAKE_C_COMPILER|CMAKE_C_COMPILER",
            "CMake finds no working C and C++ compiler: install gcc and g++, or set CC and CXX",
        ),
        (r"MPI", "CMake cannot use this MPI: set MPICXX to a working wrapper, or `pip install mpich`"),
        (r"Tensorflow|TENSORFLOW", "CMake cannot import TensorFlow: check that `python -c 'import tensorflow'` works"),
        (
            r"tensorflow/|xla/|absl/|tsl/",
            "Horovod does not compile against this TensorFlow: 2.16 to 2.21 are known to work",
        ),
        (r"-std=c\+\+17|c\+\+1[47]", "the compiler is too old: set CXX to GCC 9 or newer"),
    )
)


def first_error(log: str) -> str:
    """The first error in a build's output as one line; empty if no error is recognised."""
    for pattern in ERRORS:
        if found := pattern.search(log):
            return " ".join(found[0].split())
    return ""


def explain(log: str, path: Path) -> str:
    """Explain a failed build in one line.

    Args:
        log: the build's output.
        path: the file that holds it.

    Returns:
        The first error, the remedy if it is known, and the file of the full log.
    """
    error = first_error(log) or " ".join(log.split("\n")[-1].split()) or "no output"
    remedy = next((text for pattern, text in REMEDIES if pattern.search(error)), "see the log")
    return f"Horovod did not build: {error}; {remedy} (full log: {path})"
