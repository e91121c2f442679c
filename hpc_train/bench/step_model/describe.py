"""The model in words."""

import math

from hpc_train.bench.step_model.fitted import Fitted
from hpc_train.bench.step_model.network import Link
from hpc_train.units import number, size


def describe(fitted: Fitted) -> list[str]:
    """What was fitted, to what, and how well it fits: lines of text."""
    made, curve = fitted.constants, fitted.curve
    largest = made.measured[-1]
    sizes = ", ".join(str(one.size.ranks) for one in made.measured)
    network, shape = made.network, largest.size.shape
    lines = [
        f"{curve.mode} scaling of {curve.ways[0]!r}, measured at {sizes} ranks; computation {_ms(largest.compute)} a "
        f"step at {largest.size.ranks} ranks",
        f"all-reduce: {size(shape.bytes)} a step in {len(shape.buckets)} "
        f"bucket{'s' * (len(shape.buckets) > 1)}, lag {shape.lag}, {network.algorithm}"
        f"{', hierarchical' if network.hierarchical else ''}; {_links(fitted)}",
        f"a rank's step varies by {made.deviation:.1%} (standard deviation of {curve.ways[1]!r}), tail: {made.tail}; "
        f"averaging on one rank costs {_ms(made.overhead)}",
    ]
    if all(one.size.ranks == 1 for one in made.measured):
        lines.append("the spread is that of one rank over time, an upper bound: ranks do not wait for noise they share")
    if all(one.size.nodes == 1 for one in made.measured) and not fitted.given.network:
        lines.append("all sizes ran on one node: the model links more ranks like these, but a network is slower")
    if not fitted.given.network and fitted.link_sizes == 1:
        lines.append(
            "one size cannot separate latency from bandwidth: the model takes half of each in a tree, and the band "
            "includes all shares; measure another size, or give --allreduce FILE of `hpc-train bench allreduce`"
        )
    elif not fitted.given.algorithm and fitted.link_sizes == 2:
        lines.append(
            "two sizes cannot show whether ranks reduce in a ring or a tree: the model takes a tree; for Gloo, which "
            "uses a ring, give --algorithm ring"
        )
    lines += curve.notes
    lines += [_swept(one) for one in fitted.sweep]
    lines.append(_holdout(fitted))
    return lines


def _links(fitted: Fitted) -> str:
    network = fitted.constants.network
    source = "given" if fitted.given.network else "fitted"
    if network.within is None or network.ranks_per_node == 1:
        return f"{source}: {_link(network.between)}"
    return f"{source}: between nodes {_link(network.between)}, within {_link(network.within)}"


def _link(link: Link) -> str:
    if not link.latency and not link.byte_time:
        return "too fast to show beside the computation"
    bandwidth = "no limit" if math.isinf(link.bandwidth) else f"{link.bandwidth / 1e9:.3g} GB/s"
    return f"latency {number(1e6 * link.latency)} us, bandwidth {bandwidth}"


def _swept(one: dict) -> str:
    return (
        f"{one['changed']} at {one['ranks']} ranks: samples/s x {one['predicted']:.3f} predicted, "
        f"x {one['measured']:.3f} measured"
    )


def _holdout(fitted: Fitted) -> str:
    held = fitted.holdout
    if held is None:
        return "no hold-out: it needs two sizes besides the largest"
    error = f" +- {number(held['measured_error'])}" if held["measured_error"] else ""
    return (
        f"hold-out: {held['ranks']} ranks predicted from {', '.join(map(str, held['fitted']))}: "
        f"{number(held['predicted'])} samples/s ({number(held['low'])} to {number(held['high'])}), "
        f"measured {number(held['measured'])}{error}: error {held['error']:+.1%}"
    )


def _ms(seconds: float) -> str:
    return f"{number(1e3 * seconds)} ms"
