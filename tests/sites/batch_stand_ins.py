"""Stand-ins for PBS and LSF, as their manuals describe them; they are not PBS and not LSF, which no test here has met.

PBS: qsub, qstat and qdel of OpenPBS's manual pages; LSF: bsub and bkill of IBM's pages on LSF 10.1. Each keeps a queue,
starts a copy of the script in a session of its own, ends it at its limit with the signals of that scheduler, and knows
what restarts a job. Every node is this machine. Seconds and minutes may be shorter than real ones.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

SERVER = "stand-in"


class Refused(Exception):
    """What a command prints before it ends with an error."""


def processes(session: int) -> list[int]:
    """The processes of a session, children first."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((int(fields[19]), int(entry.name)))
    return [number for _, number in sorted(found, reverse=True)]


def parse(words: list[str], taking: str, flags: str = "") -> dict[str, list[str]]:
    """Values by option, of the words before the script's name, which is "script"; unknown options are refused."""
    given: dict[str, list[str]] = {}
    words = list(words)
    while words and words[0].startswith("-"):
        name = words.pop(0)[1:]
        if name in flags.split():
            given[name] = []
        elif name in taking.split() and words:
            given.setdefault(name, []).append(words.pop(0))
        else:
            raise Refused(f"invalid option -- '{name}'")
    given["script"] = words
    return given


class Scheduler:
    """A queue of jobs in a folder, and a thread that runs them; `commands` is a folder for PATH."""

    programs: tuple[str, ...] = ()
    directive = ""

    def __init__(self, folder: Path, nodes: int = 8):
        self.folder, self.commands = folder, folder / "bin"
        self.free = [f"n{number}" for number in range(1, nodes + 1)]
        self.running: dict[str, subprocess.Popen] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        (self.folder / "jobs").mkdir(parents=True)
        self.commands.mkdir()
        for name in self.programs:
            words = (sys.executable, __file__, type(self).__name__, str(self.folder), name)
            (self.commands / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            (self.commands / name).chmod(0o755)
        # Login shells set PATH anew.
        (self.folder / ".bash_profile").write_text(f"PATH='{self.commands}':$PATH\n")
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        for process in self.running.values():
            self.signal(process, signal.SIGKILL)

    def path(self, number: str) -> Path:
        """The folder of a job."""
        return self.folder / "jobs" / number

    def read(self, number: str) -> dict:
        """What is known of a job."""
        return json.loads((self.path(number) / "job.json").read_text())

    def write(self, number: str, /, **changes) -> dict:
        """Change what is known of a job."""
        path = self.path(number) / "job.json"
        job = {**(json.loads(path.read_text()) if path.exists() else {}), **changes}
        path.with_suffix(".new").write_text(json.dumps(job))
        path.with_suffix(".new").rename(path)
        return job

    def new(self, text: str, job: dict) -> str:
        """Put a copy of a script into the queue; returns the job's number."""
        number = 1
        while True:
            with contextlib.suppress(FileExistsError):
                self.path(str(number)).mkdir()
                break
            number += 1
        (self.path(str(number)) / "script").write_text(text)
        self.write(str(number), state="Q", runs=0, cwd=os.getcwd(), number=str(number), **job)
        return str(number)

    def options(self, text: str, words: list[str], *kinds: str) -> dict[str, list[str]]:
        """The options in a script's directives, and those of the command line, which come first."""
        lines = [line.split(self.directive, 1)[1] for line in text.splitlines() if line.startswith(self.directive)]
        inside: dict[str, list[str]] = {}
        for line in lines:
            for name, values in parse(shlex.split(line), *kinds).items():
                inside.setdefault(name, []).extend(values)
        return {**inside, **parse(words, *kinds)}

    def jobs(self) -> list[dict]:
        """All jobs, in their order."""
        return [self.read(path.name) for path in sorted((self.folder / "jobs").iterdir(), key=lambda p: int(p.name))
                if (path / "job.json").exists()]  # fmt: skip

    def output(self, number: str) -> str:
        """What a job has printed in all its starts."""
        path = self.path(number) / "output"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait(self, number: str, timeout: float, until=lambda job: job["state"] == "F") -> dict:
        """Wait until a job has ended, or `until` is true."""
        deadline = time.monotonic() + timeout
        while not until(job := self.read(number)):
            if job["state"] == "F" or time.monotonic() > deadline:
                raise TimeoutError(f"job {number} after {timeout} s: {job}\n{self.output(number)[-3000:]}")
            time.sleep(0.1)
        return job

    def signal(self, process: subprocess.Popen, number: int) -> None:
        """Send a signal to all processes of a job, children first."""
        for one in processes(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)

    def fail_node(self, number: str) -> None:
        """What a job's nodes do when they lose power: everything ends at once, and no command is told."""
        (self.path(number) / "failed").touch()
        for one in (signal.SIGSTOP, signal.SIGKILL):
            self.signal(self.running[number], one)

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            for job in self.jobs():
                number = job["number"]
                if job["state"] == "Q" and self.ready(job) and len(self.free) >= len(job["nodes"]):
                    self._start(number, job)
                elif job["state"] == "R":
                    self._look_after(number, job)

    def _start(self, number: str, job: dict) -> None:
        hosts = [self.free.pop(0) for _ in job["nodes"]]
        lines = [host for host, times in zip(hosts, job["nodes"], strict=True) for _ in range(times)]
        (self.path(number) / "hosts").write_text("".join(f"{line}\n" for line in lines))
        script = self.path(number) / "script"
        first = script.read_text().splitlines()[0]
        with open(self.path(number) / "output", "a") as output:
            self.running[number] = subprocess.Popen(
                [*(shlex.split(first[2:]) if first.startswith("#!") else ["/bin/sh"]), str(script)],
                env=self.environment(job, hosts),
                cwd=self.home(job),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.write(number, state="R", runs=job["runs"] + 1, hosts=hosts, started=time.time(), told=[])

    def _look_after(self, number: str, job: dict) -> None:
        process = self.running[number]
        age = time.time() - job["started"]
        if process.poll() is None:
            told = job["told"]
            for reason, after, name in self.signals(job, age):
                since = next((when for why, when, _ in told if why == reason), age)
                if age >= since + after and [reason, name] not in [[why, sent] for why, _, sent in told]:
                    self.signal(process, signal.Signals[name])
                    told.append([reason, age, name])
                    self.write(number, told=told)
            return
        # What a job leaves behind is ended.
        self.signal(process, signal.SIGKILL)
        self.free += job["hosts"]
        del self.running[number]
        failed = self.path(number) / "failed"
        again = (failed.exists() and job["rerunnable"]) or self.again(job, process.returncode)
        failed.unlink(missing_ok=True)
        self.write(number, state="Q" if again else "F", status=process.returncode)

    def ready(self, job: dict) -> bool:
        """Whether a queued job may start."""
        return True

    def again(self, job: dict, status: int) -> bool:
        """Whether a job that has ended starts again by itself."""
        return False


class Pbs(Scheduler):
    """PBS: scripts see only PBS's variables and those of -v; SIGTERM at the walltime, SIGKILL after `kill_delay`."""

    programs = ("qsub", "qstat", "qdel")
    directive = "#PBS"
    kill_delay = 10

    def qsub(self, words: list[str]) -> str:
        """Submit the script that the words name."""
        path = parse(words, "N l q A j k r v W S o e")["script"]
        if len(path) != 1 or not Path(path[0]).is_file():
            raise Refused("script file:: No such file or directory")
        text = Path(path[0]).read_text()
        given = self.options(text, words, "N l q A j k r v W S o e")
        listed = dict(pair.partition("=")[::2] for line in given.get("l", []) for pair in line.split(","))
        nodes = []
        for chunk in listed["select"].split("+"):
            first, *rest = chunk.split(":")
            times, parts = (int(first), rest) if first.isdigit() else (1, [first, *rest])
            nodes += [int(dict(part.split("=", 1) for part in parts).get("mpiprocs", 1))] * times
        if listed.get("place") == "pack":
            nodes = [sum(nodes)]
        # NAME without a value has that of qsub's own environment.
        names = [pair.partition("=") for line in given.get("v", []) for pair in line.split(",")]
        variables = {name: value if equals else os.environ[name] for name, equals, value in names}
        after = [value for word in given.get("W", []) for value in re.findall(r"depend=afterany:(\d+)", word)]
        job = {"name": given["N"][-1], "resources": listed, "nodes": nodes, "variables": variables, "after": after}
        return f"{self.new(text, {**job, 'rerunnable': given.get('r', ['y'])[-1] == 'y'})}.{SERVER}\n"

    def qstat(self, words: list[str]) -> str:
        """Describe a job that has not ended: `qstat -f NUMBER`; long lines are broken."""
        option, name = words
        number = name.partition(".")[0]
        if option != "-f" or not self.path(number).exists():
            raise Refused(f"Unknown Job Id {name}")
        job = self.read(number)
        if job["state"] == "F":
            raise Refused(f"{name} Job has finished, use -x or -H to obtain historical job information")
        lines = [f"Job Id: {number}.{SERVER}", f"    Job_Name = {job['name']}", f"    job_state = {job['state']}"]
        if job["state"] == "R":
            # MoM reports from time to time.
            used = int(time.time() - job["started"]) // 5 * 5
            lines += [f"    resources_used.walltime = {used // 3600:02}:{used // 60 % 60:02}:{used % 60:02}"]
        lines += [f"    Resource_List.{key} = {value}" for key, value in job["resources"].items()]
        lines += ["    Variable_List = " + ",".join(f"PBS_O_NAME{n}=value" for n in range(9))]
        return "".join(re.sub(r"(.{78})(?=.)", r"\1\n\t", line) + "\n" for line in lines)

    def qdel(self, words: list[str]) -> str:
        """End a job for good."""
        (self.path(words[0].partition(".")[0]) / "deleted").touch()
        return ""

    def ready(self, job: dict) -> bool:
        """Whether the jobs that it waits for have ended."""
        return all(self.read(number)["state"] == "F" for number in job["after"])

    def home(self, job: dict) -> str:
        """Jobs do not start where they were submitted."""
        return str(self.path(job["number"]))

    def environment(self, job: dict, hosts: list[str]) -> dict[str, str]:
        """Nothing of the submitter's environment, but what -v names."""
        number = job["number"]
        own = {"PBS_JOBID": f"{number}.{SERVER}", "PBS_JOBNAME": job["name"], "PBS_O_WORKDIR": job["cwd"]}
        own |= {"PBS_NODEFILE": str(self.path(number) / "hosts"), "PBS_ENVIRONMENT": "PBS_BATCH"}
        cores = next(iter(re.findall(r"ncpus=(\d+)", job["resources"]["select"])), "1")
        path = f"{self.commands}:/usr/local/bin:/usr/bin:/bin"
        user = {"HOME": str(self.folder), "PATH": path, "NCPUS": cores, "OMP_NUM_THREADS": cores}
        return {**user, **own, **job["variables"]}

    def signals(self, job: dict, age: float):
        """(why, seconds after the first signal for it, signal) that are due."""
        hours, minutes, seconds = map(int, job["resources"].get("walltime", "99:00:00").split(":"))
        if (self.path(job["number"]) / "deleted").exists():
            yield from (("deleted", 0, "SIGTERM"), ("deleted", self.kill_delay, "SIGKILL"))
        elif age > hours * 3600 + minutes * 60 + seconds:
            yield from (("walltime", 0, "SIGTERM"), ("walltime", self.kill_delay, "SIGKILL"))


class Lsf(Scheduler):
    """LSF: scripts get the submitter's environment; a minute here is `minute` seconds."""

    programs = ("bsub", "bkill")
    directive = "#BSUB"
    minute = 10
    interval = 5

    def bsub(self, words: list[str]) -> str:
        """Submit the script that stands on standard input."""
        text = sys.stdin.read()
        given = self.options(text, words, "J n W q P o e Q wa wt R gpu", "r x")
        if given["script"]:
            raise Refused("the script comes on standard input")
        slots = int(given["n"][-1])
        ptile = int((re.findall(r"ptile=(\d+)", " ".join(given.get("R", []))) or [slots])[-1])
        job = {"name": given["J"][-1], "nodes": [ptile] * (slots // ptile), "rerunnable": "r" in given}
        job |= {
            "variables": dict(os.environ),
            # [HOURS:]MINUTES
            "limit": sum(
                int(part) * unit for part, unit in zip(given["W"][-1].split(":")[::-1], (1, 60), strict=False)
            ),
            "requeue": given.get("Q", [""])[-1].split(),
        }
        job |= {"warning": [given["wa"][-1], int(given["wt"][-1])] if "wa" in given and "wt" in given else []}
        return f"Job <{self.new(text, job)}> is submitted to default queue <normal>.\n"

    def bkill(self, words: list[str]) -> str:
        """End a job for good."""
        (self.path(words[0]) / "deleted").touch()
        return f"Job <{words[0]}> is being terminated\n"

    def again(self, job: dict, status: int) -> bool:
        """By the status, unless it was killed."""
        return str(status) in job["requeue"] and not (self.path(job["number"]) / "deleted").exists()

    def home(self, job: dict) -> str:
        """Where it was submitted."""
        return job["cwd"]

    def environment(self, job: dict, hosts: list[str]) -> dict[str, str]:
        """All of the submitter's environment, and LSF's own variables."""
        counts = " ".join(f"{host} {times}" for host, times in zip(hosts, job["nodes"], strict=True))
        own = {"LSB_JOBID": job["number"], "LSB_JOBNAME": job["name"], "LSB_JOBINDEX": "0", "LSB_MCPU_HOSTS": counts}
        own |= {"LSB_DJOB_HOSTFILE": str(self.path(job["number"]) / "hosts")}
        return {**job["variables"], **own}

    def signals(self, job: dict, age: float):
        """(why, seconds after the first signal for it, signal) that are due."""
        ends = [("SIGINT", 0), ("SIGTERM", self.interval), ("SIGKILL", 2 * self.interval)]
        if (self.path(job["number"]) / "deleted").exists():
            yield from (("deleted", after, name) for name, after in ends)
        elif age > job["limit"] * self.minute:
            yield from (("limit", after, name) for name, after in [("SIGUSR2", 0), *ends])
        elif job["warning"] and age > (job["limit"] - job["warning"][1]) * self.minute:
            yield "warning", 0, f"SIG{job['warning'][0]}"


def main() -> None:
    """Run one of the commands: KIND FOLDER COMMAND WORDS."""
    kind, folder, command, *words = sys.argv[1:]
    try:
        print(getattr({"Pbs": Pbs, "Lsf": Lsf}[kind](Path(folder)), command)(words), end="")
    except Refused as refused:
        sys.exit(f"{command}: {refused}")


if __name__ == "__main__":
    main()
