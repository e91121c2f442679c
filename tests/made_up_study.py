"""Made-up measurements of a scaling study, and the parts of a page of HTML that reports it."""

import itertools
import json
import re
from html.parser import HTMLParser

BATCH = 10
# samples/s a rank in each repeat, of sizes 1, 2 and 4; 4 ranks share two cores.
SPEEDS = {1: (99, 101), 2: (0.90 * 99, 0.92 * 101), 4: (0.40 * 99, 0.42 * 101)}
VOID = {"area", "br", "hr", "img", "input", "link", "meta"}


def of_way(mean, slowest, ranks, steps=4):
    told = {"steps": steps, "mean": mean, "std": 0.01 * mean, "p50": mean, "p95": mean, "p99": slowest, "max": slowest}
    by_rank = [{"rank": rank, **told} for rank in range(ranks)]
    return {"by_rank": by_rank, "slowest": [slowest] * steps, "fastest": [mean] * steps, "mean": [mean] * steps}


def measurement(ranks, rate, batch=BATCH, **changed):
    """What `bench throughput` writes, of a job whose rounds have samples/s of 1 % less and more than `rate`."""
    step = ranks * batch / rate
    rates = {"fit": [0.99 * rate, 1.01 * rate], "fit alone": [0.99 * rate / 0.96, 1.01 * rate / 0.96]}
    rates |= {"device": rates["fit"], "device alone": rates["fit alone"]}
    steps = {way: of_way(0.8 * step, 0.85 * step, ranks) for way in ("fit alone", "device alone")}
    steps |= {way: of_way(0.9 * step, 0.95 * step, ranks) for way in ("fit", "device")}
    return {
        "benchmark": "throughput",
        "format": 2,
        "time": "2026-11-22T15:00:00+0000",
        "command": f"hpc-train bench throughput mnist --batch-size {batch}",
        "slurm_job": None,
        "trainer": "mnist",
        "framework": "hpc-train",
        "options": {"data": "shards/mnist", "model": "deep", "batch_size": batch, "precision": "float32"},
        "data": "0123456789abcdef",
        "model": "deep",
        "batch_size": batch,
        "ranks": ranks,
        "threads": 1,
        "nodes": [{"host": "here", "processor": "Made-up CPU", "cores": 2, "ranks": ranks, "gpus": []}],
        "versions": {"hpc-train": "1.2.3", "horovod": "0.28.1"},
        "gradient_bytes": 4_000_000,
        "parameters": 1_000_000,
        "flops_per_sample": 2e9,
        "peak_tflops": 1.0,
        "rates": rates,
        "ratios": {"fit / fit alone": [0.96, 0.96]},
        "steps": steps,
        "input_wait": {"fit": [0.02, 0.04]},
        "communication": {"share": [0.04, 0.04], "timeline": None},
        "peak_memory": {"host": [1_000_000_000 + rank for rank in range(ranks)], "gpu": None},
        **changed,
    }


def write(folder, jobs):
    """A study's folder of (file's name, its part in the plan, figures or None if it was not measured)."""
    folder.mkdir(parents=True)
    planned = []
    for name, part, figures in jobs:
        planned.append({"file": f"{name}.json", "place": 0, "modes": ["weak"], "variant": {}, **part})
        if figures:
            (folder / f"{name}.json").write_text(json.dumps(figures))
    plan = {"command": "hpc-train bench scaling --np 1,2,4", "settings": {}, "jobs": planned, "submitted": {}}
    (folder / "study.json").write_text(json.dumps(plan))
    return folder


def weak(ranks=(1, 2, 4), **changed):
    for size in ranks:
        for repeat, speed in enumerate(SPEEDS[size], 1):
            made = measurement(size, size * speed, **changed)
            yield f"ranks-{size}-repeat-{repeat}", {"repeat": repeat}, made


class Page(HTMLParser):
    """The tables (rows of cells by caption), tags and text of a page; what is not closed in order fails."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.tables, self.text = [], [], {}, text
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "caption" in self.open:
            self.tables[data] = self.rows
        elif self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data

    def table(self, caption):
        """The rows of the one table whose caption begins so, each as a dict by its heads."""
        (rows,) = (rows for title, rows in self.tables.items() if title.startswith(caption))
        for above, row in itertools.pairwise(rows):
            row[:0] = above[: len(above) - len(row)]  # a name that several rows share
        return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]

    def needs_nothing_else(self):
        """No script, nothing to load from elsewhere, and every name that it uses is one of its own, once."""
        names = {name for name, _ in self.tags}
        assert not names & {"script", "link", "img", "image", "iframe", "object", "embed", "audio", "video", "base"}
        for _, attributes in self.tags:
            assert all(attributes[name].startswith("#") for name in ("href", "src", "xlink:href") if name in attributes)
        assert not re.search(r"url\((?!#)|@import|@font-face", self.text)
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(set(ids)) == len(ids)
        assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', self.text)) <= set(ids)
