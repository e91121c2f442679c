"""Clusters that ask of jobs what sites do by their public pages: partitions, GPUs and their types, refusals."""

import cluster

from hpc_train.sites.site import Site, find

# What the pages say that a job is refused for; the words of the answers are ours.
_LUA = """
function slurm_job_submit(job, partitions, user)
  local gpus = (job.tres_per_node or '') .. (job.tres_per_job or '') .. (job.tres_per_task or '')
  if not gpus:find('gpu') then gpus = '' end -- since 24.11 a task's cores are there as well
  %s
  return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, user) return slurm.SUCCESS end
return slurm.SUCCESS
"""


def _refuse(condition: str, why: str) -> str:
    return f"if {condition} then slurm.log_user('{why}'); return slurm.ERROR end\n  "


_WITHOUT_GPUS = _refuse("gpus == ''", "give the GPUs")
_TACC = _refuse(
    "gpus ~= '' or (job.pn_min_memory or 0) > 0 and job.pn_min_memory < 2 ^ 40", "this option is not supported"
)
RULES = {
    "bridges2": _WITHOUT_GPUS
    + _refuse("job.partition == 'GPU' and not (job.tres_per_job or ''):match(':%d*[08642]$')", "GPU has whole nodes"),
    "perlmutter": _WITHOUT_GPUS
    + _refuse("job.features ~= 'gpu' or not job.account", "Job request does not match any supported policy."),
    "lonestar6": _TACC,
    "vista": _TACC,
    "mahti": _refuse("not (job.tres_per_node or ''):match('gpu:a100:')", "give --gres=gpu:a100:N")
    + _refuse("not job.account", "the account is missing"),
    "roihu": _refuse("not (job.tres_per_node or ''):match('gpu:gh200:')", "give --gres=gpu:gh200:N")
    + _refuse("not job.account", "the account is missing"),
    "juwels": _WITHOUT_GPUS + _refuse("not job.account", "the account is missing"),
    "lumi": _WITHOUT_GPUS + _refuse("not job.account", "the account is missing"),
    "frontier": _refuse("not job.account", "the account is missing"),
    "alps": _refuse("not (job.tres_per_task or ''):match('gpu')", "each rank would take the first GPU"),
}
# Options of sbatch as the sites' pages (docs/sites.md) write them for jobs of one rank a GPU.
LINES = {
    "bridges2": ("-p GPU -N 2 --gpus=v100-32:16", "-p GPU-shared --nodes=1 --gpus=v100-32:4"),
    "perlmutter": ("-C gpu -q regular -A abc -N 2 --ntasks-per-node 4 --cpus-per-task 32 --gpus-per-node 4",),
    "mahti": ("-p gpumedium -A abc --nodes=2 --ntasks-per-node=4 --cpus-per-task=32 --gres=gpu:a100:4",),
    "roihu": ("-p gpularge -A abc --nodes=2 --ntasks-per-node=4 --cpus-per-task=72 --gres=gpu:gh200:4",),
    "juwels": ("-p booster -A abc --nodes=2 --gres=gpu:4 --ntasks-per-node 4",),
    "lumi": ("-p standard-g -A abc --nodes=2 --ntasks-per-node=8 --gpus-per-node=8",),
    "alps": ("-p normal --nodes=2 --ntasks-per-node=4 --gpus-per-task=1",),
    "lonestar6": ("-p gpu-a100 -N 2 --ntasks-per-node=3",),
    "vista": ("-p gh -N 2 --ntasks-per-node=1",),
}
# The launcher that `srun` takes by default; of Cray's own plugin hpc-train cannot know what it would do.
DEFAULTS = {"perlmutter": "pmi2", "alps": "pmi2", "mahti": "pmi2", "roihu": "pmi2"}


# Of two nodes, from the pages again, not from the files of the sites: GPUs, cores, type, and the partitions that give
# whole nodes, or parts.
SHAPES = {
    "bridges2": (8, 40, "v100-32", "GPU", "GPU-shared"),
    "perlmutter": (4, 128, "", "regular debug preempt", "shared"),
    "mahti": (4, 128, "a100", "gpumedium", "gpusmall gputest"),
    "roihu": (4, 288, "gh200", "gpularge", "gpumedium gputest"),
    "juwels": (4, 48, "", "booster develbooster", ""),
    "lumi": (8, 56, "", "standard-g", "small-g dev-g"),
    "frontier": (8, 56, "", "extended", ""),
    "alps": (4, 288, "", "normal debug low", ""),
    "lonestar6": (3, 128, "", "gpu-a100 gpu-a100-dev", ""),
    "vista": (1, 72, "", "gh gh-dev", ""),
}


def fake(name: str) -> tuple[Site, cluster.Cluster]:
    """The site of a name, and a cluster of two nodes like its own."""
    gpus, cores, kind, whole, parts = SHAPES[name]
    lines = [f"PartitionName={one} Nodes=ALL DefaultTime=5 OverSubscribe=EXCLUSIVE" for one in whole.split()]
    lines += [
        f"PartitionName={one} Nodes=ALL DefaultTime=5 MaxTime={15 if one == 'gputest' else 'INFINITE'} OverSubscribe=NO"
        for one in parts.split()
    ]
    return find(name), cluster.Cluster(
        gpus=(gpus, gpus),
        cpus=cores,
        gpu_type=kind,
        mpi_default=DEFAULTS.get(name, "none"),
        job_submit=_LUA % RULES[name],
        conf=tuple(lines),
    )
