import shutil
import signal
import sys

import cluster as slurm
import numpy as np
import pytest
from launch import REPOSITORY

from hpc_train.data.shards.arrays import write_shards


def pytest_configure():
    """Where a shell has started the tests in the background, Ctrl-C is ignored by all that they start: not here."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Tests on Slurm come first: they wait more than they compute, and another worker goes on beside them."""
    items.sort(key=lambda item: _group(item.nodeid) != "slurm")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Where workers share the tests, each takes whole files, and one of them those on the cluster."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return _group(nodeid)

    return Files(config, log)


def _group(nodeid: str) -> str:
    file = nodeid.split("::")[0].rpartition("/")[2]
    return "slurm" if file.startswith(("test_slurm", "test_cluster")) else file


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Shards of scikit-learn's handwritten digits: 1,400 to train, 397 to test, 8 x 8 x 1, ten classes."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) * (255 / 16)).astype("uint8")
    folder = tmp_path_factory.mktemp("digits")
    write_shards(folder, "train", images[:1400], labels[:1400], classes=10, shards=3)
    write_shards(folder, "test", images[1400:], labels[1400:], classes=10, shards=2)
    return folder


@pytest.fixture
def blobs(tmp_path):
    """A function that writes float32 shards of 8 x 8 images, `train` and `test` samples, after a change by the test."""

    def write(train=64, test=16, change=lambda inputs, targets: None, classes=3):
        draw = np.random.default_rng(0)
        for split, samples in (("train", train), ("test", test)):
            inputs = draw.normal(size=(samples, 8, 8, 1)).astype("float32")
            targets = draw.integers(0, classes, samples)
            write_shards(tmp_path / "blobs", split, inputs, targets, classes=classes, shards=2)
        return tmp_path / "blobs"

    return write


@pytest.fixture(scope="session")
def cluster():
    """A Slurm cluster of two nodes with four pretended GPUs each; it starts here and ends with the tests."""
    if slurm.missing():
        pytest.skip(slurm.missing())
    with slurm.Cluster() as running:
        yield running


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A folder like a clone, to submit from: the templates, and a site.env that names this interpreter."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "slurm").mkdir()
    for template in (REPOSITORY / "slurm").glob("*.sh"):
        shutil.copy(template, folder / "slurm")
    (folder / "slurm" / "site.env").write_text(f"VENV='{sys.prefix}'\nPYTHONPATH='{REPOSITORY}'\n")
    return folder


@pytest.fixture(autouse=True)
def _no_job_outlives_its_test(request):
    running = request.getfixturevalue("cluster") if "cluster" in request.fixturenames else None
    earlier = len(running.submitted) if running else 0
    yield
    if running:
        running.clear(earlier)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that fails on the cluster shows the outputs of its jobs and the daemons' logs."""
    report = yield
    running = getattr(item, "funcargs", {}).get("cluster")
    if running and report.failed:
        report.sections.append(("Slurm", running.logs()))
    return report
