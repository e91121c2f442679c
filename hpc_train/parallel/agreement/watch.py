"""A thread in which ranks tell each other where they are: so they stop together, and see who waits in vain.

Every second the ranks exchange a few numbers, whatever their main threads do. This costs a step nothing. It settles two
things:

- A rank that wants to stop after a step makes no further one until all ranks know. All then end with the first step
  that none of them has passed: exactly this one if all want to stop here, at most one later otherwise.
- If every rank has waited in a collective for 45 seconds, and not all of them in the same one, they would wait without
  end: the job ends with a line that says where they are.
"""

import atexit
import json
import sys
import threading
import time
from functools import cache, wraps

import numpy as np

from hpc_train.errors import UserError
from hpc_train.watch.hang import HANG
from hpc_train.watch.standing import Standing, standing
from hpc_train.watch.verdict import ranks

# Seconds between two exchanges, and those after which ranks that all wait are looked at.
_PAUSE = 1.0
PATIENCE = 45
_FOR_EVER = 10**6
# Bytes in which a rank says where it is.
_ROOM = 512


class Watch:
    """This rank's place in its epochs, and the thread that exchanges it with the other ranks.

    The main thread calls the methods; `decided` is the step after which all ranks stop, or None. `over` is true when
    only a `fit` may begin the exchange again.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self.over = False
        self._reset()

    def _reset(self) -> None:
        self.epoch = 0
        self._done = self._bound = 0
        self._batches = 0
        self._in_epoch = False
        self._wishes = self._voting = False
        self._leaving = 0
        self.decided: int | None = None
        self._standing: Standing | None = None
        self._since = time.monotonic()
        self._asked = 0

    def begin(self) -> None:
        """Begin a `fit`; every rank calls it at the same point."""
        with self._change:
            self._reset()
        if self._thread is None:
            atexit.register(self.end)
        if not self.running():
            self._thread = threading.Thread(target=self._run, name="hpc-train-watch", daemon=True)
            self._thread.start()

    def end(self, over: bool = False) -> None:
        """End the exchange on all ranks, so that none waits for another's thread.

        Args:
            over: for loops of the user's own there is none from here on, on any rank.
        """
        thread = self._thread
        with self._change:
            self._leaving = 2 if over else 1
            self.over |= over
            self._change.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=10)

    def begin_epoch(self) -> None:
        """The first step of an epoch comes next."""
        with self._change:
            self.epoch += 1
            self._batches = 0
            self._bound = self._done + 1
            self._in_epoch = True

    def leave_epoch(self) -> None:
        """The epoch has no further step on this rank."""
        with self._change:
            self._in_epoch = False
            self._bound = self._done

    def end_step(self, batches: int, wishes: bool, last: bool = False) -> bool:
        """A step has ended; it waits for the other ranks only when some rank wishes to stop.

        Args:
            batches: those of the epoch that this rank has trained.
            wishes: whether this rank wishes to stop now.
            last: whether it is known to be the epoch's last step, so that nothing needs to be settled here.

        Returns:
            Whether all ranks stop after this step.
        """
        with self._change:
            self._done += 1
            self._batches = batches
            if last:
                return wishes
            if wishes and self.decided is None:
                self._wishes = True
                self._change.notify_all()
            while (self._wishes or self._voting) and self.decided is None and self.running():
                self._change.wait(_PAUSE)
            if self.decided is not None and self._done >= self.decided:
                return True
            self._bound = self._done + 1
            return False

    def running(self) -> bool:
        """Whether this rank takes part in the exchange."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._exchange():
                with self._change:
                    if not (self._wishes or self._voting or self._leaving) or self.decided is not None:
                        self._change.wait(_PAUSE)
        except UserError as error:
            # The main threads wait in collectives: only this one can still end the ranks.
            sys.excepthook(UserError, error, None)
        except Exception:
            # Horovod has ended here or elsewhere; the main thread sees that by itself.
            self.over = True
        finally:
            HANG.allow(None)
            with self._change:
                self._change.notify_all()

    def _exchange(self) -> bool:
        """Exchange numbers once; returns whether some rank leaves. Collective."""
        asked = time.monotonic()
        with self._change:
            waited, voted = self._waited(), self._voting
            mine = [-int(self._wishes), -self._bound, -self._leaving, waited, -int(min(HANG.left(), _FOR_EVER))]
        wish, bound, leaving, waited, left = map(int, _smallest(np.array(mine, "int64")))
        HANG.allow(-left, asked)
        self._asked = min(self._asked, waited)
        if waited >= self._asked + PATIENCE:
            self._asked = waited
            self._compare(waited)
        with self._change:
            if voted:
                self.decided, self._voting = -bound, False
            elif wish and self.decided is None:
                # From here on no rank goes further than it is bound to; the next exchange says how far that is.
                self._voting = True
            self.over |= leaving == -2
            self._change.notify_all()
        return bool(leaving)

    def _waited(self) -> int:
        """Seconds for which the main thread has been in the same call of Horovod."""
        now, before = standing(), self._standing
        if now is None or before is None or now.frame is not before.frame:
            self._since = time.monotonic()
        self._standing = now
        return int(time.monotonic() - self._since) if now else 0

    def _compare(self, waited: int) -> None:
        """Find out whether the ranks wait in different places. Collective.

        Raises:
            UserError: on every rank, when they do.
        """
        place = str(self._standing)[:400] if self._standing else ""
        everybody = [tuple(row) for row in _gather([place, self.epoch, self._batches, self._in_epoch])]
        if len({row[0] for row in everybody}) == 1:
            return
        short = [rank for rank, (*_, within) in enumerate(everybody) if not within]
        if short and len(short) < len(everybody) and len({epoch for _, epoch, *_ in everybody}) == 1:
            others = [rank for rank in range(len(everybody)) if rank not in short]
            raise UserError(
                f"{ranks(short)} ended epoch {self.epoch} of this fit after {everybody[short[0]][2]} batches, and "
                f"{ranks(others)} did not: every rank must make the same number of steps; cut the shares to the same "
                "length, or repeat() the data and give steps_per_epoch"
            ).agreed()
        places = {row[0]: [rank for rank, other in enumerate(everybody) if other[0] == row[0]] for row in everybody}
        told = ", ".join(f"{ranks(who)} in {place or 'other work'}" for place, who in list(places.items())[:4])
        raise UserError(
            f"the ranks have waited {waited} s for each other: {told}; every rank must make the same number of steps, "
            "and call the same collectives in the same order"
        ).agreed()


# Of this process.
WATCH = Watch()


def watch_loop(process_set=None) -> None:
    """Watch over a training loop of the user's own; every rank calls it in its steps.

    Args:
        process_set: of Horovod, which averages gradients; nothing is watched unless it is that of all ranks.
    """
    from hpc_train.parallel import wire

    among_all = process_set is None or process_set.process_set_id == 0
    # A rank that joins an elastic job has no thread yet.
    if among_all and not (WATCH.over or WATCH.running() or wire.alone() or wire.elastic()):
        WATCH.begin()


def watch_horovod() -> None:
    """Watch over loops with Horovod's tape, until `hvd.join`, in which a rank takes part in no other exchange."""
    import horovod.tensorflow as hvd

    def end(*args, **kwargs):
        WATCH.end(over=True)

    _first(hvd, "join", end)
    _first(hvd, "shutdown", end)
    # Called by the tape when it is made, the process set last.
    _first(hvd, "_make_allreduce_grads_fn", lambda *args, **kwargs: watch_loop([*args, *kwargs.values()][-1]))


def _first(module, name: str, act) -> None:
    """Let a function of `module` call `act` with its arguments first."""
    plain = getattr(module, name)
    if hasattr(plain, "__wrapped__"):
        return

    @wraps(plain)
    def call(*args, **kwargs):
        act(*args, **kwargs)
        return plain(*args, **kwargs)

    setattr(module, name, call)


def _smallest(numbers: np.ndarray) -> np.ndarray:
    return _call(_collectives()[0], numbers)


def _gather(value) -> list:
    """Every rank's `value`, which JSON can write in 512 bytes. Collective."""
    text = json.dumps(value).encode()
    rows = _call(_collectives()[1], np.frombuffer(text.ljust(_ROOM), "uint8")[None])
    return [json.loads(row.tobytes()) for row in rows]


def _call(function, value: np.ndarray) -> np.ndarray:
    """Run in this thread: a step's own Python or input may hold all threads of TensorFlow for long."""
    from tensorflow.python.eager import context

    with context.function_executor_type("SINGLE_THREADED_EXECUTOR"):
        return function(value).numpy()


@cache
def _collectives():
    """An all-reduce of int64 (n,) by their minimum and an all-gather of uint8 (1, n) rows."""
    import horovod.tensorflow as hvd
    import tensorflow as tf

    # In functions, as Horovod ignores the names of eager operations: it would take them for those of the main thread.
    @tf.function(input_signature=[tf.TensorSpec((None,), "int64")])
    def smallest(numbers):
        with tf.device("/cpu:0"):
            return hvd.allreduce(numbers, op=hvd.Min, name="hpc_train.watch")

    @tf.function(input_signature=[tf.TensorSpec((1, _ROOM), "uint8")])
    def gather(row):
        with tf.device("/cpu:0"):
            return hvd.allgather(row, name="hpc_train.watch.gather")

    return smallest, gather
