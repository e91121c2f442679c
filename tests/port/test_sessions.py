"""Sessions and ConfigProto become tf.config, or are named."""

import pytest

PINNED = """gpus = tf.config.list_physical_devices("GPU")
for gpu in gpus:
    tf.config.experimental.set_memory_growth(gpu, True)
if gpus:
    tf.config.set_visible_devices(gpus[hvd.local_rank()], "GPU")
"""
FORMS = [
    """config = tf.ConfigProto()
config.gpu_options.allow_growth = True
config.gpu_options.visible_device_list = str(hvd.local_rank())
K.set_session(tf.Session(config=config))
""",
    """config = tf.compat.v1.ConfigProto()
config.gpu_options.allow_growth = True
config.gpu_options.visible_device_list = str(hvd.local_rank())
sess = tf.compat.v1.Session(config=config)
tf.compat.v1.keras.backend.set_session(sess)
""",
    """options = tf.GPUOptions(allow_growth=True, visible_device_list=str(hvd.local_rank()))
K.set_session(tf.Session(config=tf.ConfigProto(gpu_options=options)))
""",
    """config = tf.ConfigProto(gpu_options=tf.GPUOptions(allow_growth=True))
config.gpu_options.visible_device_list = str(hvd.local_rank())
tf.enable_eager_execution(config=config)
""",
]
HEAD = "import tensorflow as tf\nfrom keras import backend as K\nimport horovod.keras as hvd\n"


@pytest.mark.parametrize("form", FORMS)
def test_a_gpu_is_pinned_by_tf_config(ported, form):
    new, reasons, left = ported(HEAD + form)
    assert new.endswith(PINNED)
    assert not left
    assert all("Keras 3 has no sessions" in reason or "any more" in reason for reason in reasons)


def test_the_names_of_sessions_leave_the_imports_and_the_ones_that_are_needed_come(ported):
    text = (
        "from tensorflow.compat.v1 import ConfigProto\nfrom tensorflow.compat.v1 import InteractiveSession\n\n"
        "config = ConfigProto()\nconfig.gpu_options.allow_growth = True\nsession = InteractiveSession(config=config)\n"
    )
    new, _, left = ported(text)
    assert not left
    assert new == (
        'import tensorflow as tf\n\ngpus = tf.config.list_physical_devices("GPU")\n'
        "for gpu in gpus:\n    tf.config.experimental.set_memory_growth(gpu, True)\n"
    )


@pytest.mark.parametrize(
    ("field", "statement"),
    [
        ("allow_soft_placement=True", "tf.config.set_soft_device_placement(True)"),
        ("log_device_placement=v", "tf.debugging.set_log_device_placement(v)"),
        ("intra_op_parallelism_threads=4", "tf.config.threading.set_intra_op_parallelism_threads(4)"),
        ("inter_op_parallelism_threads=n // 2", "tf.config.threading.set_inter_op_parallelism_threads(n // 2)"),
        ("device_count={'GPU': 0}", 'tf.config.set_visible_devices([], "GPU")'),
    ],
)
def test_fields_of_the_config(ported, field, statement):
    new, _, left = ported(f"{HEAD}K.set_session(tf.Session(config=tf.ConfigProto({field})))\n")
    assert (new.splitlines()[-1], left) == (statement, [])


def test_a_block_stays_a_block_and_comments_stay(ported):
    text = f"""{HEAD}
def pin():
    # one GPU a process
    config = tf.ConfigProto()  # made here
    if args.gpu:
        config.gpu_options.allow_growth = True
    K.set_session(tf.Session(config=config))  # given to Keras
    if args.eager:
        tf.enable_eager_execution()
"""
    new, _, left = ported(text)
    assert not left
    assert new.endswith("""
def pin():
    # one GPU a process
    gpus = tf.config.list_physical_devices("GPU")  # made here
    if args.gpu:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    # given to Keras
    if args.eager:
        pass
""")


@pytest.mark.parametrize(
    ("lines", "number", "reason"),
    [
        ("config = tf.ConfigProto()\nconfig.gpu_options.per_process_gpu_memory_fraction = 0.5\n"
         "K.set_session(tf.Session(config=config))\n", 5, "LogicalDeviceConfiguration"),
        ("if a:\n    config = tf.ConfigProto()\nelse:\n    config = tf.ConfigProto(allow_soft_placement=True)\n"
         "K.set_session(tf.Session(config=config))\n", 5, "config is assigned more than once"),
        ("with tf.Session() as sess:\n    print(sess.run(y))\n", 4, "write this block without one"),
        ("sess = tf.Session()\nK.set_session(sess)\nprint(sess.run(y))\n", 6, "must be written as plain calls"),
        ("config = tf.ConfigProto()\nrun(config)\n", 5, "set what this ConfigProto holds with tf.config"),
    ],
)  # fmt: skip
def test_what_cannot_be_decided_is_left_whole(ported, lines, number, reason):
    new, _, left = ported(HEAD + lines)
    assert new == HEAD + lines
    assert [why for line, why in left if line == number and reason in why], left


def test_switches_of_eager_execution(ported):
    new, reasons, left = ported("import tensorflow as tf\ntf.compat.v1.disable_eager_execution()\nx = 1\n")
    assert (new, left) == ("import tensorflow as tf\nx = 1\n", [])
    assert reasons == ["Keras 3 runs eagerly only, so disable_eager_execution must go"]
    text = "import tensorflow as tf\ntf.compat.v1.disable_v2_behavior()\nx = tf.compat.v1.placeholder(tf.float32)\n"
    new, _, left = ported(text)
    assert new == text
    assert [line for line, _ in left] == [3, 2]
