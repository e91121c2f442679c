"""Sessions and ConfigProto: what they set is set by `tf.config`, before anything runs on a GPU."""

from __future__ import annotations

import re
from dataclasses import dataclass

import libcst as cst

from hpc_train.port.arguments import literal
from hpc_train.port.script import Script, dotted_name

_TF = r"tensorflow\.(compat\.v1\.)?"
_CONFIG, _GPU_OPTIONS = _TF + "ConfigProto", _TF + "GPUOptions"
_SESSION = _TF + "(Session|InteractiveSession)"
_SET_SESSION = r"keras\.backend\.(tensorflow_backend\.)?set_session"
_EAGER = _TF + "enable_eager_execution"
_INITIALIZE = _TF + "(global_variables|local_variables|tables|all_variables|variables)_initializer"
_GONE = "Keras 3 has no sessions: it runs eagerly"
# A field of ConfigProto and the function that does the same; {} is its value.
_FUNCTIONS = {
    "allow_soft_placement": "{tf}.config.set_soft_device_placement({})",
    "log_device_placement": "{tf}.debugging.set_log_device_placement({})",
    "intra_op_parallelism_threads": "{tf}.config.threading.set_intra_op_parallelism_threads({})",
    "inter_op_parallelism_threads": "{tf}.config.threading.set_inter_op_parallelism_threads({})",
}
_NAMED = {
    "gpu_options.per_process_gpu_memory_fraction": "limit a GPU's memory, in MB, with "
    "tf.config.set_logical_device_configuration(gpu, [tf.config.LogicalDeviceConfiguration(memory_limit=MB)])",
    "graph_options.rewrite_options.auto_mixed_precision": "mixed precision is "
    'keras.mixed_precision.set_global_policy("mixed_float16")',
}
_DROPPED = {"force_gpu_compatible", "gpu_options.force_gpu_compatible", "gpu_options.allocator_type"}


@dataclass
class _Setting:
    """One field of a ConfigProto, with its value."""

    field: str
    value: cst.BaseExpression


class _CannotDecide(Exception):
    """Why a session stays as it is: a node and one line."""


def apply(script: Script) -> None:
    """Replace sessions that only carry a ConfigProto; name all others."""
    for call, name in script.calls(_CONFIG, _SET_SESSION, _SESSION, _EAGER):
        if script.changes.gone(script.span(call)):
            continue
        try:
            with script.changes.whole():
                _one_call(script, call, name)
        except _CannotDecide as why:
            node, reason = why.args
            script.changes.leave(script.line(node), reason, script.span(call))


def _one_call(script: Script, call: cst.Call, name: str) -> None:
    if re.fullmatch(_CONFIG, name):
        _config(script, call)
    elif re.fullmatch(_SESSION, name):
        _session(script, call)
    elif re.fullmatch(_SET_SESSION, name):
        _set_session(script, call)
    else:
        _statement_goes(script, call, "Keras 3 and TensorFlow 2 run eagerly from the start")


def _set_session(script: Script, call: cst.Call) -> None:
    """A call whose session has not gone yet; a session that is made in it is seen to when its turn comes."""
    session = call.args[0].value if call.args else None
    made = isinstance(session, cst.Call) and re.fullmatch(_SESSION, script.name(session.func) or "")
    if session is None or literal(session) is None or (made and not session.args):
        _statement_goes(script, call, f"{_GONE}, and has nothing to give one to")
    elif not made:
        raise _CannotDecide(call, f"{_GONE}, and has nothing to give one to")


def _config(script: Script, call: cst.Call) -> None:
    """A ConfigProto that is made in place, or whose variable goes into a session."""
    above = script.parent(call)
    if isinstance(above, cst.Arg):
        _inline(script, call, script.parent(above))
        return
    if not isinstance(above, cst.Assign) or len(above.targets) != 1 or script.statement(call) is None:
        raise _CannotDecide(call, f"{_GONE}; set what this ConfigProto holds with tf.config")
    uses = _uses(script, above.targets[0].target)
    plans = [(above, _settings(script, call), None)]
    for use in uses:
        plans.append(_use(script, use, above))
    if not any(carrier for _, _, carrier in plans):
        raise _CannotDecide(call, f"{_GONE}; set what this ConfigProto holds with tf.config")
    texts = [(node, _statements(script, settings)) for node, settings, _ in plans]
    gpus = any(_needs_gpus(setting) for _, settings, _ in plans for setting in settings)
    for place, (node, lines) in enumerate(texts):
        carrier = plans[place][2]
        if carrier is not None:
            if not script.changes.gone(script.span(carrier)):
                _carrier_goes(script, carrier)
            continue
        lines = [_list_gpus(script), *lines] if place == 0 and gpus else lines
        _put(script, node, lines)


def _inline(script: Script, config: cst.Call, carrier: cst.CSTNode) -> None:
    """`Session(config=ConfigProto(...))`."""
    if not isinstance(carrier, cst.Call) or script.name(carrier.func) is None:
        raise _CannotDecide(config, f"{_GONE}; set what this ConfigProto holds with tf.config")
    settings = _settings(script, config)
    lines = _statements(script, settings)
    if any(map(_needs_gpus, settings)):
        lines = [_list_gpus(script), *lines]
    _carrier_goes(script, carrier, lines)


def _use(script: Script, use: cst.CSTNode, made: cst.Assign):
    """A use of the variable of a ConfigProto: a field is set, or it goes into a session."""
    top = use
    while isinstance(script.parent(top), cst.Attribute):
        top = script.parent(top)
    above = script.parent(top)
    if isinstance(above, cst.AssignTarget) and top is not use and script.statement(top) is not None:
        field = dotted_name(top).split(".", 1)[1]
        statement = script.parent(above)
        setting = _Setting(field, statement.value)
        _check(script, setting, statement)
        return statement, [setting], None
    if isinstance(above, cst.Arg) and top is use:
        carrier = script.parent(above)
        if isinstance(carrier, cst.Call) and re.fullmatch(f"{_SESSION}|{_EAGER}", script.name(carrier.func) or ""):
            return carrier, [], carrier
    raise _CannotDecide(use, f"{_GONE}; set what this ConfigProto holds with tf.config")


def _settings(script: Script, call: cst.Call) -> list[_Setting]:
    """The fields that a call of ConfigProto or GPUOptions sets."""
    found = []
    for one in call.args:
        name = one.keyword.value if one.keyword else ""
        if name == "gpu_options":
            options = _options(script, one.value)
            found += [_Setting(f"gpu_options.{inner.field}", inner.value) for inner in _settings(script, options)]
        else:
            found.append(_Setting(name, one.value))
    if re.fullmatch(_CONFIG, script.name(call.func) or ""):
        for setting in found:
            _check(script, setting, call)
    return found


def _options(script: Script, value: cst.BaseExpression) -> cst.Call:
    """The call of GPUOptions that a value is or that its variable holds."""
    if isinstance(value, cst.Name):
        made = script.targets(_GPU_OPTIONS).get(value.value, [])
        if len(made) == 1 and script.statement(made[0]) is not None:
            assign = script.parent(made[0])
            if len(_uses(script, assign.targets[0].target)) == 1:
                script.changes.add(script.line(assign), f"{_GONE}; tf.config sets the same", script.remove(assign))
                return made[0]
    if isinstance(value, cst.Call) and re.fullmatch(_GPU_OPTIONS, script.name(value.func) or ""):
        return value
    raise _CannotDecide(value, f"{_GONE}; set what these GPU options hold with tf.config")


def _check(script: Script, setting: _Setting, node: cst.CSTNode) -> None:
    if setting.field in _NAMED:
        raise _CannotDecide(node, f"{_GONE}; {_NAMED[setting.field]}")
    known = {*_FUNCTIONS, *_DROPPED, "gpu_options.visible_device_list", "gpu_options.allow_growth"}
    jit = setting.field == "graph_options.optimizer_options.global_jit_level"
    no_gpu = setting.field == "device_count" and re.fullmatch(
        r"\{\s*['\"]GPU['\"]\s*:\s*0\s*\}", _text(script, setting)
    )
    if setting.field not in known and not jit and not no_gpu:
        raise _CannotDecide(node, f"{_GONE}; tf.config has no plain word for {setting.field or 'this'}")


def _needs_gpus(setting: _Setting) -> bool:
    return setting.field in ("gpu_options.visible_device_list", "gpu_options.allow_growth")


def _statements(script: Script, settings: list[_Setting]) -> list[str]:
    return [line for setting in settings for line in _one(script, setting)]


def _one(script: Script, setting: _Setting) -> list[str]:
    """The statements that do what a field did; those in a block have one more step of indentation."""
    tf, value, gpus = script.tensorflow(), _text(script, setting), _gpus(script)
    if setting.field in _FUNCTIONS:
        return [_FUNCTIONS[setting.field].format(value, tf=tf)]
    if setting.field == "gpu_options.allow_growth":
        if literal(setting.value) is False:
            return []
        grows = value if literal(setting.value) is Ellipsis else "True"
        return [f"for gpu in {gpus}:", f"{script.step()}{tf}.config.experimental.set_memory_growth(gpu, {grows})"]
    if setting.field == "gpu_options.visible_device_list":
        chosen = _chosen(script, setting.value, gpus)
        return [f"if {gpus}:", f'{script.step()}{tf}.config.set_visible_devices({chosen}, "GPU")']
    if setting.field == "device_count":
        return [f'{tf}.config.set_visible_devices([], "GPU")']
    if setting.field.endswith("global_jit_level"):
        return [f"{tf}.config.optimizer.set_jit(True)"] if not value.endswith("OFF") else []
    return []


def _chosen(script: Script, value: cst.BaseExpression, gpus: str) -> str:
    """The GPUs of a `visible_device_list`, which is text such as "0" or "0,1"."""
    text = literal(value)
    if isinstance(text, str):
        numbers = [number.strip() for number in text.split(",") if number.strip()]
        one = [f"{gpus}[{number}]" for number in numbers]
        return one[0] if len(one) == 1 else f"[{', '.join(one)}]"
    if isinstance(value, cst.Call) and dotted_name(value.func) == "str" and len(value.args) == 1:
        return f"{gpus}[{script.code(value.args[0].value)}]"
    return f"{gpus}[int({script.code(value)})]"


def _session(script: Script, call: cst.Call) -> None:
    """A session without a ConfigProto of this script."""
    config = call.args[0].value if call.args else None
    if isinstance(config, cst.Call) and re.fullmatch(_CONFIG, script.name(config.func) or ""):
        return  # its turn comes with the ConfigProto
    if call.args and not _is_config(script, call.args[0]):
        raise _CannotDecide(call, f"{_GONE}; write this part without one")
    _carrier_goes(script, call)


def _is_config(script: Script, arg: cst.Arg) -> bool:
    return False if arg.keyword is None else arg.keyword.value == "config" and script.changes.gone(script.span(arg))


def _carrier_goes(script: Script, carrier: cst.Call, lines: list[str] | None = None) -> None:
    """Remove the session, what it was assigned to, and the call of `set_session` around it."""
    small = script.statement(carrier)
    if small is None or (script.around(carrier, cst.With, cst.Lambda) is not None and not _in_body(script, carrier)):
        raise _CannotDecide(carrier, f"{_GONE}; write this block without one")
    above = script.parent(carrier)
    if isinstance(above, cst.Assign):
        uses = [use for target in above.targets for use in _uses(script, target.target)]
        gone = [_session_use(script, use) for use in uses]
        for statement, reason in gone:
            if not script.changes.gone(script.span(statement)):
                script.changes.add(script.line(statement), reason, script.remove(statement))
    elif not isinstance(above, cst.Expr) and not _into_set_session(script, above):
        raise _CannotDecide(carrier, f"{_GONE}; write this part without one")
    _put(script, small, lines or [])


def _in_body(script: Script, node: cst.CSTNode) -> bool:
    """Whether a node is in the block of a `with`, not in what it opens."""
    return script.around(node, cst.WithItem, cst.Lambda) is None


def _session_use(script: Script, use: cst.CSTNode) -> tuple[cst.CSTNode, str]:
    """The statement around a use of a session, which goes with it, and why."""
    above = script.parent(use)
    statement = script.statement(use)
    if statement is not None and isinstance(above, cst.Arg) and _into_set_session(script, above):
        return statement, f"{_GONE}, and has nothing to give one to"
    if statement is not None and isinstance(above, cst.Attribute):
        call = script.parent(above)
        if isinstance(call, cst.Call) and isinstance(script.parent(call), cst.Expr):
            if above.attr.value == "close":
                return statement, _GONE
            if above.attr.value == "run" and len(call.args) == 1:
                what = call.args[0].value
                if isinstance(what, cst.Call) and re.fullmatch(_INITIALIZE, script.name(what.func) or ""):
                    return statement, f"{_GONE}, and sets variables when it makes them"
    raise _CannotDecide(use, f"{_GONE}: what this session runs must be written as plain calls")


def _into_set_session(script: Script, arg: cst.CSTNode | None) -> bool:
    call = script.parent(arg) if isinstance(arg, cst.Arg) else None
    is_set = isinstance(call, cst.Call) and re.fullmatch(_SET_SESSION, script.name(call.func) or "")
    return bool(is_set) and isinstance(script.parent(call), cst.Expr)


def _statement_goes(script: Script, call: cst.Call, reason: str) -> None:
    if script.statement(call) is None or not isinstance(script.parent(call), cst.Expr):
        raise _CannotDecide(call, reason)
    script.changes.add(script.line(call), reason, script.remove(call))


def _put(script: Script, node: cst.CSTNode, lines: list[str]) -> None:
    """Write statements in place of one."""
    small = script.statement(node)
    if lines:
        edit = script.replace(small, script.lines(small, lines))
        script.changes.add(script.line(small), f"{_GONE}; tf.config sets the same", edit)
    else:
        script.changes.add(script.line(small), f"{_GONE}, and has nothing to give this to", script.remove(small))


def _list_gpus(script: Script) -> str:
    return f'{_gpus(script)} = {script.tensorflow()}.config.list_physical_devices("GPU")'


def _gpus(script: Script) -> str:
    taken = {name.value for name in script.all(cst.Name)}
    return "gpus" if "gpus" not in taken else "physical_gpus"


def _text(script: Script, setting: _Setting) -> str:
    return script.code(setting.value)


def _uses(script: Script, target: cst.CSTNode) -> list[cst.CSTNode]:
    """Where the variable is read, in the order of the text; it must be assigned once."""
    if not isinstance(target, cst.Name):
        raise _CannotDecide(target, f"{_GONE}; set the same with tf.config")
    home = _binder(script, target)
    mine = [node for node in script.all(cst.Name) if node.value == target.value and _binder(script, node) is home]
    bound = [node for node in mine if isinstance(script.parent(node), (cst.AssignTarget, cst.AsName, cst.AugAssign))]
    if bound != [target]:
        raise _CannotDecide(target, f"{_GONE}; {target.value} is assigned more than once: set the same with tf.config")
    return [node for node in mine if node is not target and _is_read(script, node)]


def _binder(script: Script, node: cst.Name) -> cst.CSTNode | None:
    """The function whose variable a name is; None for the module's."""
    function = script.around(node, cst.FunctionDef)
    while function is not None:
        inside = script.span(function)
        same = [one for one in script.all(cst.Name) if one.value == node.value and inside.holds(script.span(one))]
        bound = [one for one in same if isinstance(script.parent(one), (cst.AssignTarget, cst.Param))]
        if any(script.around(one, cst.FunctionDef) is function for one in bound):
            return function
        function = script.around(function, cst.FunctionDef)
    return None


def _is_read(script: Script, node: cst.Name) -> bool:
    above = script.parent(node)
    if isinstance(above, cst.Attribute):
        return above.value is node
    return not (isinstance(above, cst.Arg) and above.keyword is node)
