"""The floating-point work of a training, from its speed in samples."""

from dataclasses import dataclass

from hpc_train.errors import UserError


@dataclass(frozen=True)
class Work:
    """FLOPs of a sample in a training step, None where they cannot be counted, and the TFLOP/s that all ranks could
    make together, None where they were not given."""

    flops: int | None
    peak: float | None

    @classmethod
    def of(cls, model, options, shape: tuple[int, ...], ranks: int) -> "Work":
        """The work of `model` on training samples of `shape`, of which --random-crop may take a part."""
        from hpc_train.flops import count

        sides = iter(getattr(options, "random_crop", None) or ())
        # Sides that the model leaves open are those of the part.
        open_sides = zip(model.input_shape[1:], shape, strict=True)
        shape = tuple(next(sides, whole) if side is None else side for side, whole in open_sides)
        try:
            counted = count.training(model, shape=shape)
        except UserError:
            counted = None
        return cls(counted, options.peak_tflops and options.peak_tflops * ranks)

    def rates(self, samples_per_s: float) -> dict[str, float]:
        """tflops_per_s, over all ranks, and utilisation, their share of the peak; what is not known is left out."""
        if self.flops is None:
            return {}
        rate = self.flops * samples_per_s / 1e12
        shares = {"utilisation": rate / self.peak} if self.peak else {}
        return {"tflops_per_s": float(f"{rate:.4g}"), **{name: round(share, 4) for name, share in shares.items()}}

    def describe(self, samples_per_s: float) -> str:
        """The same for people, such as ", 0.042 TFLOP/s (31.2% of the peak)"; may be empty."""
        rates = self.rates(samples_per_s)
        if not rates:
            return ""
        share = f" ({rates['utilisation']:.1%} of the peak)" if "utilisation" in rates else ""
        return f", {rates['tflops_per_s']:.3g} TFLOP/s{share}"
