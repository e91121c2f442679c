"""The floating-point work of a training, from its speed in samples/s."""

from dataclasses import dataclass

from hpc_train.errors import UserError


@dataclass(frozen=True)
class Work:
    """The work of a sample, and the peak rate of the devices."""

    flops: int | None
    """FLOPs of a sample in a training step; None if they cannot be counted."""
    peak: float | None
    """Peak TFLOP/s of all ranks together; None if not given."""

    @classmethod
    def of(cls, model, options, catalogue, ranks: int) -> "Work":
        """The work of `model` on the training samples of `catalogue`; --random-crop may use a part of them."""
        from hpc_train.flops import count

        shape = catalogue.inputs[0].shape if len(catalogue.inputs) == 1 else None
        sides = iter(getattr(options, "random_crop", None) or ())
        try:
            if shape is not None:
                # Sides that the model leaves open are the sides of the part.
                open_sides = zip(model.input_shape[1:], shape, strict=True)
                shape = tuple(next(sides, whole) if side is None else side for side, whole in open_sides)
        except (AttributeError, ValueError, TypeError):
            # A model with a graph of its own.
            return cls(None, options.peak_tflops and options.peak_tflops * ranks)
        try:
            counted = count.training(model, shape=shape)
        except UserError:
            counted = None
        return cls(counted, options.peak_tflops and options.peak_tflops * ranks)

    def rates(self, samples_per_s: float) -> dict[str, float]:
        """tflops_per_s over all ranks, and utilisation, its share of the peak; unknown numbers are left out."""
        if self.flops is None:
            return {}
        rate = self.flops * samples_per_s / 1e12
        shares = {"utilisation": rate / self.peak} if self.peak else {}
        return {"tflops_per_s": float(f"{rate:.4g}"), **{name: round(share, 4) for name, share in shares.items()}}

    def describe(self, samples_per_s: float) -> str:
        """The same as text, such as ", 0.042 TFLOP/s (31.2% of the peak)"; empty if nothing is known."""
        rates = self.rates(samples_per_s)
        if not rates:
            return ""
        share = f" ({rates['utilisation']:.1%} of the peak)" if "utilisation" in rates else ""
        return f", {rates['tflops_per_s']:.3g} TFLOP/s{share}"
