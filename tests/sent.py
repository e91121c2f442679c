"""How much ranks send each other beside gradients, counted on a few ranks and extrapolated: python tests/sent.py

    python tests/sent.py --np 2 4 8 16 --to 27360 -- mnist --data shards/mnist --model fc --epochs 1

Each size is a real training under mpirun. A collective's bytes grow with the number of ranks or not: a straight line
through the sizes says what they would be. Rank 0 sends and gets as much as every other rank.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from launch import REPOSITORY, environment


def main():
    """Count, and print a line for each collective."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--np", type=int, nargs="+", default=[2, 4, 8, 16], metavar="N")
    parser.add_argument("--to", type=int, default=27360, metavar="N")
    parser.add_argument("words", nargs="+", metavar="TRAINER [OPTIONS]")
    arguments = parser.parse_args()
    counts = [_count(ranks, arguments.words) for ranks in arguments.np]
    names = sorted({name for calls in counts for name in calls})
    heads = [f"B on {ranks}" for ranks in arguments.np]
    print(f"{'':44}{'calls':>6}{''.join(f'{head:>12}' for head in heads)}{f'B on {arguments.to}':>14}")
    total = np.zeros(len(counts) + 1)
    for name in names:
        found = [calls.get(name, (0, 0, 0)) for calls in counts]
        # What a rank gets: a gather gives it what all have sent.
        bytes_ = np.array([max(sent, got) for _, sent, got in found], float)
        slope, start = np.polyfit(arguments.np, bytes_, 1)
        row = np.append(bytes_, max(0.0, start + slope * arguments.to))
        total += row
        print(f"{name:44}{found[-1][0]:6}{''.join(f'{value:12.0f}' for value in row[:-1])}{row[-1]:14.3g}")
    print(f"{'all':44}{'':6}{''.join(f'{value:12.0f}' for value in total[:-1])}{total[-1]:14.3g}")


def _count(ranks: int, words: list[str]) -> dict[str, list]:
    with tempfile.TemporaryDirectory(prefix="hpc-train-sent-") as folder:
        out = Path(folder) / "sent.json"
        program = [sys.executable, REPOSITORY / "tests" / "ranks" / "sent.py", out, *words]
        command = ["mpirun", "-n", str(ranks), *map(str, program), "--run", f"{folder}/run"]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"error: {ranks} ranks ended with status {done.returncode}:\n{done.stderr[-2000:]}")
        return json.loads(out.read_text())["calls"]


if __name__ == "__main__":
    main()
