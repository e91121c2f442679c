"""The README's five lines, as they stand there, turn a script into a job whose ranks agree."""

import re

import pytest
from launch import REPOSITORY, launch

BEFORE = """
import keras, numpy as np, tensorflow as tf
samples = 640
draw = np.random.default_rng(0)
inputs = draw.normal(size=(samples, 4)).astype("float32")
data = tf.data.Dataset.from_tensor_slices((inputs, inputs @ np.ones((4, 1), "float32")))
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
"""

AFTER = """
from hpc_train.parallel.collectives import gather_objects
weights = gather_objects([w.tobytes() for w in model.get_weights()])
assert all(other == weights[0] for other in weights)
print(f"rank {world.rank} of {world.size} agrees")
"""


@pytest.fixture(scope="module")
def lines():
    """The README's lines: those for the top of a script, and the others."""
    block = re.search(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.S)[1]
    return block.split("\n\n")


def test_the_five_lines_make_ranks_that_agree(lines, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(lines[0] + BEFORE + lines[1] + AFTER)
    ended = launch(2, str(script))
    assert ended.status == 0, ended.output
    assert "rank 0 of 2 agrees" in ended.output
    assert "rank 1 of 2 agrees" in ended.output


def test_a_start_that_comes_too_late_says_so(lines, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(BEFORE + lines[0])
    ended = launch(2, str(script), timeout=60)
    assert ended.status != 0
    assert "parallel.init() comes too late" in ended.output
    assert "Traceback" not in ended.output
