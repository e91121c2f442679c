"""From the ranks' records to a paragraph: who is late, what it is doing, who waits for it, and what helps."""

from collections.abc import Mapping, Sequence

from hpc_train.watch import record
from hpc_train.watch.neighbours import BLOCKED, GONE, RUNS, STOPPED, UNKNOWN, Member

# What becomes of a rank that writes nothing, and what helps.
SILENT = {
    STOPPED: (
        "is stopped (SIGSTOP, Ctrl-Z, a debugger or a suspended node)",
        "find who stopped it; `kill -CONT` would have continued it",
    ),
    BLOCKED: (
        "is blocked in the kernel: storage or a driver does not answer",
        "look at the node's file systems and GPU (dmesg)",
    ),
    GONE: (
        "has ended without a word, as processes do that are killed",
        "look at the node's memory (dmesg, sacct), and give the job more",
    ),
    RUNS: (
        "runs, but its interpreter answers nobody: a native call holds its lock, or its file system is blocked",
        "look at the native library that it called: with --hang dump the process stays, for py-spy or gdb",
    ),
    UNKNOWN: (
        "writes nothing, and the other ranks of its node cannot see its process",
        "look at that process on its node: it is stopped, or a native call does not return",
    ),
}
# Phases in which the main thread takes a batch.
_READING = (record.COMPILE, record.STEP, record.VALIDATION)
_DEAD_NODE = (
    "is silent, with all ranks of its node: the node is down or cut off from the network or from this folder, or the "
    "ranks are stopped",
    "look at the node; ask for another one (--exclude)",
)
_STEPS = "every rank must make the same number of steps, and call the same collectives in the same order"


def paragraph(records: Mapping[int, dict], members: Sequence[Member], guards: Mapping[int, str] | None = None) -> str:
    """What holds a job up, from the records of the ranks that live.

    Args:
        records: by rank, as `hang` writes them.
        members: all ranks.
        guards: what the processes of ranks without a record are, by rank, as their guards say.
    """
    late = {**_silent(records, members, guards or {}), **_late(records)}
    if late:
        groups: dict[tuple[str, str], list[int]] = {}
        for rank, said in late.items():
            groups.setdefault(said, []).append(rank)
        told = "; ".join(f"{_named(numbers, members)} {what}" for (what, _), numbers in groups.items())
        helps = "; ".join(dict.fromkeys(help for _, help in groups))
    else:
        told, helps = _all_wait(records, members)
    waiting = [rank for rank in sorted(records) if rank not in late]
    if late and waiting:
        first = records[waiting[0]]
        told += f"; {ranks(waiting)} {'wait' if len(waiting) > 1 else 'waits'} in {_where(first)}{_tensors(first)}"
    return f"{told}. What helps: {helps}"


def _silent(
    records: Mapping[int, dict], members: Sequence[Member], guards: Mapping[int, str]
) -> dict[int, tuple[str, str]]:
    """What is known of the ranks that have written nothing."""
    hosts = {members[rank].host for rank in (*records, *guards)}
    seen = {**guards} | {int(rank): state for one in records.values() for rank, state in one["processes"].items()}
    found = {}
    for one in members:
        if one.rank not in records:
            found[one.rank] = SILENT[seen.get(one.rank, UNKNOWN)] if one.host in hosts else _DEAD_NODE
    return found


def _late(records: Mapping[int, dict]) -> dict[int, tuple[str, str]]:
    """Ranks that live and have not come to where the others wait."""
    waiting = {rank: one for rank, one in records.items() if one["operation"]}
    found = {rank: _busy(one) for rank, one in records.items() if rank not in waiting}
    behind = max((one["step"] for one in records.values()), default=0)
    tensors = {name for one in waiting.values() for name in one["tensors"] or ()}
    for rank, one in waiting.items():
        if one["tensors"] is not None and tensors and not tensors & set(one["tensors"]):
            own = f", runs {', '.join(one['own'])}" if one["own"] else ""
            found[rank] = (
                f"is in {_where(one)}{own}, and has not come to the collective of the others",
                "look at what that step calls on this rank: code in Python, a read of its data, an operation that "
                "waits for a thread",
            )
        elif one["step"] < behind and not tensors:
            found[rank] = f"is in step {one['step']}, the others are in step {behind}", _STEPS
    if found:
        return found
    places = {(one["operation"], one["step"]) for one in waiting.values()}
    sets = {tuple(one["tensors"]) for one in waiting.values() if one["tensors"] is not None}
    if len(places) > 1 or len(sets) > 1:
        return {rank: (f"is in {_where(one)}{_tensors(one)}", _STEPS) for rank, one in waiting.items()}
    return {}


def _busy(one: dict) -> tuple[str, str]:
    """Of a rank that is in no collective."""
    place = one["place"]
    at = f"at {place['line']}" + (f" (`{place['source']}`)" if place["source"] else "")
    if one["phase"] == record.INPUT or (one["reads"] and one["phase"] in _READING):
        reading = f" ({', '.join(one['reads'][:3])})" if one["reads"] else ""
        return (
            f"waits for its data in {_phase(one)}: a read does not return{reading}",
            "look at the storage that its files are on, for pipes and for dead mounts; its threads' stacks show which "
            "file it reads",
        )
    if place["waits"]:
        what = "a lock" if place["waits"] == "lock" else "another thread"
        return (
            f"waits for {what} of its own process {at}, in {_phase(one)}",
            "look for threads that wait for each other in its stacks",
        )
    if one["phase"] == record.EPOCH_END:
        return f"has no further step in its epoch after step {one['step']}, {at}", _STEPS
    if one["phase"] == record.END:
        return f"has ended its training after step {one['step']}, {at}", _STEPS
    return f"stands {at}, in {_phase(one)}", "look at what that line waits for"


def _all_wait(records: Mapping[int, dict], members: Sequence[Member]) -> tuple[str, str]:
    first = records[min(records)]
    whom = "all ranks have" if len(members) > 1 else "the process has"
    return (
        f"{whom} come to {_where(first)}{_tensors(first)}, and it does not end",
        "look at the network between the nodes, and at NCCL (NCCL_DEBUG=INFO)",
    )


def _phase(one: dict) -> str:
    return f"the phase {one['phase']} of step {one['step']}" if one["step"] else f"the phase {one['phase']}"


def _where(one: dict) -> str:
    step = f"step {one['step']} (epoch {one['epoch']})" if one["step"] else f"the phase {one['phase']}"
    return f"{step}, in {one['operation']} ({one['place']['line']})" if one["operation"] else step


def _tensors(one: dict) -> str:
    # Operations outside a graph have no name of their own.
    names = [name for name in one["tensors"] or () if not name.startswith("Horovod")]
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f", for {', '.join(names[:3])}{more}"


def _named(numbers: Sequence[int], members: Sequence[Member]) -> str:
    hosts = ", ".join(dict.fromkeys(members[rank].host for rank in numbers[:4]))
    return f"{ranks(numbers)} of {len(members)} (on {hosts}){', each of which' if len(numbers) > 1 else ''}"


def ranks(numbers: Sequence[int]) -> str:
    """Ranks in words: "rank 3", "ranks 0, 1, 2, 3 and 12 more"."""
    shown = ", ".join(map(str, numbers[:4])) + (f" and {len(numbers) - 4} more" if len(numbers) > 4 else "")
    return f"rank{'s' * (len(numbers) > 1)} {shown}"
