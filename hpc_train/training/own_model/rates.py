"""The optimizers of a training, and their learning rates: of the options, or as a user's model was compiled with."""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from hpc_train.errors import UserError
from hpc_train.optim.recipe import RecipeOptions
from hpc_train.optim.schedule import Schedule, scale
from hpc_train.training.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable

# What a compiled model does not decide itself.
_OF_RUNS = ("accumulate", "lag", "precision")
# What the rates of a compiled model are multiplied by, if it is asked for; as they are: one constant.
_CONSTANT: dict[str, Any] = {"lr_scaling": "none", "warmup_epochs": 0.0, "decay": "none"}


@dataclass(frozen=True)
class Rates:
    """The optimizers that train a model.

    Args:
        optimizers: by the name of the model's attribute.
        bases: the rate of each at the schedule's 1; None leaves it alone, as one with a schedule of its own.
        schedule: of what the rates are multiplied by.
        line: how the rates were chosen, to print.
    """

    optimizers: dict[str, Any]
    bases: dict[str, float | None]
    schedule: Schedule
    line: str

    def set(self, epochs: float) -> None:
        """Set the rates for the step that begins after so many epochs."""
        import keras

        from hpc_train.optim.wrapper import unwrap

        factor = self.schedule.rate(epochs)
        for name, base in self.bases.items():
            if base is not None:
                optimizer = unwrap(self.optimizers[name])
                if type(optimizer).learning_rate is keras.optimizers.Optimizer.learning_rate:
                    # What Keras's own does in ten times the time, half a millisecond of every step.
                    optimizer._learning_rate.value.assign(base * factor, read_value=False)
                else:
                    optimizer.learning_rate = base * factor

    def now(self) -> dict[str, float]:
        """The rates as metrics.jsonl has them: `learning_rate`, with the optimizer's name where there are several."""
        several = len(self.optimizers) > 1
        return {
            f"learning_rate_{name}" if several else "learning_rate": float(optimizer.learning_rate)
            for name, optimizer in self.optimizers.items()
        }

    def used(self) -> "Rates":
        """The same without the optimizers that the training step does not use; call it when the step was traced."""
        built = {name: one for name, one in self.optimizers.items() if one.built} or self.optimizers
        return replace(self, optimizers=built, bases={name: self.bases[name] for name in built})


def of_options(model, options: Options, global_batch: int) -> Rates:
    """The rate of the options, for the one optimizer that they make."""
    schedule = _schedule(options, options.lr, global_batch)
    line = f"rate {schedule.start:g} -> {schedule.peak:g}"
    return Rates({"optimizer": model.optimizer}, {"optimizer": 1.0}, schedule, line)


def of_model(model, options: Options, global_batch: int, wrap: "Callable") -> Rates:
    """Let each optimizer of a compiled model average over the ranks, and keep its rate.

    The rates are those that the model was compiled with, on any number of ranks, times what --lr-scaling,
    --warmup-epochs and --decay ask for where they are given.

    Args:
        model: compiled.
        options: of the trainer.
        global_batch: samples in a step over all ranks.
        wrap: called with each optimizer that does not average yet.

    Raises:
        UserError: options that contradict the model's own optimizers.
    """
    from hpc_train.parallel.optimizer import DistributedOptimizer
    from hpc_train.parallel.variables import named_optimizers

    found = {id(optimizer): (name, optimizer) for name, optimizer in reversed(named_optimizers(model))}
    optimizers = dict(reversed(list(found.values())))
    _check(options, optimizers)
    for optimizer in optimizers.values():
        if not isinstance(optimizer, DistributedOptimizer):
            wrap(optimizer)
    asked = _asked(options, *_CONSTANT)
    own = [name for name, optimizer in optimizers.items() if _scheduled(optimizer)]
    if own and asked:
        raise UserError(f"--{_typed(asked[0])}: the model's {own[0]} has a schedule of its own; leave the option out")
    schedule = _schedule(replace(options, **{k: v for k, v in _CONSTANT.items() if k not in asked}), 1.0, global_batch)
    # Not set at all where nothing is asked for: a model may change its rates itself.
    bases = {name: float(one.learning_rate) if asked else None for name, one in optimizers.items()}
    return Rates(optimizers, bases, schedule, "")


def describe(rates: Rates, options: Options) -> str:
    """How the rates of a compiled model were chosen, in a line."""
    parts = []
    for name, optimizer in rates.optimizers.items():
        rate = "its own schedule" if _scheduled(optimizer) else f"{float(optimizer.learning_rate):g}"
        parts.append(f"{name} {type(optimizer).__name__} {rate}")
    asked = _asked(options, *_CONSTANT)
    how = "on any number of ranks, not scaled, warmed up or decayed"
    if asked:
        schedule = rates.schedule
        how = f"times {schedule.start:g} -> {schedule.peak:g}, decay {schedule.decay}, as asked for"
    return f"rates as compiled: {', '.join(parts)}; {how}"


def _check(options: Options, optimizers: dict) -> None:
    of_recipe = [field.name for field in fields(RecipeOptions) if field.name not in _OF_RUNS]
    if wrong := _asked(options, *of_recipe, "lr", "head_lr"):
        names = ", ".join(f"{name} {type(one).__name__}" for name, one in optimizers.items()) or "no optimizer"
        raise UserError(
            f"--{_typed(wrong[0])}: the model is compiled already, with {names}; set it there, or return the model "
            "uncompiled"
        )


def check_own_step(options: Options) -> None:
    """UserError for what only Keras's own `train_step` does: where a model has its own, the numbers would be wrong."""
    if options.accumulate > 1:
        raise UserError("--accumulate is for Keras's own train_step, not for a model's own; leave it out")
    if options.precision == "float16":
        raise UserError(
            "--precision float16 scales the loss of Keras's own train_step, not of a model's own; use bfloat16"
        )


def _asked(options: Options, *names: str) -> list[str]:
    """Those of the options that are not as they are by default."""
    default = type(options)
    return [
        name
        for name in names
        if getattr(options, name) not in (getattr(default, name), _CONSTANT.get(name, getattr(default, name)))
    ]


def _typed(name: str) -> str:
    return name.replace("_", "-")


def _scheduled(optimizer) -> bool:
    import keras

    from hpc_train.optim.wrapper import unwrap

    return isinstance(unwrap(optimizer)._learning_rate, keras.optimizers.schedules.LearningRateSchedule)


def _schedule(options: Options, rate: float, global_batch: int) -> Schedule:
    peak = rate * scale(options.lr_scaling, global_batch, options.base_batch)
    one_rank = rate * scale(options.lr_scaling, options.batch_size * options.accumulate, options.base_batch)
    return Schedule(
        start=min(rate, one_rank),
        peak=peak,
        epochs=options.epochs,
        warmup_epochs=options.warmup_epochs,
        decay=options.decay,
        milestones=options.decay_at,
        power=options.decay_power,
    )
