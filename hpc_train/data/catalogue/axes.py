"""What the axes of a sample are taken for, in words."""


def axes_note(catalogue) -> str:
    """What is easily taken wrongly: a sample of two axes, whose last one counts channels, or one is added; else ""."""
    part = catalogue.inputs[0]
    shape = part.stored_shape
    if len(shape) != 2 or len(catalogue.inputs) > 1 or len(part.datasets) > 1 or part.lengths:
        return ""
    if part.added:
        return f"a sample {shape} is taken for a map (height, width) of one channel"
    axis = catalogue.channel_axis_of(part)
    which = "first" if axis == 0 else "last"
    return (
        f"the {which} axis of a sample {shape} is taken for {shape[axis]} channels; for maps (height, width) of one "
        "channel give --channels none"
    )
