"""The network of `shaped.py`: its links are as slow as they should be, and no process outlives it."""

import argparse
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import shaped
import shaped_relay

RATE, DELAY = "80mbit", "5ms"
# On the first host: name and cores of the second one, the time of a byte to it and back, and the rate of two megabytes.
TRIAL = """
import json, socket, subprocess, sys, time

def ssh(host, command):
    return subprocess.run(["ssh", "-x", host, "-o", "Some=Option", command], capture_output=True, text=True)

answer = '''
import socket
with socket.create_server(("", 5000)) as server:
    print("ready", flush=True)
    to, _ = server.accept()
    to.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(20):
        to.sendall(to.recv(1))
    left = 2_000_000
    while left:
        left -= len(to.recv(left))
    to.sendall(b"x")
'''
server = subprocess.Popen(["ssh", "shaped2", f"exec {sys.executable} -c '{answer}'"], stdout=subprocess.PIPE)
server.stdout.readline()
there = socket.create_connection(("shaped2", 5000))
there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
trips = []
for _ in range(20):
    begun = time.perf_counter()
    there.sendall(b"x")
    there.recv(1)
    trips.append(time.perf_counter() - begun)
begun = time.perf_counter()
there.sendall(bytes(2_000_000))
there.recv(1)
rate = 2_000_000 / (time.perf_counter() - begun)
other = ssh("shaped2", "hostname; taskset -cp $$").stdout
left = ssh("shaped2", "setsid sleep 1000 >/dev/null 2>&1 & echo $!").stdout
print(json.dumps({
    "name": socket.gethostname(), "other": other, "trip": min(trips), "rate": rate,
    "status": ssh("shaped2", "exit 7").returncode, "unknown": ssh("shaped9", "true").returncode, "left": int(left),
}))
"""


@pytest.fixture(scope="module")
def found():
    """The result of the trial on the first of two hosts."""
    if reason := shaped.missing():
        pytest.skip(reason)
    command = [sys.executable, shaped.__file__, "--hosts", "2", "--rate", RATE, "--delay", DELAY, "--"]
    ended = subprocess.run([*command, sys.executable, "-c", TRIAL], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_message_takes_the_delay_each_way(found):
    assert found["trip"] >= 2 * shaped.quantity(DELAY)
    assert found["trip"] < 2 * shaped.quantity(DELAY) + 0.02


def test_bytes_travel_at_the_rate_of_the_link(found):
    assert 0.3 * shaped.quantity(RATE) < found["rate"] < shaped.quantity(RATE)


def test_hosts_have_names_and_cores_and_are_reached_by_ssh(found):
    assert found["name"] == "shaped1"
    assert found["other"].startswith("shaped2\n")
    if len(os.sched_getaffinity(0)) == 2:
        assert int(found["other"].split(":")[1]) == max(os.sched_getaffinity(0))
    assert (found["status"], found["unknown"]) == (7, 255)


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_processes_that_a_command_leaves_on_a_host_end_with_the_network(found):
    assert not alive(found["left"])


def test_the_network_ends_with_the_status_of_the_command_and_a_signal_ends_all():
    if reason := shaped.missing():
        pytest.skip(reason)
    command = [sys.executable, shaped.__file__, "--", "sh", "-c"]
    assert subprocess.run([*command, "exit 3"], timeout=60).returncode == 3
    with subprocess.Popen([*command, "echo $$; sleep 1000"], stdout=subprocess.PIPE, text=True) as running:
        inside = int(running.stdout.readline())
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 128 + signal.SIGTERM
    assert not alive(inside)


def test_wire_bytes_count_what_ethernet_adds_to_each_segment():
    def packet(length, header, segment):
        return struct.pack("=BBHHHH", 0, 1 if segment else 0, header, segment, 0, 0) + bytes(length)

    # Preamble 8, header 14, checksum 4, gap 12.
    assert shaped_relay.wire_bytes(packet(1500, 0, 0)) == 1538
    # Three segments of 1448 bytes, each with headers of 52; and one with a shorter last segment.
    assert shaped_relay.wire_bytes(packet(52 + 3 * 1448, 52, 1448)) == 3 * 1538
    assert shaped_relay.wire_bytes(packet(52 + 1448 + 100, 52, 1448)) == 1538 + 100 + 52 + 38


@pytest.mark.parametrize(
    ("text", "value"), [("1gbit", 125e6), ("100mbit", 12.5e6), ("8kbit", 1e3), ("1ms", 1e-3), ("0.5ms", 5e-4)]
)
def test_rates_and_times_are_written_as_for_tc(text, value):
    assert shaped.quantity(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["1", "fast", "1 gbit", "1MBit", ""])
def test_other_rates_and_times_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="1gbit"):
        shaped.quantity(text)
