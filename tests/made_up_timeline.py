"""Timeline files in Horovod's own bytes, as its common/timeline.cc writes them."""

from hpc_train.timeline.lateness import TIE

START = 1_700_000_000_000_000


def begin(tensor, name, time):
    return f'{{"ph": "B", "name": "{name}", "ts": {time}, "pid": {tensor}}}'


def end(tensor, time, args=""):
    return f'{{"ph": "E", "ts": {time}, "pid": {tensor}{args and ", " + args}}}'


def ready(tensor, rank, time):
    return f'{{"ph": "X", "name": "{rank}", "ts": {time}, "pid": {tensor}, "dur": 0}}'


def named(tensor, name):
    return (
        f'{{"name": "process_name", "ph": "M", "pid": {tensor}, "args": {{"name": "{name}"}}}},\n'
        f'{{"name": "process_sort_index", "ph": "M", "pid": {tensor}, "args": {{"sort_index": {tensor}}}}},\n'
    )


def shape(*sizes, dtype="float32"):
    return f'"args": {{"dtype": "{dtype}", "shape": "{list(sizes)}"}}'


HEAD = (
    '[\n{"name": "process_name", "ph": "M", "pid": 0, "args": {"start_time_since_epoch_in_micros":'
    f"{START}}}}},\n"
    '{"name": "process_sort_index", "ph": "M", "pid": 0, "args": {"sort_index": 0}},\n'
)


def written(path, *events, names=("grads_1of2", "grads_2of2", "loss"), head=HEAD):
    path.write_text(head + "".join(named(i, name) for i, name in enumerate(names, 1)) + ",".join(events) + "]")
    return path


def a_step(now):
    """Two tensors fused, 10 ms; a third behind them. Times in us."""
    return [
        f'{{"ph": "i", "name": "CYCLE_START", "ts": {now}, "s": "g"}}',
        begin(1, "NEGOTIATE_ALLREDUCE", now),
        ready(1, 0, now),
        begin(2, "NEGOTIATE_ALLREDUCE", now + 1000),
        ready(2, 0, now + 1000),
        begin(3, "NEGOTIATE_ALLREDUCE", now + 1500),
        ready(3, 1, now + 1500),
        ready(3, 0, now + 1500 + TIE // 2),
        ready(1, 1, now + 2000),
        end(1, now + 2000),
        ready(2, 1, now + 2000),
        end(2, now + 2000),
        end(3, now + 2000),
        begin(1, "ALLREDUCE", now + 3000),
        begin(2, "ALLREDUCE", now + 3000),
        begin(1, "MEMCPY_IN_FUSION_BUFFER", now + 3000),
        begin(2, "MEMCPY_IN_FUSION_BUFFER", now + 3000),
        end(1, now + 4000),
        end(2, now + 4000),
        begin(1, "MPI_ALLREDUCE", now + 4000),
        begin(2, "MPI_ALLREDUCE", now + 4000),
        end(1, now + 8000),
        end(2, now + 8000),
        begin(1, "MEMCPY_OUT_FUSION_BUFFER", now + 8500),
        begin(2, "MEMCPY_OUT_FUSION_BUFFER", now + 8500),
        end(1, now + 10000),
        end(2, now + 10000),
        end(1, now + 10000, shape(100, 10)),
        end(2, now + 10000, shape(1000, dtype="float16")),
        begin(3, "ALLREDUCE", now + 10000),
        begin(3, "MPI_ALLREDUCE", now + 10000),
        end(3, now + 11000),
        end(3, now + 11000, shape(dtype="float64")),
    ]


def four_steps(path):
    """A file with four steps of 11 ms, each but the last followed by 9 ms of nothing."""
    return written(path, *(event for step in range(4) for event in a_step(500_000 + step * 20_000)))
