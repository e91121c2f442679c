"""Floating-point operations of a Keras model, counted from its Keras graph.

The count has the multiplications and additions of convolutions and dense layers, two for each multiply-add. It leaves
out operations element by element (biases, normalisation, activations, dropout, pooling, resizing, sums, the loss, the
optimizer): in the networks here they are a few per cent, and bound by memory. A convolution makes 2 * H * W * Cin /
groups * Cout * k**2 operations, where H x W is the size of its output, for any dilation; zeros at the border count like
other values. Each step of a recurrent layer multiplies its input and its state. A training step takes three times the
forward pass: the gradient with respect to the input of a layer and the gradient with respect to its weights each take
as much as the forward pass.

A transposed convolution is the gradient of a convolution that makes the large side small, so its H x W is that of its
*input*: each value there is multiplied by the whole kernel. The published figures agree. For the networks of Kurth et
al., "Exascale Deep Learning for Climate Analytics" (2018), at 768 x 1152 x 16 and three classes, in TFLOP a sample and
training step:

    three times the                          Tiramisu  DeepLabv3+
    convolutions                                4.110      11.997
    transposed convolutions, by input           0.078       1.027
    together                                    4.188      13.024
    (transposed convolutions by output          4.422      16.106)

The published figure for Tiramisu is 4.188. That for DeepLabv3+ is 14.41, more than the 13.02 that the network itself
needs when the stages of the encoder stride in their last block, as in TF-Slim (13.05 if in their first). The framework
of that time padded the inputs of dilated convolutions, which makes it 13.07: the rest of the difference is unexplained.
"""

from math import prod

import keras
from keras import layers

from hpc_train.errors import UserError

_CONVOLUTIONS = layers.Conv1D, layers.Conv2D, layers.Conv3D
_DEPTHWISE = layers.DepthwiseConv1D, layers.DepthwiseConv2D
_SEPARABLE = layers.SeparableConv1D, layers.SeparableConv2D
_RECURRENT = layers.LSTM, layers.GRU, layers.SimpleRNN
_TRANSPOSED = layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose
# Layers that have matrices among their weights but multiply none.
_ELEMENTWISE = layers.Embedding, layers.PReLU, layers.BatchNormalization, layers.LayerNormalization
# Names of keras.ops that multiply matrices and are not layers: Keras does not export these classes.
_OPERATIONS = {
    "Matmul",
    "Einsum",
    "Dot",
    "Tensordot",
    "Vdot",
    "Inner",
    "Conv",
    "ConvTranspose",
    "DepthwiseConv",
    "SeparableConv",
}


def forward(model: keras.Model, batch: int = 1, shape: tuple[int, ...] | None = None) -> int:
    """FLOPs of one forward pass of `batch` samples; arguments and errors are those of `by_layer`."""
    return batch * sum(by_layer(model, shape).values())


def training(model: keras.Model, batch: int = 1, shape: tuple[int, ...] | None = None) -> int:
    """FLOPs of one training step on `batch` samples: three times `forward`, even if layers are frozen."""
    return 3 * forward(model, batch, shape)


def by_layer(model: keras.Model, shape: tuple[int, ...] | None = None) -> dict[str, int]:
    """FLOPs of the forward pass of one sample for each layer that has any, in the order of the graph.

    Args:
        model: functional or sequential, built; compiled or not. The layers of models inside it are counted as
            "model/layer"; a layer that is called several times counts each time.
        shape: of a sample, if the shape of the model's input is not fully known; for example (768, 1152, 16).

    Raises:
        UserError: a size is unknown, the model has no graph, or a layer is of a kind that is not counted here.
    """
    inputs = [keras.KerasTensor(x.shape, x.dtype) for x in _graph(model, model.name).inputs]
    if shape:
        if len(inputs) != 1 or len(inputs[0].shape) != len(shape) + 1:
            raise UserError(
                f"{model.name} takes {[x.shape[1:] for x in inputs]}; a sample of shape {shape} does not fit"
            )
        inputs = [keras.KerasTensor((None, *shape), inputs[0].dtype)]
    counted: dict[str, int] = {}
    _follow(model, inputs, "", counted)
    return counted


def _graph(model, name: str):
    """The functional graph of a model; a sequential model contains one."""
    graph = getattr(model, "_functional", model)
    if not hasattr(graph, "_run_through_graph"):
        raise UserError(f"{name} has no graph of layers to count; build it with Keras's functional API")
    return graph


def _follow(model, inputs, name: str, counted: dict[str, int]):
    """Run shapes through the graph of a model, add the FLOPs of its layers to `counted`, return its outputs' shapes."""

    def follow(operation):
        path = f"{name}/{operation.name}" if name else operation.name

        def call(*args, **kwargs):
            if isinstance(operation, keras.Model):
                return _follow(operation, keras.tree.flatten(args), path, counted)
            outputs = operation.compute_output_spec(*args, **kwargs)
            made = _operations(operation, args, outputs, path)
            if made:
                counted[path] = counted.get(path, 0) + made
            return outputs

        return call

    return _graph(model, name)._run_through_graph(inputs, operation_fn=follow)


def _operations(layer, args, output, name: str) -> int:
    """FLOPs of one call of a layer; UserError for a layer that has a matrix but no rule."""
    if isinstance(layer, layers.TimeDistributed):
        layer = layer.layer
    if isinstance(layer, (*_CONVOLUTIONS, *_DEPTHWISE, layers.Dense)):
        channels = layer.kernel.shape[-1] * (layer.kernel.shape[-2] if isinstance(layer, _DEPTHWISE) else 1)
        return 2 * _size(output, name) // channels * prod(layer.kernel.shape)
    if isinstance(layer, _TRANSPOSED):
        kernel = layer.kernel.shape
        return 2 * _size(args[0], name) // kernel[-1] * prod(kernel)
    if isinstance(layer, _SEPARABLE):
        kernels = prod(layer.depthwise_kernel.shape) + prod(layer.pointwise_kernel.shape)
        return 2 * _size(output, name) // layer.pointwise_kernel.shape[-1] * kernels
    if isinstance(layer, layers.EinsumDense):
        _, kernel, result = layer.equation.replace("->", ",").split(",")
        summed = prod(side for label, side in zip(kernel, layer.kernel.shape, strict=True) if label not in result)
        return 2 * _size(output, name) * summed
    if isinstance(layer, layers.Bidirectional):
        return sum(_operations(one, args, output, name) for one in (layer.forward_layer, layer.backward_layer))
    if isinstance(layer, _RECURRENT):
        steps = args[0].shape[1]
        if steps is None:
            raise UserError(f"{name} has an unknown number of steps; give the shape of a sample")
        return 2 * steps * (prod(layer.cell.kernel.shape) + prod(layer.cell.recurrent_kernel.shape))
    unknown = any(len(weight.shape) > 1 for weight in getattr(layer, "trainable_weights", ()))
    if type(layer).__name__ in _OPERATIONS or (unknown and not isinstance(layer, _ELEMENTWISE)):
        raise UserError(f"{name}: the operations of {type(layer).__name__} cannot be counted; leave that layer out")
    return 0


def _size(tensor, name: str) -> int:
    """Number of values in one sample."""
    if None in tensor.shape[1:]:
        raise UserError(f"{name} has the unknown size {tensor.shape[1:]}; give the shape of a sample")
    return prod(tensor.shape[1:])
