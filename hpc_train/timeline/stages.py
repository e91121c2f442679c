"""In which stage each tensor is, and how long each stage holds tensors.

The first rank that has a tensor announces it, and it is negotiated until the last rank has it. Then it waits in the
queue until rank 0 begins its operation: Horovod begins one operation after the other. An operation consists of
activities, one at a time. So at any time a tensor is in one stage or in none. GPU operations end in threads of their
own and may overlap.
"""

import sys

from hpc_train.timeline.quantiles import Quantiles

STAGES = {
    "negotiation": "some ranks do not have the tensor yet",
    "queueing": "all ranks have it; other tensors go first",
    "waiting for data": "the GPU still computes it, or others of the same operation",
    "preparing": "buffers are made",
    "fusion copy in": "copied to the buffer that it shares with others",
    "collective": "sent, received and summed",
    "fusion copy out": "copied back",
    "other": "in the operation, between these stages",
}
OPERATIONS = {"ALLREDUCE", "ALLGATHER", "BROADCAST", "ADASUM", "ALLTOALL", "REDUCESCATTER", "ERROR"}
# These send nothing: they end with their negotiation.
_SIGNALS = {"NEGOTIATE_JOIN", "NEGOTIATE_BARRIER"}
# The stage by the beginning of the activity's name (Horovod's common/common.h).
_ACTIVITIES = (
    ("WAIT_FOR_", "waiting for data"),
    ("QUEUE", "queueing"),
    ("INIT_", "preparing"),
    ("ALLOCATE_", "preparing"),
    ("MEMCPY_IN_", "fusion copy in"),
    ("MEMCPY_OUT_", "fusion copy out"),
    ("COPY_", "fusion copy out"),
    (("MPI_", "NCCL_", "GLOO_", "CCL_"), "collective"),
)


class Stage:
    """How long tensors are in a stage, in us.

    Attributes:
        summed: sum of the times of all tensors.
        wall: time with at least one tensor in the stage.
        times: how often a tensor came into the empty stage.
    """

    __slots__ = ("inside", "name", "since", "summed", "times", "wall")

    def __init__(self, name: str):
        self.name = name
        self.summed = self.wall = self.times = 0
        self.inside = self.since = 0

    def enter(self, now: int) -> None:
        """A tensor comes into the stage."""
        if not self.inside:
            self.since = now
            self.times += 1
        self.inside += 1

    def leave(self, now: int, since: int) -> None:
        """A tensor leaves that has been in the stage since `since`."""
        self.summed += now - since
        self.inside -= 1
        if not self.inside:
            self.wall += now - self.since


class Tensor:
    """Where a tensor is."""

    def __init__(self, name: str, waits: "Waits"):
        self.name, self.waits = name, waits
        self.stage: Stage | None = None
        self.since = self.announced = 0
        self.kind: str | None = None
        """The operation that has begun."""
        self.activity = self.signal = False
        self.sender: Stage | None = None
        self.ranks: list[str] = []
        """The ranks that have announced it, in order, if Horovod recorded them."""
        self.ticks = (0, 0)
        """When the last two announced it."""


class Waits:
    """How long the tensors with one name wait, from the first announcement to the operation, in us."""

    __slots__ = ("count", "longest", "total")

    def __init__(self):
        self.count = self.total = self.longest = 0

    def add(self, wait: int) -> None:
        """Add a wait."""
        self.count += 1
        self.total += wait
        self.longest = max(self.longest, wait)


class Stages:
    """Follows every tensor through its stages.

    Attributes:
        stages: the stages by name, as in STAGES.
        busy: all stages as one.
        negotiations: how long the negotiations took.
        senders: the activities that send, such as MPI_ALLREDUCE, by name; measured like stages.
    """

    def __init__(self):
        self.stages = {name: Stage(name) for name in STAGES}
        self.busy = Stage("busy")
        self.negotiations = Quantiles()
        self.senders: dict[str, Stage] = {}
        self._negotiation, self._queueing, self._other = (
            self.stages[name] for name in ("negotiation", "queueing", "other")
        )
        self._of_activity: dict[str, Stage] = {}

    def begin(self, tensor: Tensor, name: str, now: int) -> None:
        """A negotiation, an operation or an activity begins."""
        if name.startswith("NEGOTIATE_"):
            tensor.announced, tensor.kind, tensor.activity = now, None, False
            tensor.signal, tensor.ranks = name in _SIGNALS, []
            self._move(tensor, self._negotiation, now)
        elif tensor.kind:
            tensor.activity = True
            self._move(tensor, self._of_activity.get(name) or self._stage_of(name), now)
            tensor.sender = self.senders.get(name)
            if tensor.sender:
                tensor.sender.enter(now)
        elif name in OPERATIONS:
            if tensor.stage:
                tensor.waits.add(now - tensor.announced)
            tensor.kind = name
            self._move(tensor, self._other, now)

    def announce(self, tensor: Tensor, rank: str, now: int) -> None:
        """A rank announces a tensor."""
        if tensor.stage is self._negotiation:
            tensor.ranks.append(sys.intern(rank))
            tensor.ticks = tensor.ticks[1], now

    def end(self, tensor: Tensor, now: int) -> str | None:
        """What began last ends.

        Returns:
            The kind of the operation if it was one, "NEGOTIATE" for a negotiation, else None.
        """
        if tensor.activity:
            tensor.activity = False
            self._move(tensor, self._other, now)
        elif tensor.kind:
            kind, tensor.kind = tensor.kind, None
            self._move(tensor, None, now)
            return kind
        elif tensor.stage is self._negotiation:
            self.negotiations.add(now - tensor.announced)
            self._move(tensor, None if tensor.signal else self._queueing, now)
            return "NEGOTIATE"
        return None

    def lose(self, tensor: Tensor, now: int) -> None:
        """Events are lost: it is no longer known in which stage the tensor is."""
        tensor.kind, tensor.activity = None, False
        self._move(tensor, None, now)

    def _move(self, tensor: Tensor, stage: Stage | None, now: int) -> None:
        before = tensor.stage
        if tensor.sender:
            tensor.sender.leave(now, tensor.since)
            tensor.sender = None
        if stage:
            stage.enter(now)
            if not before:
                self.busy.enter(now)
        if before:
            before.leave(now, tensor.since)
            if not stage:
                self.busy.leave(now, now)
        tensor.stage, tensor.since = stage, now

    def _stage_of(self, activity: str) -> Stage:
        stage = next((stage for begins, stage in _ACTIVITIES if activity.startswith(begins)), "other")
        if stage == "collective":
            self.senders[activity] = Stage(activity)
        self._of_activity[activity] = self.stages[stage]
        return self.stages[stage]
