"""Steps of the PyTorch networks from given weights: torch_steps.py SCRIPTS GIVEN.npz FOUND.npz, in a Python with torch.

GIVEN has weight-000, weight-001, ... in PyTorch's order, the inputs and targets of one batch, and settings (JSON). All
steps use this batch. FOUND gets the logits of the first step, and the weights after all steps.
"""

import json
import sys
from types import SimpleNamespace

import numpy as np
import torch

sys.path.insert(0, sys.argv[1])
import ddp
import torch_networks

given = np.load(sys.argv[2])
job = SimpleNamespace(**json.loads(str(given["settings"])))
inputs, targets = torch.from_numpy(given["inputs"]), torch.from_numpy(given["targets"])
network = torch_networks.build(job, inputs.dtype == torch.uint8)
network = network.to(memory_format=torch.channels_last)
names = sorted(name for name in given if name.startswith("weight-"))
with torch.no_grad():
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter, name in zip(trained, names, strict=True):
        parameter.copy_(torch.from_numpy(given[name]))
    logits = network(inputs).numpy()
optimizer, loss, totals = ddp.optimizer(network, job), ddp.Loss(job, "cpu"), torch.zeros(2)
for _ in range(job.steps):
    ddp.step(network, optimizer, loss, inputs, targets, totals)
weights = {name: parameter.detach().numpy() for name, parameter in zip(names, trained, strict=True)}
np.savez(sys.argv[3], logits=logits, **weights)
