"""How much memory this process may have, and how many processes the kernel has killed for want of it."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ROOT, _OF_PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
CGROUP, NODE = "cgroup", "node"


def killed() -> dict[str, int]:
    """Processes killed for want of memory so far, in this process's cgroup and on the node, as far as that is known."""
    counts = {}
    with suppress(OSError, ValueError):
        counts[NODE] = _number(Path("/proc/vmstat"), "oom_kill")
    for folder, (events, _) in _cgroups():
        with suppress(OSError, ValueError):
            counts[CGROUP] = _number(folder / events, "oom_kill")
            break
    return counts


def limit() -> int:
    """Bytes that this process may have, of its cgroups' and the node's; 0 where nothing tells."""
    found = []
    with suppress(OSError, ValueError):
        found.append(_number(Path("/proc/meminfo"), "MemTotal:") * 1024)
    for folder, (_, most) in _cgroups():
        with suppress(OSError, ValueError):
            found.append(int((folder / most).read_text()))
    return min(found, default=0)


def _number(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        if (words := line.split())[:1] == [name]:
            return int(words[1])
    raise ValueError(f"{file} has no {name}")


def _cgroups() -> Iterator[tuple[Path, tuple[str, str]]]:
    """This process's cgroup and those around it, and the names of the files with kills and limit."""
    with suppress(OSError):
        for line in _OF_PROCESS.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            root = _ROOT / "memory" if kinds else _ROOT
            names = ("memory.oom_control", "memory.limit_in_bytes") if kinds else ("memory.events", "memory.max")
            inner = root / path.lstrip("/")
            for folder in (inner, *inner.parents):
                # A container may see its own cgroup as the root.
                if (folder / names[0]).exists():
                    yield folder, names
                if folder == root:
                    break
