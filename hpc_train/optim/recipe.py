"""The recipe of a training: its options, and the chain of optimizers that they make."""

import math
from dataclasses import dataclass
from typing import Literal

from hpc_train.errors import UserError


@dataclass(frozen=True)
class RecipeOptions:
    """How weights are updated, in every trainer."""

    GROUP = "recipe"

    optimizer: Literal["sgd", "adam", "lamb"] = "sgd"
    """sgd: SGD with momentum; adam: Adam (Kingma and Ba 2015); lamb: LAMB, Adam with layer-wise rates (You et al.
    2020)."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Use Nesterov's momentum in SGD."""
    layerwise: Literal["none", "lars", "larc"] = "none"
    """Layer-wise rates from the norms of weights and gradients. lars: LARS, which scales the rates of SGD; larc: LARC,
    which limits the rates of any optimizer."""
    trust: float | None = None
    """With --layerwise: the trust coefficient (eta); by default 0.001 for LARS and 0.002 for LARC."""
    weight_decay: float = 0.0
    """Weight decay of kernels, not of biases or normalisation: L2 in the gradient for SGD, decoupled for Adam and
    LAMB."""
    clip_norm: float | None = None
    """Largest joint norm of all gradients after averaging over the ranks; larger gradients are scaled down."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes."""
    accumulate: int = 1
    """Number of batches that a rank computes one after the other in each step; their mean gradient is averaged over the
    ranks and applied once."""
    lag: Literal[0, 1] = 0
    """1: each step applies the averaged gradient of the step before, so that averaging runs in parallel with the
    computation; the gradient of the last step is dropped."""
    ema: float | None = None
    """Validate with, and save, an exponential moving average of the weights with this decay, for example 0.9999."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the computation. Weights, softmax and loss stay in float32; with float16 the loss is scaled
    automatically."""
    loss_scale: float | None = None
    """With --precision float16: a fixed loss scale, a power of 2; by default the scale adapts."""

    def check(self) -> None:
        """Check the values and their combinations.

        Raises:
            UserError: the first one that makes no sense.
        """
        bounds = {
            "momentum": (0 <= self.momentum < 1, "from 0 to less than 1"),
            "trust": (self.trust is None or 0 < self.trust < math.inf, "above 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "clip_norm": (self.clip_norm is None or 0 < self.clip_norm < math.inf, "above 0"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "from 0 to less than 1"),
            "accumulate": (self.accumulate >= 1, "at least 1"),
            "ema": (self.ema is None or 0 < self.ema < 1, "between 0 and 1"),
            "lag": (self.lag in (0, 1), "0 or 1"),
            "loss_scale": (self.loss_scale is None or 0 < self.loss_scale < math.inf, "above 0"),
        }
        for option, (fits, range_) in bounds.items():
            if not fits:
                raise UserError(f"--{option.replace('_', '-')} is {getattr(self, option)}; it must be {range_}")
        if self.optimizer == "sgd":
            if self.nesterov and not self.momentum:
                raise UserError("--nesterov needs momentum; give a --momentum above 0, or --no-nesterov")
        elif self._is_set("nesterov") or self._is_set("momentum"):
            raise UserError(f"--momentum and --nesterov are for --optimizer sgd, not {self.optimizer}; leave them out")
        elif self.layerwise == "lars":
            raise UserError(f"--layerwise lars is for --optimizer sgd, not {self.optimizer}; for Adam use lamb")
        elif self.optimizer == "lamb" and self.layerwise != "none":
            raise UserError("--optimizer lamb has layer-wise rates already; leave --layerwise out")
        if self.trust is not None and self.layerwise == "none":
            raise UserError("--trust is the coefficient of --layerwise; give --layerwise lars or larc, or leave it out")
        if self.loss_scale is not None and self.precision != "float16":
            raise UserError(f"--loss-scale is for --precision float16, not {self.precision}; leave it out")

    def _is_set(self, option: str) -> bool:
        return getattr(self, option) != getattr(type(self), option)


def optimizer(options: RecipeOptions, rate: float, multipliers: dict[str, float] | None = None):
    """Make the Keras optimizer of `options`, to be wrapped in a `parallel.DistributedOptimizer`.

    From the outside in: loss scaling, clipping, weight decay, layer-wise rates, rate multipliers, and SGD, Adam or
    LAMB; each only if the options set it.

    Args:
        options: checked options.
        rate: the initial learning rate.
        multipliers: see `update.RateMultipliers`.
    """
    import keras

    from hpc_train.optim import loss_scale, rules, update

    decoupled = options.optimizer != "sgd" and options.weight_decay > 0
    common = {"use_ema": True, "ema_momentum": options.ema} if options.ema else {}
    if options.optimizer == "sgd":
        chain = keras.optimizers.SGD(rate, float(options.momentum), options.nesterov, **common)
    else:
        make = {"adam": keras.optimizers.Adam, "lamb": keras.optimizers.Lamb}[options.optimizer]
        chain = make(rate, weight_decay=options.weight_decay if decoupled else None, **common)
    if decoupled:
        chain = update.DecayMatricesOnly(chain)
    if multipliers:
        chain = update.RateMultipliers(chain, multipliers)
    trust = {} if options.trust is None else {"eta": options.trust}
    if options.layerwise == "lars":
        chain = rules.LARS(chain, weight_decay=options.weight_decay, **trust)
    elif options.layerwise == "larc":
        chain = rules.LARC(chain, **trust)
    if options.weight_decay and not decoupled and options.layerwise != "lars":
        chain = rules.WeightDecay(chain, options.weight_decay)
    if options.clip_norm is not None:
        chain = rules.ClipByGlobalNorm(chain, options.clip_norm)
    if options.loss_scale is not None:
        return loss_scale.StaticLossScale(chain, options.loss_scale)
    return keras.optimizers.LossScaleOptimizer(chain) if options.precision == "float16" else chain
