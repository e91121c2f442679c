"""What other users of a machine can do to a running job through its ports, by each launcher: not end it."""

import contextlib
import importlib.util
import json
import os
import time

import psutil
import pytest
from launch import RANKS, finish, start, start_mpi
from strangers import needs_root, stranger

LAUNCHERS = ("horovodrun --gloo", "mpirun", "horovodrun --mpi")

# Sends all kinds of things to each address, then asks for what a rank would ask for, and tries to change it.
ATTACK = """
import os, socket, sys, urllib.error, urllib.request
answers = []
for address in sys.argv[1:]:
    host, port = address.split(":")
    host = "127.0.0.1" if host == "0.0.0.0" else host
    for junk in (b"", bytes(64), os.urandom(4096), b"GET / HTTP/1.1", b"cmd=abort exitcode=1\\n", b"\\xff" * 10**5):
        try:
            with socket.create_connection((host, int(port)), 2) as connection:
                connection.sendall(junk)
                connection.settimeout(0.2)
                connection.recv(100)
        except OSError:
            pass
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        for path in ("global/0", "x/global/0", f":{port}/global/0", "local_localhost/1"):
            request = urllib.request.Request(f"http://{host}:{port}/{path}", b"x" * (method == "PUT"), method=method)
            try:
                answers.append(urllib.request.urlopen(request, timeout=1).status)
            except urllib.error.HTTPError as error:
                answers.append(error.code)
            except OSError:
                pass
            except Exception as error:
                answers.append(type(error).__name__)
print(sorted({str(answer) for answer in answers}))
"""


def begin(launcher, *arguments):
    if launcher == "mpirun":
        return start_mpi(2, *arguments)
    if importlib.util.find_spec("horovod.hpc_train_token") is None:
        pytest.skip("this Horovod was built before its rendezvous was closed: run `hpc-train build-horovod`")
    return start(2, *map(str, arguments), controller=launcher.split()[1])


def listening(job):
    """Addresses at which the processes of a job listen, and the names of those."""
    found = {}
    for process in (job, *job.children(recursive=True)):
        # What the launcher starts for a moment may have ended meanwhile.
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("tcp"):
                if connection.status == "LISTEN":
                    found.setdefault(tuple(connection.laddr), []).append(process.name())
    return found


@pytest.fixture(params=LAUNCHERS)
def running(request, tmp_path):
    """A job of two ranks that has begun: (its launcher, its processes, what its first rank told, how to end it)."""
    end, told = tmp_path / "end", tmp_path / "told"
    process = begin(request.param, RANKS / "open_job.py", end, told)
    deadline = time.monotonic() + 90
    while not told.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(finish(process, 10).output[-3000:])
        time.sleep(0.1)

    def ending():
        end.touch()
        return finish(process, 60)

    yield request.param, psutil.Process(process.pid), json.loads(told.read_text()), ending
    end.touch()
    finish(process, 60)


@needs_root
def test_nothing_that_a_stranger_sends_to_the_ports_of_a_job_ends_it(running):
    launcher, job, (pid, sockets), ending = running
    # What a rank starts has none of the launcher's sockets, and none of MPI's.
    assert sockets.strip() == "[]"
    places = listening(job)
    if launcher == "horovodrun --gloo":
        assert {host for host, _ in places} == {"127.0.0.1"}, places
    told = stranger(ATTACK, *(f"{host}:{port}" for host, port in places))
    assert told.returncode == 0, told.stderr
    # The rendezvous refuses who does not know the token; the others do not speak HTTP.
    assert "200" not in told.stdout, (told.stdout, places)
    if launcher == "horovodrun --gloo":
        assert told.stdout.strip() == "['403']"
        # The token, and the ranks' other variables, are in no command line.
        token = psutil.Process(pid).environ()["HOROVOD_GLOO_RENDEZVOUS_ADDR"].split("/")[1]
        assert len(token) == 32
        seen = stranger("import pathlib; [print(p.read_bytes()) for p in pathlib.Path('/proc').glob('[0-9]*/cmdline')]")
        assert str(pid) in os.listdir("/proc")
        assert "open_job.py" in seen.stdout
        assert token not in seen.stdout
        assert "PYTHONUNBUFFERED=" not in seen.stdout
    ended = ending()
    assert ended.status == 0, ended.output[-3000:]
    assert ended.output.count("ends well") == 2
