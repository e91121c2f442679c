"""`make test-faults`: trainings in which one rank does not go on, under each launcher: is the right cause named?

    python tests/faults.py [--times 5] [--ranks 2] [--launchers gloo mpirun slurm] [--kinds stop ...] [--tally FILE]

A line of JSON for each training is added to the tally, which several calls of the command share. The table counts all
lines of the tally, for each launcher: trainings whose cause was named and whose ranks all ended, with a status that is
not 0, of those tried, and the seconds from the fault to the end of the job. Then come ranks that were left behind, and
the most steps that had to be made again, those since the newest checkpoint. "slurm" is the test cluster, each rank on
another of its two nodes; only there, and as root, a node is frozen as a whole.

    python tests/faults.py --calm MINUTES [--launchers gloo]

trains without a hang for about so long: with checkpoints and validation that take one rank longer than --hang-after,
and as a whole job stopped and continued again and again. It prints how often something was taken for a hang.

    python tests/faults.py --crowd TIMES

trains five epochs on two cores, of which another program takes a quarter of rank 1's, and prints the slow ranks that
are named.
"""

import argparse
import json
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from hanging import AFTER, FAULTS, LAUNCHERS, calm, crowd, train
from launch import BIN, REPOSITORY, environment


def table(lines: list[dict]) -> str:
    """The tally as a table in Markdown: detected of tries, and the seconds after the fault, median (most)."""
    rows = [f"| kind | {' | '.join(LAUNCHERS)} | ranks left | steps lost |", "|---|---|---|---|---|---|"]
    for kind in FAULTS:
        of_kind = [line for line in lines if line["kind"] == kind]
        if not of_kind:
            continue
        cells = []
        for launcher in LAUNCHERS:
            of = [line for line in of_kind if line["launcher"] == launcher]
            seconds = [line["seconds"] for line in of]
            found = f"{sum(line['right'] for line in of)} of {len(of)}"
            cells.append(f"{found}: {statistics.median(seconds):.0f} s ({max(seconds):.0f})" if of else "")
        left, lost = sum(line["left"] for line in of_kind), max(line["lost"] for line in of_kind)
        rows.append(f"| {kind} | {' | '.join(cells)} | {left} | {lost} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--ranks", type=int, choices=(2, 3, 4), default=2)
    parser.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=LAUNCHERS)
    parser.add_argument("--kinds", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--calm", type=float, metavar="MINUTES")
    parser.add_argument("--crowd", type=int, metavar="TIMES")
    parser.add_argument("--tally", type=Path, default=REPOSITORY / "build" / "faults.jsonl")
    arguments = parser.parse_args()
    arguments.tally.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        data = Path(folder, "data")
        prepare = [BIN / "hpc-train", "prepare", "digits", "--output", data]
        subprocess.run(prepare, check=True, env=environment(), stdout=subprocess.DEVNULL)
        for number in range(arguments.crowd or 0):
            named = crowd(data, Path(folder, f"crowd-{number}"))
            print(*(json.dumps(each) for each in named), sep="\n", end="\n\n", flush=True)
        if arguments.crowd:
            return
        if arguments.calm:
            for launcher in arguments.launchers:
                begun = time.monotonic()
                status, output, stops = calm(launcher, data, Path(folder, launcher), 60 * arguments.calm)
                minutes, epochs = (time.monotonic() - begun) / 60, len(re.findall(r"epoch \d+/", output))
                print(
                    f"{launcher}: {minutes:.0f} minutes, {epochs} epochs, stopped {stops} times: "
                    f"{output.count('nothing has moved for')} reports of a hang, status {status}"
                )
                if status:
                    print(output[-3000:])
            return
        for number in range(arguments.times):
            for launcher in arguments.launchers:
                for kind in arguments.kinds:
                    if kind == "node" and launcher != "slurm":
                        continue
                    run = Path(folder, f"{kind}-{launcher}-{number}")
                    hung = train(launcher, kind, data, run, ranks=arguments.ranks)
                    line = {"kind": kind, "launcher": launcher, "ranks": arguments.ranks, "right": hung.right(kind)}
                    line |= {"left": hung.left, "lost": hung.lost, "seconds": round(hung.seconds, 1)}
                    with open(arguments.tally, "a") as tally:
                        tally.write(json.dumps(line) + "\n")
                    print(json.dumps(line), flush=True)
                    if not line["right"]:
                        print(hung.output[-3000:], flush=True)
    print(table([json.loads(line) for line in arguments.tally.read_text().splitlines()]))
    print(f"--hang-after {AFTER}; one checkpoint an epoch")


if __name__ == "__main__":
    main()
