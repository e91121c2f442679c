"""The launcher, the job, the number of ranks, and their CPUs, judged from the facts of the ranks."""

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from hpc_train.doctor.facts import Facts
from hpc_train.doctor.findings import Finding, plural, some
from hpc_train.errors import UserError
from hpc_train.parallel import shared_memory
from hpc_train.parallel.launcher import GLOO, Launcher, wrong_size
from hpc_train.requirements import BUILD
from hpc_train.sites.new_site import misfits
from hpc_train.sites.site import OWN, find


def launcher_finding(launcher: Launcher, env: Mapping[str, str] = os.environ) -> Finding:
    """The launcher that started this process, and whether others may talk to it."""
    if not launcher.name:
        return Finding("launcher", "ok", "none: one process")
    size = plural(launcher.size, "rank") if launcher.size else "which does not say how many ranks it started"
    if launcher.name == GLOO and "/" not in env.get("HOROVOD_GLOO_RENDEZVOUS_ADDR", "/"):
        value = f"{launcher.name}, {size}; anybody on its network can end this job: Horovod's build is an old one"
        return Finding("launcher", "note", value, f"run `{BUILD}`, or start with srun or mpirun")
    return Finding("launcher", "ok", f"{launcher.name}, {size}")


def slurm_finding(env: Mapping[str, str] = os.environ) -> Finding:
    """The Slurm job and step of this process."""
    if not env.get("SLURM_JOB_ID"):
        return Finding("Slurm", "ok", "not inside a job")
    step = f"step {env['SLURM_STEP_ID']}" if env.get("SLURM_STEP_ID", "").isdigit() else "not in a step of srun"
    nodes = int(env.get("SLURM_JOB_NUM_NODES", "1"))
    return Finding("Slurm", "ok", f"job {env['SLURM_JOB_ID']}, {step}, {plural(nodes, 'node')}")


def shared_memory_finding(launcher: Launcher) -> Finding:
    """Whether the node's shared memory is large enough for the ranks of this launch, or for two of them."""
    planned = launcher if launcher.size > 1 else replace(launcher, name="", size=2)
    if problem := shared_memory.too_small(planned):
        return Finding("shared memory", "wrong", problem, shared_memory.REMEDY)
    return Finding("shared memory", "ok", shared_memory.FOLDER)


def home_finding() -> Finding | None:
    """A home folder in which nothing can be written; None where it can."""
    home = os.path.expanduser("~")
    if os.access(os.path.join(home, ".horovod") if os.path.isdir(os.path.join(home, ".horovod")) else home, os.W_OK):
        return None
    how = "where another program keeps files there, set HOME to a folder of your own"
    return Finding("home", "note", f"{home} cannot be written: nothing is kept there from start to start", how)


def judge_world(
    launcher: Launcher, size: int, everybody: list[Facts], family: str | None, env: Mapping[str, str] = os.environ
) -> Finding:
    """Judge whether all ranks that the launcher started are there, and how they are spread over the nodes.

    Args:
        launcher: the launcher, as the environment describes it.
        size: number of ranks in Horovod's world.
        everybody: facts of each rank.
        family: family of the MPI that Horovod is linked with.
        env: the variables in which Slurm says what the job requested.
    """
    if problem := wrong_size(launcher, size, family):
        return Finding("world", "wrong", *problem)
    counts = [len(node) for node in by_node(everybody).values()]
    low, high = min(counts), max(counts)
    value = f"{plural(size, 'rank')} on {plural(len(counts), 'node')}"
    if low != high:
        how = "start the same number of ranks on each node, so that they are equally fast"
        return Finding("world", "note", f"{value}, unevenly: {low} to {high} a node", how)
    if len(counts) > 1:
        value += f", {low} a node"
    # In a step these variables describe the step, and in the ranks of an mpirun they describe its proxies.
    outside = not env.get("SLURM_STEP_ID", "").isdigit()
    asked = env.get("SLURM_NTASKS", "")
    if outside and asked.isdigit() and int(asked) > size:
        how = "start the ranks with srun or mpirun" if size == 1 else f"to use all of them: mpirun -n {asked}"
        return Finding("world", "note", f"{value}; the job has {asked} tasks", how)
    nodes = env.get("SLURM_JOB_NUM_NODES", "")
    if launcher.size > 1 and nodes.isdigit() and int(nodes) > len(counts):
        how = "spread the ranks (mpirun -ppn, srun --ntasks-per-node), or request fewer nodes"
        return Finding("world", "note", f"{value}; the job has {nodes} nodes", how)
    return Finding("world", "ok", value)


def site_finding() -> Finding | None:
    """Whether the site's file fits the cluster; None where there is no slurm/site.toml here, or no Slurm."""
    if not OWN.is_file():
        return None
    try:
        site = find("")
    except UserError as error:
        return Finding("site", "wrong", str(error), f"correct {OWN}")
    try:
        wrong = misfits(site)
    except UserError as error:
        return Finding("site", "note", f"{OWN} is not compared with the cluster: {error}")
    if wrong:
        return Finding("site", "wrong", f"{OWN} does not fit this cluster: {'; '.join(wrong)}", f"correct {OWN}")
    return Finding("site", "ok", f"{OWN}: {site.title}")


def judge_cpus(everybody: list[Facts]) -> Finding:
    """Judge whether each rank has a CPU of its own, and how many threads each rank runs."""
    crowded = []
    for name, ranks in by_node(everybody).items():
        union = 0
        for facts in ranks:
            union |= facts.mask
        if len(ranks) > union.bit_count():
            crowded.append((len(ranks) / union.bit_count(), name, len(ranks), union.bit_count(), ranks[0].node_cpus))
    first = everybody[0]
    threads = sorted({facts.threads for facts in everybody})
    each = str(threads[0]) if len(threads) == 1 else f"{threads[0]} to {threads[-1]}"
    if crowded:
        _, name, count, cpus, node = max(crowded)
        value = f"more ranks than CPUs: {plural(count, 'rank')} on {plural(cpus, 'CPU')} of {name}"
        if len(crowded) > 1:
            value += f"; also on {some(sorted(other for _, other, *_ in crowded if other != name))}"
        if cpus < node:
            how = f"the node has {node} CPUs: give each rank its own (srun --cpus-per-task, mpirun -bind-to none)"
        else:
            how = f"start at most {plural(cpus, 'rank')} a node, or request nodes with more CPUs"
        return Finding("CPUs", "wrong", value, how)
    value = f"{plural(first.cpus, 'CPU')} and {each} {'thread' if each == '1' else 'threads'} for each rank"
    false = next((facts for facts in everybody if facts.claimed > facts.node_cpus), None)
    if false:
        value += f"; Slurm gave {false.claimed} CPUs of {false.host}, which has {false.node_cpus}"
        how = "other jobs may use the same CPUs: ask the administrator to correct slurm.conf"
        return Finding("CPUs", "note", value, how)
    if first.cpus == 1 and first.node_cpus >= 2 * first.local_size:
        how = f"give sbatch and srun --cpus-per-task={first.node_cpus // first.local_size}, so that data are read ahead"
        return Finding("CPUs", "note", f"{value}; {first.host} has {first.node_cpus} CPUs", how)
    return Finding("CPUs", "ok", value)


def by_node(everybody: list[Facts]) -> dict[str, list[Facts]]:
    """The ranks of each node, by the node's name."""
    nodes = defaultdict(list)
    for facts in everybody:
        nodes[facts.host].append(facts)
    return nodes
