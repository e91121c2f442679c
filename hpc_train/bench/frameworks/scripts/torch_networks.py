"""The suite's networks in PyTorch. They take samples as stored, (b, height, width, channels), and give logits.

Those of a label for each sample are (b, classes), those of label maps (b, classes, height, width).
"""

import torch
from torch import nn
from torch.nn import functional as F

# Of ImageNet's pixels, in 0..255: the suite's resnet trainer normalises colour images by them.
_RGB_MEAN, _RGB_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def build(job, in_bytes):
    """Make the network of a job.

    Args:
        job: its `model` is deep, lstm, resnetN or a Tiramisu; it has what `networks.sizes` says of that, and of maps
            `shift` and `divisor`; `input_shape` is (height, width, channels), `classes` the number of logits.
        in_bytes: whether the samples are bytes, which the network then scales.
    """
    if job.model.startswith("tiramisu"):
        return Tiramisu(job)
    return {"deep": Deep, "lstm": Lstm}.get(job.model, ResNet)(job, in_bytes)


def counts(network):
    """The numbers of parameters, (all, those that are trained). All include moving means and variances."""
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    kept = ("running_mean", "running_var")
    return trained + sum(b.numel() for name, b in network.named_buffers() if name.endswith(kept)), trained


class Scale(nn.Module):
    """(x - shift) / divisor, with channels moved to axis 1. The memory keeps its order, channels last."""

    def __init__(self, shift, divisor):
        super().__init__()
        self.register_buffer("factor", 1 / torch.tensor(divisor).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("offset", -torch.tensor(shift).reshape(-1, 1, 1) * self.factor, persistent=False)

    def forward(self, x):
        return torch.addcmul(self.offset, x.permute(0, 3, 1, 2).float(), self.factor)


class Deep(nn.Module):
    """Conv 32, conv 64, pool, dense 128."""

    def __init__(self, job, in_bytes):
        super().__init__()
        height, width, channels = job.input_shape
        self.scale = Scale((0.0,), (255.0 if in_bytes else 1.0,))
        self.conv1, self.conv2 = nn.Conv2d(channels, 32, 3), nn.Conv2d(32, 64, 3)
        self.dense = nn.Linear((height - 4) // 2 * ((width - 4) // 2) * 64, 128)
        self.logits = nn.Linear(128, job.classes)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(self.scale(x)))))
        # Flattened channels last, as in Keras; with channels-last memory this is a view.
        x = F.max_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1)
        return self.logits(F.relu(self.dense(x)))


class Lstm(nn.Module):
    """Four LSTM layers of 64 units, which read an image row by row."""

    def __init__(self, job, in_bytes):
        super().__init__()
        _, width, channels = job.input_shape
        self.scale = Scale((0.0,), (255.0 if in_bytes else 1.0,))
        self.lstm = nn.LSTM(width * channels, 64, 4, batch_first=True)
        for name, parameter in self.lstm.named_parameters():
            # Of the two biases Keras has one.
            if name.startswith("bias_hh"):
                nn.init.zeros_(parameter.requires_grad_(False))
        self.logits = nn.Linear(64, job.classes)

    def forward(self, x):
        rows = self.scale(x).permute(0, 2, 3, 1).flatten(2)
        return self.logits(self.lstm(rows)[0][:, -1])


class ResNet(nn.Module):
    """The networks of He et al. (2016), version 1.

    Those of section 4.2, for CIFAR, have shortcuts without parameters (option A), those for ImageNet projections (B).
    """

    def __init__(self, job, in_bytes):
        super().__init__()
        channels = job.input_shape[2]
        half = (127.5,) * channels
        shift, divisor = ((_RGB_MEAN, _RGB_STD) if channels == 3 else (half, half)) if in_bytes else ((0.0,), (1.0,))
        self.scale, self.imagenet = Scale(shift, divisor), job.imagenet
        maps = 64 if job.imagenet else 16
        self.stem = _conv(channels, maps, 2, 7) if job.imagenet else _conv(channels, maps, 1, 3)
        self.blocks = nn.Sequential()
        for stage, count in enumerate(job.blocks):
            width = (64 if job.imagenet else 16) * 2**stage
            for number in range(count):
                stride = 2 if stage and not number else 1
                self.blocks.append(Block(maps, width, stride, job.bottleneck, job.imagenet))
                maps = width * (4 if job.bottleneck else 1)
        self.logits = nn.Linear(maps, job.classes)

    def forward(self, x):
        x = F.relu(self.stem(self.scale(x)), inplace=True)
        x = self.blocks(F.max_pool2d(x, 3, 2, padding=1) if self.imagenet else x)
        return self.logits(x.mean((2, 3)))


class Block(nn.Module):
    """Convolutions with batch normalisation, added to the shortcut, then ReLU."""

    def __init__(self, before, width, stride, bottleneck, projected):
        super().__init__()
        after = width * 4 if bottleneck else width
        self.stride, self.missing = stride, after - before
        layers = [(width, stride, 3), (after, 1, 3)]
        if bottleneck:
            layers = [(width, 1, 1), (width, stride, 3), (after, 1, 1)]
        maps = (before, *(filters for filters, _, _ in layers))
        self.convs = nn.ModuleList(_conv(given, *layer) for given, layer in zip(maps, layers, strict=False))
        changed = projected and (stride > 1 or self.missing)
        self.project = _conv(before, after, stride, 1) if changed else None

    def forward(self, x):
        y = self.convs[0](x)
        for conv in self.convs[1:]:
            y = conv(F.relu(y, inplace=True))
        if self.project is not None:
            x = self.project(x)
        elif self.missing:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))
        return F.relu(x + y, inplace=True)


def _conv(before, after, stride, kernel):
    """A convolution with batch normalisation."""
    conv = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after))


class Tiramisu(nn.Module):
    """The suite's Tiramisu: dense blocks that halve and double maps, padded to sides that can be halved."""

    def __init__(self, job):
        super().__init__()
        self.scale, preset = Scale(job.shift, job.divisor), job.preset
        self.sides, multiple = job.input_shape[:2], 2 ** (len(preset["down"]) - 1)
        more = [-side % multiple for side in self.sides]
        self.margins = [(number // 2, number - number // 2) for number in more]
        growth, bottom = preset["growth"], len(preset["down"]) - 1
        self.stem = Layer(job.input_shape[2], preset["stem"], preset["kernel"], 1, preset)
        maps, skips = preset["stem"], []
        # First: parameters are in the order in which a step needs them, as in Keras.
        self.order = nn.ModuleList([self.stem])
        self.down, self.transitions, self.transposed, self.up = (nn.ModuleList() for _ in range(4))
        for level, count in enumerate(preset["down"]):
            self.down.append(Dense(maps, count, preset))
            self.order.append(self.down[-1])
            maps += count * growth
            if level < bottom:
                skips.append(maps)
                self.transitions.append(Layer(maps, maps, 1, 2, preset))
                self.order.append(self.transitions[-1])
        added = preset["down"][-1] * growth
        for count in reversed(preset["down"][:-1]):
            self.transposed.append(nn.ConvTranspose2d(added, added, 3, 2))
            self.up.append(Dense(added + skips.pop(), count, preset))
            self.order += [self.transposed[-1], self.up[-1]]
            maps, added = self.up[-1].maps, count * growth
        self.logits = nn.Conv2d(maps, job.classes, 1)

    def forward(self, x):
        (top, low), (left, right) = self.margins
        x = F.pad(self.scale(x), (left, right, top, low))
        x, skips = self.stem(x), []
        for level, block in enumerate(self.down):
            x, added = block(x)
            if level < len(self.transitions):
                skips.append(x)
                x = self.transitions[level](x)
        for transposed, block in zip(self.transposed, self.up, strict=True):
            # As Keras: no row or column more than twice as many.
            x = transposed(added)[:, :, :-1, :-1]
            x, added = block(torch.cat([x, skips.pop()], 1))
        return self.logits(x[:, :, top : top + self.sides[0], left : left + self.sides[1]])


class Dense(nn.Module):
    """Layers that each see all maps before; gives those, and what the layers added."""

    def __init__(self, maps, count, preset):
        super().__init__()
        growth = preset["growth"]
        self.maps = maps + count * growth
        self.layers = nn.ModuleList(
            Layer(maps + number * growth, growth, preset["kernel"], 1, preset) for number in range(count)
        )

    def forward(self, x):
        added = []
        for layer in self.layers:
            added.append(layer(x))
            x = torch.cat([x, added[-1]], 1)
        return x, torch.cat(added, 1) if len(added) > 1 else added[0]


class Layer(nn.Module):
    """Convolution, normalisation if the preset has it, ReLU, dropout."""

    def __init__(self, before, after, kernel, stride, preset):
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=not preset["batch_norm"])
        self.norm = nn.BatchNorm2d(after) if preset["batch_norm"] else nn.Identity()
        self.dropout = nn.Dropout(preset["dropout"])

    def forward(self, x):
        return self.dropout(F.relu(self.norm(self.conv(x)), inplace=True))
