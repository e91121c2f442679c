"""What a job asks its scheduler for: nodes, GPUs spread evenly over them, time; and the options that say so."""

import re
import shlex
from dataclasses import dataclass

from hpc_train.errors import UserError
from hpc_train.sites.site import Partition, Site, seconds

MARKS = {"slurm": "#SBATCH", "pbs": "#PBS", "lsf": "#BSUB"}


@dataclass(frozen=True)
class Request:
    """The resources of a job."""

    partition: Partition
    nodes: int
    gpus_a_node: int
    type: str
    seconds: int
    """The time limit."""

    @property
    def cores_a_node(self) -> int:
        """The GPUs' share of a node's cores."""
        return self.gpus_a_node * (self.partition.cores_a_node // self.partition.gpus_a_node)


def choose(site: Site, nodes: int, gpus: int, partition: str, kind: str, time: str) -> Request:
    """The partition and shape of a job.

    Args:
        site: where.
        nodes: wanted; 0 for as few as hold the GPUs.
        gpus: in all; 0 for all of the nodes.
        partition: its name; empty for the first that can hold the job.
        kind: of the GPUs; empty for the partition's first.
        time: the limit, [DAYS-]HOURS:MINUTES:SECONDS or minutes.

    Raises:
        UserError: no partition can hold the job, or the GPUs do not spread evenly.
    """
    names = [one.name for one in site.partitions]
    if partition and partition not in names:
        raise UserError(f"{site.title} has no partition {partition} in its file: {', '.join(names)}")
    problems, limit = [], seconds(time, f"--time {time}")
    for one in site.partitions:
        if partition in ("", one.name) and (not kind or kind in one.types):
            try:
                return _fit(one, nodes, gpus, kind, limit)
            except UserError as error:
                problems.append(str(error))
    if not problems:
        types = sorted({name for one in site.partitions for name in one.types if partition in ("", one.name)})
        raise UserError(f"--gpu-type {kind}: {site.title} has {', '.join(types) or 'no names of types'} there")
    raise UserError("; ".join(problems))


def _fit(partition: Partition, nodes: int, gpus: int, wanted: str, limit: int) -> Request:
    most, name = partition.gpus_a_node, partition.name
    nodes = nodes or max(1, -(-gpus // most))
    each, over = divmod(gpus or nodes * most, nodes)
    if over or not 0 < each <= most or (partition.whole_nodes and each != most):
        even = [nodes * most] if partition.whole_nodes else [nodes * one for one in (each, each + 1) if 0 < one <= most]
        kind = "whole nodes" if partition.whole_nodes else "nodes"
        fits = " or ".join(map(str, even or [nodes * most]))
        raise UserError(f"{name} has {kind} with {most} GPUs each: {gpus} on {nodes} do not fit, --gpus {fits} does")
    if partition.most_nodes and nodes > partition.most_nodes:
        raise UserError(f"{name} takes jobs of at most {_many(partition.most_nodes, 'node')}, not {nodes}")
    if partition.most_gpus and nodes * each > partition.most_gpus:
        raise UserError(f"{name} takes jobs of at most {_many(partition.most_gpus, 'GPU')}, not {nodes * each}")
    if nodes < partition.least_nodes:
        raise UserError(f"{name} takes jobs of at least {partition.least_nodes} nodes, not {nodes}")
    longest = next((time for up_to, time in partition.shorter.items() if nodes <= int(up_to)), partition.most_time)
    if longest and limit > seconds(longest, name):
        raise UserError(f"{name} takes jobs of {_many(nodes, 'node')} for at most {longest}")
    return Request(partition, nodes, each, wanted or next(iter(partition.types), ""), limit)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def lines(site: Site, request: Request, name: str, account: str, stop_before: int, more: str) -> list[str]:
    """The scheduler's options, as a job script has them, one a line.

    Args:
        site: where.
        request: for what.
        name: of the job.
        account: that pays; may be empty.
        stop_before: seconds before the time limit at which the ranks shall stop.
        more: options of the user, in one string.
    """
    places = {
        "nodes": request.nodes,
        "gpus_a_node": request.gpus_a_node,
        "gpus": request.nodes * request.gpus_a_node,
        "cores_a_node": request.cores_a_node,
        "type": request.type,
    }
    shared = [site.partition.format(partition=request.partition.name), site.gpus.format_map(places), *site.options]
    own = [line for line in (*shared, *_words(more)) if line]
    hours, minutes = divmod(request.seconds // 60, 60)
    time = f"{hours:02}:{minutes:02}:{request.seconds % 60:02}"
    ranks = request.gpus_a_node
    if site.scheduler == "slurm":
        paying = [f"--account={account}"] if account else []
        resources = [f"--nodes={request.nodes}", f"--ntasks-per-node={ranks}"]
        resources += [f"--cpus-per-task={request.cores_a_node // ranks}", f"--time={time}"]
        going_on = [f"--signal=B:USR1@{stop_before}", "--requeue", "--open-mode=append", "--output=slurm-%x-%j.out"]
        return [f"--job-name={name}", *paying, *resources, *going_on, *own]
    if site.scheduler == "pbs":
        return [f"-N {name}", *([f"-A {account}"] if account else []), f"-l walltime={time}", "-j oe", "-r y", *own]
    paying = [f"-P {account}"] if account else []
    # A slot is a core; lsf.sh starts a rank for each GPU.
    cores = request.cores_a_node
    resources = [f"-n {request.nodes * cores}", f'-R "span[ptile={cores}]"', f"-W {time[:-3]}"]
    # LSF counts in whole minutes.
    going_on = ["-r -Q 75", f"-wa USR1 -wt {-(-stop_before // 60)}", "-o lsf-%J.out"]
    return [f"-J {name}", *paying, *resources, *going_on, *own]


# What `lines` sets.
_OWN = re.compile(
    r"--(nodes|ntasks\b|ntasks-per-node|gpus|gres=gpu|time|partition|account|job-name|signal|qos)\b|-[NnGtpAJq](?!\w*:)"
)


def _words(more: str) -> list[str]:
    """The user's options, each with its value, a line each."""
    try:
        words = shlex.split(more)
    except ValueError as error:
        raise UserError(f"--scheduler-options {more}: {error}") from error
    if own := [word for word in words if _OWN.match(word)]:
        ours = "--nodes, --gpus, --time, --partition, --account and --name, and the site's file"
        raise UserError(f"--scheduler-options {own[0]}: this is set by {ours}")
    lines: list[str] = []
    for word in words:
        if word.startswith("-") or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return lines
