"""One rank of PyTorch's DistributedDataParallel: ddp.py FOLDER RANK."""

import os
import time

import torch
import torch_networks
from rounds import Job
from torch import distributed
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel


def main():
    job = Job()
    torch.set_num_threads(job.threads)
    torch.set_flush_denormal(True)  # as TensorFlow does
    torch.manual_seed(0)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", job.rank) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
        # TensorFlow multiplies in TF32 as well.
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    meeting = f"file://{job.folder / 'meeting'}"
    distributed.init_process_group("nccl" if gpu else "gloo", meeting, rank=job.rank, world_size=job.ranks)
    inputs, targets = torch.from_numpy(job.inputs).to(device), torch.from_numpy(job.targets).to(device)

    def network():
        made = torch_networks.build(job, inputs.dtype == torch.uint8)
        job.check(*torch_networks.counts(made))
        return made.to(device, memory_format=torch.channels_last)

    # Like the suite, do not average the statistics of batch normalisation in every step.
    averaged = DistributedDataParallel(network(), broadcast_buffers=False, gradient_as_bucket_view=True)
    ways = {"fit": Way(job, averaged, inputs, targets), "fit alone": Way(job, network(), inputs, targets)}
    seconds = job.measure(ways, distributed.barrier)
    check_replicas(averaged)
    gpu_bytes = torch.cuda.max_memory_allocated() if gpu else None
    job.write(seconds, {"torch": torch.__version__}, torch.cuda.get_device_name() if gpu else None, gpu_bytes)
    distributed.destroy_process_group()
    # Threads that PyTorch leaves behind end the process with SIGABRT now and then while Python ends.
    os._exit(0)


class Way:
    """A training loop: it gathers batches from memory, and sums loss and accuracy on the device."""

    def __init__(self, job, network, inputs, targets):
        self.network, self.optimizer, self.loss = network, optimizer(network, job), Loss(job, inputs.device)
        self.inputs, self.targets, self.shares = inputs, targets, job.shares()
        self.totals = torch.zeros(2, device=inputs.device)

    def __call__(self, steps):
        clock = Clock(self.inputs.is_cuda)
        self.network.train()
        clock.tick()
        for _ in range(steps):
            chosen = torch.from_numpy(next(self.shares)).to(self.inputs.device)
            step(self.network, self.optimizer, self.loss, self.inputs[chosen], self.targets[chosen], self.totals)
            clock.tick()
        return clock.times()


class Loss:
    """Cross-entropy, the mean over samples and pixels; those of a class may weigh more."""

    def __init__(self, job, device):
        self.weights = torch.tensor(job.class_weights, device=device) if job.class_weights else None

    def __call__(self, logits, targets):
        # PyTorch would divide by the sum of the weights.
        return cross_entropy(logits, targets, self.weights, reduction="sum") / targets.numel()


def optimizer(network, job):
    """SGD as in the job, with weight decay for kernels only, or Adam."""
    if job.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), job.rate, eps=1e-7, fused=True)
    kernels = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": job.weight_decay}, {"params": others}]
    return torch.optim.SGD(groups, job.rate, job.momentum, nesterov=job.nesterov, fused=True)


def step(network, optimizer, loss_of, inputs, targets, totals):
    """Make one step; add the loss and the number of correct samples or pixels to `totals`."""
    optimizer.zero_grad(set_to_none=True)
    logits = network(inputs)
    loss = loss_of(logits, targets)
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        totals += torch.stack([loss, (logits.argmax(1) == targets).sum()])


class Clock:
    """Notes times without making the host wait: on a GPU, by events in its stream."""

    def __init__(self, gpu):
        self.gpu, self.ticks = gpu, []

    def tick(self):
        if self.gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.ticks.append(event)
        else:
            self.ticks.append(time.perf_counter())

    def times(self):
        """The times of all ticks, in s."""
        if not self.gpu:
            return self.ticks
        torch.cuda.synchronize()
        return [self.ticks[0].elapsed_time(tick) / 1e3 for tick in self.ticks]


def check_replicas(network):
    """End with an error if a parameter is not the same, bit by bit, on all ranks."""
    for name, parameter in network.named_parameters():
        most, least = parameter.detach().clone(), parameter.detach().clone()
        distributed.all_reduce(most, distributed.ReduceOp.MAX)
        distributed.all_reduce(least, distributed.ReduceOp.MIN)
        if not torch.equal(most, least):
            raise SystemExit(f"error: the replicas differ in {name}")


if __name__ == "__main__":
    main()
