"""`hpc-train submit --new-site`: asks Slurm what it has, and writes a first file of the site."""

import collections
import datetime
import re
import shutil
import subprocess

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.sites.site import KNOWN, OWN, Site, read, save

_SINFO = ("sinfo", "-h", "-o", "%P|%G|%c|%l|%D")
_WANTED = re.compile(r"(?i)^[^\s:]*(mpi|cuda|nccl|tensorflow|horovod)[^\s:]*$")


def write() -> None:
    """Ask Slurm, and write slurm/site.toml.

    Raises:
        UserError: there is no Slurm here, it has no GPUs, or the file is there already.
    """
    if OWN.exists():
        raise UserError(f"there is a {OWN} already: edit it, or move it away")
    if not shutil.which("sinfo"):
        other = f"copy {KNOWN}/polaris.toml to {OWN} and edit it where the site has PBS"
        raise UserError(f"--new-site asks Slurm, and there is no sinfo here: run it on a login node, or {other}")
    found = partitions(_asked(*_SINFO))
    if not found:
        raise UserError("--new-site: sinfo shows no partition with GPUs (Gres gpu)")
    text = describe(found, _asked("scontrol", "show", "config"), _asked("bash", "-lc", "module -t avail 2>&1"))
    read(text, OWN)
    save(OWN, text)
    say(f"wrote {OWN} from what Slurm says here: {', '.join(found)}")
    say("next: correct it by the site's own page, then try `hpc-train submit mnist --dry-run -- --data DIR`")


def misfits(site: Site) -> list[str]:
    """What a site's file says otherwise than Slurm does here; empty where there is no Slurm."""
    if site.scheduler != "slurm" or not shutil.which("sinfo"):
        return []
    found = partitions(_asked(*_SINFO))
    wrong = []
    for one in site.partitions if found else ():
        here = found.get(one.name)
        if here is None and "{partition}" in site.partition and "--partition" in site.partition:
            wrong.append(f"no partition {one.name} with GPUs, but {', '.join(found)}")
        elif here and here["gpus_a_node"] != one.gpus_a_node:
            wrong.append(f"{one.name}: {here['gpus_a_node']} GPUs a node, not {one.gpus_a_node}")
        elif here and here["cores_a_node"] < one.cores_a_node:
            wrong.append(f"{one.name}: {here['cores_a_node']} cores a node, not {one.cores_a_node}")
        elif here and set(one.types) - set(here["types"]):
            wrong.append(f"{one.name}: GPUs called {', '.join(here['types']) or 'nothing'}, not {', '.join(one.types)}")
    return wrong


def partitions(told: str) -> dict[str, dict]:
    """The partitions with GPUs.

    Args:
        told: lines of sinfo, PARTITION|GRES|CPUS|TIMELIMIT|NODES; the default partition has an asterisk.

    Returns:
        For each name the keys of a `Partition`: of its most frequent kind of node.
    """
    kinds: dict[str, collections.Counter] = {}
    for line in told.splitlines():
        name, gres, cpus, limit, nodes = (*line.split("|"), "", "", "", "")[:5]
        gpus = re.findall(r"gpu:(?:([^:(,]+):)?(\d+)", gres)
        count, cores = sum(int(number) for _, number in gpus), re.match(r"\d+", cpus)
        if count and cores:
            kind = (count, int(cores[0]), limit, tuple(sorted({kind for kind, _ in gpus if kind})))
            kinds.setdefault(name, collections.Counter())[kind] += int(nodes or 1)
    kinds = {name.rstrip("*"): counted for name, counted in sorted(kinds.items(), key=lambda one: "*" not in one[0])}
    found = {}
    for name, counted in kinds.items():
        (count, cores, limit, _), _ = counted.most_common(1)[0]
        types = [kind for (*_, names), _ in counted.most_common() for kind in names]
        limit = f"0:{limit}" if re.fullmatch(r"\d+:\d\d", limit) else limit
        most = {"most_time": limit} if re.fullmatch(r"(\d+-)?\d+:\d\d:\d\d", limit) else {}
        found[name] = {"gpus_a_node": count, "cores_a_node": cores, "types": list(dict.fromkeys(types)), **most}
    return found


def describe(found: dict[str, dict], config: str, modules: str) -> str:
    """The text of a site's file.

    Args:
        found: see `partitions`.
        config: what `scontrol show config` prints.
        modules: what `module -t avail` prints.
    """
    settings = dict(re.findall(r"(?m)^(ClusterName|MpiDefault|JobRequeue|SLURM_VERSION) *= *(\S+)", config))
    names = sorted({line for line in modules.split() if _WANTED.match(line)})
    typed = any(one["types"] for one in found.values())
    lines = [
        "# Written by `hpc-train submit --new-site`: correct it by the site's own page.",
        *(f"# Slurm says {name} = {value}" for name, value in settings.items()),
        f"title = {_text(settings.get('ClusterName', 'my cluster'))}",
        'scheduler = "slurm"',
        f"read = {datetime.date.today()}",
        "# The option that asks for GPUs: --gpus-per-node={type}:{gpus_a_node}, --gres=gpu:{type}:{gpus_a_node},",
        "# --gpus={type}:{gpus}, --gpus-per-task=1, or an empty text where nodes come with theirs.",
        f"gpus = {_text('--gpus-per-node={type}:{gpus_a_node}' if typed else '--gpus-per-node={gpus_a_node}')}",
        f"# Modules here: {' '.join(names) or 'none found'}",
        'modules = ""',
    ]
    for name, one in found.items():
        quoted = name if re.fullmatch(r"[\w-]+", name) else _text(name)
        lines += ["", f"[partitions.{quoted}]"]
        lines += [f"{key} = {_value(value)}" for key, value in one.items()]
    return "\n".join(lines) + "\n"


def _value(value) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return str(value) if isinstance(value, int) else _text(value)


def _text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _asked(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"`{command[0]}` does not answer: {error}") from error
    if done.returncode and command[0] != "bash":
        raise UserError(f"`{' '.join(command)}` does not answer: {' '.join(done.stderr.split())}")
    return done.stdout
