"""The wire of `shaped.py`: it carries packets between the hosts' TUN devices at a rate, after a delay.

The kernel's netem could do the same, but many kernels lack it, and a TUN device needs neither netem nor a bridge. Each
host has one full-duplex link to one switch. A packet leaves when the host's link has sent those before it, arrives
after the delay, and waits there while the switch's link to its destination is busy. No packet is lost: nothing is read
from a host whose link is busy, so its kernel makes its senders wait. Only the standard library is used.
"""

import contextlib
import fcntl
import heapq
import os
import select
import struct
import sys
import time

DEVICE = "shaped0"
# linux/if_tun.h: ioctls, and flags of a device without a link layer, whose packets have a header about segments.
_SET_DEVICE, _SET_OFFLOAD = 0x400454CA, 0x400454D0
_TUN_PLAIN_WITH_HEADER = 0x0001 | 0x1000 | 0x4000
_CHECKSUMS_AND_TCP_SEGMENTS = 0x1 | 0x2
_HEADER = struct.Struct("=BBHHHH")
# Preamble, Ethernet's header and checksum, and the gap that follows.
_FRAMING = 38
# This many s before a link is free, its next packet is read: this process is not always awake.
_AHEAD = 5e-4


def open_device() -> int:
    """Open a TUN device of this network namespace, as a file of packets. The device exists while the file is open."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _SET_DEVICE, struct.pack("16sH22x", DEVICE.encode(), _TUN_PLAIN_WITH_HEADER))
    # As for a network card, the kernel gives up to 64 KiB at once, which the card would cut into packets.
    fcntl.ioctl(file, _SET_OFFLOAD, _CHECKSUMS_AND_TCP_SEGMENTS)
    return file


def wire_bytes(packet: bytes) -> int:
    """The bytes of a packet on Ethernet, including the headers and gaps of its segments."""
    _, _, header, segment, _, _ = _HEADER.unpack_from(packet)
    length = len(packet) - _HEADER.size
    segments = -(-(length - header) // segment) if segment else 1
    return length + (segments - 1) * header + segments * _FRAMING


def relay(devices: list[int], rate: float, delay: float, end: int) -> None:
    """Carry packets until `end` is closed at its other side.

    Args:
        devices: of the hosts, whose addresses end in 1, 2, 3, ...
        rate: bytes/s of each link, in each direction.
        delay: s from one host to another.
        end: a file, whose end ends this.
    """
    sends, receives = [0.0] * len(devices), [0.0] * len(devices)
    due: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        now = time.monotonic()
        while due and due[0][0] <= now:
            _, _, to, packet = heapq.heappop(due)
            _deliver(devices[to], packet)
        idle = [host for host, free in enumerate(sends) if free < now + _AHEAD]
        wakes = [free - _AHEAD for free in sends if free >= now + _AHEAD] + [first[0] for first in due[:1]]
        wait = max(0.0, min(wakes) - now) if wakes else None
        ready = select.select([devices[host] for host in idle] + [end], [], [], wait)[0]
        if end in ready:
            return
        for host in idle:
            if devices[host] not in ready:
                continue
            packet = os.read(devices[host], 2**17)
            to = packet[_HEADER.size + 19] - 1  # the last byte of an IPv4 packet's destination
            if packet[_HEADER.size] >> 4 != 4 or not 0 <= to < len(devices):
                continue
            takes = wire_bytes(packet) / rate
            sends[host] = max(sends[host], time.monotonic()) + takes
            receives[to] = max(receives[to] + takes, sends[host] + delay)
            number += 1
            heapq.heappush(due, (receives[to], number, to, packet))


def _deliver(device: int, packet: bytes) -> None:
    # A packet is lost if its host cannot take it, because it is down or out of memory.
    with contextlib.suppress(OSError):
        os.write(device, packet)


def main() -> None:
    """`shaped_relay.py RATE DELAY DEVICE...`: bytes/s, s, open files; until standard input ends."""
    # The wire must not wait for a core that the ranks use.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    rate, delay, *devices = sys.argv[1:]
    relay([int(device) for device in devices], float(rate), float(delay), sys.stdin.fileno())


if __name__ == "__main__":
    main()
