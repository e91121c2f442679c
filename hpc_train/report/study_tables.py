"""The tables of a study's page: figures of every size, parts of a step, sweeps, peers, hardware and commands."""

from collections.abc import Sequence

from hpc_train.bench.comparison import Comparison
from hpc_train.bench.study.measurements import OURS
from hpc_train.report import page
from hpc_train.report.forecast import Forecast
from hpc_train.report.step import PARTS
from hpc_train.report.study import Series, Study
from hpc_train.units import size

NONE = "-"


def speed(series: Sequence[Series], caption: str) -> str:
    """Samples/s and efficiencies, a row for each size."""
    # What a narrow screen hides comes last.
    heads = ("curve", "ranks", "samples/s", "efficiency", "against ranks alone", "ceiling", "communication")
    heads += ("input wait", "nodes", "threads", "batch per rank", "jobs")
    rows = [
        (
            one.label,
            f"{row['ranks']:,}{'*' * row['shared']}",
            _speed(row),
            estimated(row["efficiency"]["fit"]),
            estimated(row["alone"]) + "!" * bool(row["doubt"]),
            estimated(row["ceiling"]),
            estimated(row["communication"]),
            estimated(row["input_wait"]),
            f"{row['nodes']:,}",
            ", ".join(map(str, row["threads"])),
            str(row["batch_size"]),
            str(row["jobs"]),
        )
        for one in series
        for row in one.rows
    ]
    return page.table(caption, heads, rows)


def steps(series: Sequence[Series]) -> str:
    """Milliseconds of a step and its tail, arithmetic and memory, a row for each size."""
    heads = ("curve", "scaling", "ranks", "step", "p50", "p95", "p99")
    heads += ("TFLOP/s per rank", "of the peak", "host memory", "GPU memory")
    rows = [
        (
            *place(one, row),
            milliseconds(row["step"]),
            *(milliseconds(row["percentiles"].get(part)) for part in (50, 95, 99)),
            f"{row['teraflops']:.3g}" if row["teraflops"] else NONE,
            percent(row["utilisation"]) if row["utilisation"] else NONE,
            memory(row["host"]),
            memory(row["gpu"]),
        )
        for one in series
        for row in one.rows
    ]
    caption = "Time of a step in ms (mean, and percentiles of the slowest rank), arithmetic, peak memory of a rank"
    return page.table(caption, heads, rows)


def parts(series: Sequence[Series]) -> str:
    """The figures of the bars."""
    rows = [
        (
            *place(one, row),
            *(milliseconds(row["parts"][part]) for part in PARTS),
            milliseconds(row["step"]),
        )
        for one in series
        for row in one.known_parts
    ]
    return page.table("Parts of a step in ms", ("curve", "scaling", "ranks", *PARTS, "step of fit"), rows)


def sweeps(series: Sequence[Series]) -> str:
    """Every variant relative to the first, a row for each size; empty without a sweep."""
    rows = [
        (*place(one, row), *_compared(row["over_base"])) for one in series for row in one.rows if row.get("over_base")
    ]
    caption = "Samples/s relative to the sweep's first value, at the same number of ranks"
    return page.table(caption, ("variant", "scaling", "ranks", "ratio", *_SURE), rows) if rows else ""


def peers(series: Sequence[Series]) -> str:
    """hpc-train relative to its peers, a row for each size; empty without a peer."""
    rows = [
        (*place(one, row), *_compared(row["ours_over_peer"]))
        for one in series
        for row in one.rows
        if one.framework != OURS and row.get("ours_over_peer")
    ]
    caption = "Samples/s of hpc-train relative to the peer, with the same network, batch and number of ranks"
    return page.table(caption, ("peer", "scaling", "ranks", "hpc-train / peer", *_SURE), rows) if rows else ""


_SURE = "95 %", "what it shows"


def _compared(ratio: dict) -> tuple[str, str, str]:
    """Cells of a ratio: the ratio, its interval, and why it shows no difference where it shows none."""
    if "ratio" not in ratio:
        return estimated(ratio, "{:.3f}"), NONE, "nothing without repeats"
    found = Comparison.of(ratio)
    return f"{found.ratio:.3f}", f"{found.low:.3f} to {found.high:.3f}", found.doubt or "a difference"


def predictions(label: str, ahead: Forecast) -> str:
    """The model's predictions for sizes that were not run; overhead is the cost of averaging on a single rank."""
    heads = ("ranks", "efficiency", "low", "high", "samples/s")
    heads += ("step", "computing", "slowest rank", "overhead", "communication")
    rows = [
        (
            f"{one['ranks']:,}",
            *(percent(one[name]) for name in ("efficiency", "low", "high")),
            rate(one["samples_per_s"]),
            *(milliseconds(one[name]) for name in ("step", "compute", "spread", "overhead", "exposed")),
        )
        for one in ahead.predicted
    ]
    source = " from one machine alone" if ahead.one_machine else ""
    return page.table(f"{label}: predicted{source}, parts of a step in ms", heads, rows)


def conditions(series: Sequence[Series]) -> str:
    """The options that each curve was measured with."""
    rows = []
    for one in series:
        facts = {name: value for name, value in one.conditions.items() if name != "versions"} | one.variant
        network = f"{facts.pop('trainer')} {facts.pop('model')}"
        named = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
        rows.append((one.label, one.mode, network, named))
    return page.table(
        "Conditions, the same at every size of a curve", ("curve", "scaling", "network", "options"), rows, (3,)
    )


def hardware(studies: Sequence[Study]) -> str:
    """The nodes that the sizes ran on, and their software."""
    rows = {}
    for study in studies:
        for one in study.measurements:
            for node in one.nodes:
                gpus = ", ".join(sorted(set(node["gpus"]))) or "none"
                kind = (study.name, node["processor"], gpus, str(node["cores"]), _versions(one.figures["versions"]))
                rows.setdefault(kind, set()).add(node["host"])
    cells = [(*kind[:4], _hosts(hosts), kind[4]) for kind, hosts in rows.items()]
    heads = ("study", "processor", "GPU", "cores of the ranks", "hosts", "versions")
    return page.table("Nodes and software", heads, cells, words=(1, 2, 4, 5))


def commands(study: Study) -> str:
    """The study's own command, and the command and time of every job."""
    own = f"{study.plan['command']}\n\n" if study.plan.get("command") else ""
    jobs = [(one.figures.get("time", ""), one.file, one.figures.get("command", "")) for one in study.measurements]
    text = "\n".join(f"{time}  {file}\n  {command}" for time, file, command in sorted(jobs))
    return page.folded(f"{study.name}: commands of {len(jobs)} jobs", own + text)


def estimated(one: dict | None, form: str = "") -> str:
    """A mean with its standard error as text: a share in percent, or any number in the given `form`; None is a dash."""
    if one is None:
        return NONE
    mean, error = one["mean"], one["error"]
    if form:
        return form.format(mean) + (f" ± {form.format(error)}" if error is not None else "")
    digits = 1 if error is None or error >= 0.0005 else 2
    share = f"{round(100 * mean, digits) + 0.0:.{digits}f}"  # + 0.0: -0.0 is 0.0
    return share + (f" ± {100 * error:.{digits}f} %" if error is not None else " %")


def percent(share: float) -> str:
    """A share as text."""
    return f"{100 * share:.1f} %"


def speed_form(samples_per_s: float) -> str:
    """The format for numbers of this size."""
    return "{:,.0f}" if samples_per_s >= 200 else "{:.1f}" if samples_per_s >= 10 else "{:.3f}"


def rate(samples_per_s: float) -> str:
    """samples/s as text, with a readable number of digits."""
    return speed_form(samples_per_s).format(samples_per_s)


def milliseconds(seconds: float | None) -> str:
    """Seconds as ms."""
    if seconds is None:
        return NONE
    return f"{1e3 * seconds:,.0f}" if seconds >= 1 else f"{1e3 * seconds:.{1 if seconds >= 0.1 else 2}f}"


def memory(count: int | None) -> str:
    """Bytes as text, such as 1.2 GB."""
    return NONE if count is None else size(count)


def place(one: Series, row: dict) -> tuple[str, str, str]:
    """The cells that name the size of a row."""
    return one.label, one.mode, f"{row['ranks']:,}{'*' * row['shared']}"


def _speed(row: dict) -> str:
    found = row["samples_per_s"]["fit"]
    return estimated(found, speed_form(found["mean"]))


def _versions(versions: dict) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _hosts(hosts: set[str]) -> str:
    names = sorted(hosts)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
