"""`hpc-train port`: the diff, the reasons, the exit status, and files that keep what is theirs."""

import os
import re
import stat
import subprocess
import sys

import pytest
from launch import REPOSITORY

OLD = "# café\nimport keras\nopt = keras.optimizers.Adam(lr=0.1)  # the rate\n"
NEW = OLD.replace("lr=", "learning_rate=")


def port(*words, cwd=None):
    command = [sys.executable, "-m", "hpc_train", "port", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=60)


def test_it_shows_a_diff_and_a_reason_a_line_and_writes_nothing(tmp_path):
    (tmp_path / "a.py").write_text(OLD)
    (tmp_path / "b.py").write_text("x = 1\n")
    ended = port("a.py", "b.py", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == (
        "--- a.py\n+++ a.py\n@@ -1,3 +1,3 @@\n # café\n import keras\n"
        "-opt = keras.optimizers.Adam(lr=0.1)  # the rate\n"
        "+opt = keras.optimizers.Adam(learning_rate=0.1)  # the rate\n"
        "a.py:3: Keras 3 takes learning_rate; lr is an unknown argument\n"
        "1 file to change (--write does it); 0 places left to you\n"
    )
    assert (tmp_path / "a.py").read_text() == OLD


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (OLD.encode(), NEW.encode()),
        (b"\xef\xbb\xbf" + OLD.encode(), b"\xef\xbb\xbf" + NEW.encode()),
        (OLD.replace("\n", "\r\n").encode(), NEW.replace("\n", "\r\n").encode()),
        (b"# coding: latin-1\n" + OLD.encode("latin-1"), b"# coding: latin-1\n" + NEW.encode("latin-1")),
        (OLD.rstrip("\n").encode(), NEW.rstrip("\n").encode()),
    ],
)
def test_written_files_keep_encoding_line_ends_and_mode(tmp_path, before, after):
    path = tmp_path / "a.py"
    path.write_bytes(before)
    path.chmod(0o750)
    ended = port("--write", path)
    assert ended.returncode == 0, ended.stderr
    assert path.read_bytes() == after
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert list(tmp_path.iterdir()) == [path]
    again = port("--write", path)
    assert (again.returncode, again.stdout) == (0, "nothing to change in 1 file\n")


def test_what_is_left_is_named_and_the_status_says_so(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("import keras\nopt = keras.optimizers.SGD(decay=0.1)\n")
    ended = port(path, "--write")
    assert ended.returncode == 1
    assert f"{path}:2: left alone: Keras 3 only warns about decay" in ended.stdout
    assert path.read_text() == "import keras\nopt = keras.optimizers.SGD(decay=0.1)\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.py", b"import keras\nprint 'x'\n", "a.py:2: this is not Python 3"),
        ("a.py", b"x = '\xff'\n", "is not text in the encoding that it names"),
        ("a.ipynb", b"{}", "is a notebook: `jupyter nbconvert --to script"),
        ("a.txt", b"x", "port takes Python scripts (.py) and shell scripts (.sh)"),
        ("a.py", None, "cannot read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_and_nothing_is_written(tmp_path, name, content, message):
    good = tmp_path / "good.py"
    good.write_text(OLD)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    ended = port(good, tmp_path / name, "--write")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1), ended.stderr
    assert message in ended.stderr
    assert good.read_text() == OLD


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.py").write_text(OLD)
    (tmp_path / "link.py").symlink_to("real.py")
    assert port(tmp_path / "link.py", "--write").returncode == 0
    assert (tmp_path / "link.py").is_symlink()
    assert (tmp_path / "real.py").read_text() == NEW


def test_without_libcst_one_line_says_what_to_install(tmp_path, monkeypatch):
    from hpc_train.errors import UserError
    from hpc_train.port import command

    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    path = tmp_path / "a.py"
    path.write_text(OLD)
    with pytest.raises(UserError, match="port needs LibCST, which is not installed: pip install"):
        command.run(command.Port((path,)))


def test_its_own_scripts_need_nothing():
    """Keras 3 code is left as it is: this project's own trainers, models and layer."""
    folders = ("training", "models", "losses", "metrics", "data/tensors", "optim")
    paths = [path for folder in folders for path in sorted((REPOSITORY / "hpc_train" / folder).glob("*.py"))]
    ended = port(*paths)
    assert (ended.returncode, ended.stdout) == (0, f"nothing to change in {len(paths)} files\n")


def test_the_page_shows_what_it_prints(tmp_path):
    page = (REPOSITORY / "docs" / "port.md").read_text()
    script, printed = re.search(r"```python\n(.*?)```.*?```text\n(.*?)```", page, re.S).groups()
    (tmp_path / "old_mnist.py").write_text(script)
    ended = port("old_mnist.py", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, printed)
