"""Changes to Horovod's launcher, so that other users of a machine can neither read nor end a job under `--gloo`.

The launcher serves the addresses of the ranks over HTTP. As released it serves them on every network, to everybody, and
shows each rank's whole environment in the list of processes. With these changes it listens only where the ranks are
(on one machine: the loopback), and answers only who knows the job's token, which travels in no command line.

Horovod's compiled client makes its addresses as http://ADDR:PORT/scope/key of two variables. The token gets into them
by an ADDR that has a port and the token itself: so no compiled code changes.
"""

MODULE = "horovod/hpc_train_token.py"

# Every text here is part of the key of a build.
TEXT = r'''"""The token that a job's ranks show to its launcher, and commands that other users cannot read."""

import hmac
import os
import re
import secrets
import shlex

_TOKEN = "HOROVOD_RENDEZVOUS_TOKEN"
# Horovod exports no variable whose name begins like this.
_FED = "_HOROVOD_SECRET_KEY_FED"


def token():
    """This job's token; its launcher makes one, and hands it to the ranks in their environment."""
    return os.environ.setdefault(_TOKEN, secrets.token_hex(16))


def address(host, port):
    """What stands for `host` in the addresses of a server that asks for the token."""
    return host if "/" in host or _TOKEN not in os.environ else f"{host}:{port}/{token()}"


def admitted(handler):
    """Whether a request shows the token, which is then taken out of its path; else it is answered with 403."""
    if _TOKEN not in os.environ or not getattr(handler.server, "guarded", False):
        return True
    told, _, rest = handler.path[1:].partition("/")
    if not hmac.compare_digest(told.partition(":")[0].encode(), token().encode()):
        handler.send_status_code(403)
        return False
    handler.path = "/" + rest
    return True


def hidden(command, remote):
    """`env NAME=VALUE ... PROGRAM` without the variables, which every user of the machine could read in it.

    Returns (command, the environment to run it in). The remote shell reads the variables from its input.
    """
    words = shlex.split(command)[1:]
    count = next(i for i, word in enumerate(words) if "=" not in word)
    variables = dict(word.split("=", 1) for word in words[:count])
    program = " ".join(map(shlex.quote, words[count:]))
    if not remote:
        return program, {**os.environ, **variables}
    names = [name for name in variables if re.fullmatch(r"[A-Za-z_]\w*", name)]
    exports = " ".join(f"{name}={shlex.quote(variables[name])}" for name in names)
    return "exec sh -c 'eval \"$(cat)\"'", fed(f"export {exports}; exec {program} </dev/null")


def fed(text):
    """The environment in which `reading` hands on `text`."""
    return {**os.environ, _FED: text}


def reading(command):
    """The command, with the text of `fed` as its input."""
    return f'printf "%s\n" "${_FED}" | {command}'
'''

_GLOO, _SERVER, _CLIENT = (
    "horovod/runner/gloo_run.py",
    "horovod/runner/http/http_server.py",
    "horovod/runner/http/http_client.py",
)
_LAUNCH, _DRIVER, _NETWORK = (
    "horovod/runner/launch.py",
    "horovod/runner/driver/driver_service.py",
    "horovod/runner/util/network.py",
)
FILES = (_GLOO, _SERVER, _CLIENT, _LAUNCH, _DRIVER, _NETWORK, "horovod/runner/task_fn.py")

_LOOPBACK = "the rendezvous listened on every network: now on that of the ranks, on one machine the loopback"
_TOKEN = "any user of the machine could end the job with one request: now each has to show the job's token"
_HIDDEN = "any user could read the ranks' environment, and the token in it, in the list of processes"
_SETTINGS = "the key that the launcher trusts stood in a command line: who reads it could run code as this user"

# (file, old, new, why)
CHANGES = (
    (
        _NETWORK,
        "def find_port(server_factory):\n",
        "def find_port(server_factory, host=''):\n",
        _LOOPBACK,
    ),
    (_NETWORK, "            addr = ('', port)\n", "            addr = (host, port)\n", _LOOPBACK),
    (
        _SERVER,
        "from horovod.runner.util.network import find_port\n",
        "from horovod.hpc_train_token import admitted\nfrom horovod.runner.util.network import find_port\n",
        _TOKEN,
    ),
    (
        _SERVER,
        "    timeout = SINGLE_REQUEST_TIMEOUT\n\n",
        "    timeout = SINGLE_REQUEST_TIMEOUT\n\n"
        "    def parse_request(self):\n        return super().parse_request() and admitted(self)\n\n",
        _TOKEN,
    ),
    (
        _SERVER,
        "    def start(self, handler_cls=RendezvousHandler):\n"
        "        self._httpd, port = find_port(\n"
        "            lambda addr: RendezvousHTTPServer(\n"
        "                addr, handler_cls, self._verbose))\n",
        "    def start(self, handler_cls=RendezvousHandler, host=''):\n"
        "        self._httpd, port = find_port(\n"
        "            lambda addr: RendezvousHTTPServer(\n"
        "                addr, handler_cls, self._verbose), host)\n"
        "        self._httpd.guarded = bool(host)\n",
        _LOOPBACK,
    ),
    (
        _SERVER,
        "    def start_server(self):\n"
        "        self.httpd, port = find_port(\n"
        "            lambda addr: KVStoreHTTPServer(\n"
        "                addr, KVStoreHandler, self.verbose))\n",
        "    def start_server(self, host=''):\n"
        "        self.httpd, port = find_port(\n"
        "            lambda addr: KVStoreHTTPServer(\n"
        "                addr, KVStoreHandler, self.verbose), host)\n"
        "        self.httpd.guarded = bool(host)\n",
        _LOOPBACK,
    ),
    (
        _CLIENT,
        "from horovod.runner.common.util import codec\n",
        "from horovod.hpc_train_token import address\nfrom horovod.runner.common.util import codec\n",
        _TOKEN,
    ),
    (
        _CLIENT,
        "def read_data_from_kvstore(addr, port, scope, key):\n",
        "def read_data_from_kvstore(addr, port, scope, key):\n    addr = address(addr, port)\n",
        _TOKEN,
    ),
    (
        _CLIENT,
        "def put_data_into_kvstore(addr, port, scope, key, value):\n",
        "def put_data_into_kvstore(addr, port, scope, key, value):\n    addr = address(addr, port)\n",
        _TOKEN,
    ),
    (
        _LAUNCH,
        "def _run(args):\n",
        "def _run(args):\n    from horovod.hpc_train_token import token\n    token()\n",
        _TOKEN,
    ),
    (_LAUNCH, "run_func_server.start_server()\n", "run_func_server.start_server(driver_ip)\n", _LOOPBACK),
    (
        _GLOO,
        "from horovod.runner.common.util import env as env_util, safe_shell_exec\n",
        "from horovod.hpc_train_token import address, hidden, reading\n"
        "from horovod.runner.common.util import env as env_util, safe_shell_exec\n",
        _TOKEN,
    ),
    (
        _GLOO,
        "        if host_address not in local_addresses:\n            local_command",
        "        remote, env = host_address not in local_addresses, None\n"
        "        # Kubeflow's way to another machine hands nothing on to the command's input.\n"
        "        if not remote or not env_util.is_kubeflow_mpi():\n"
        "            command, env = hidden(command, remote)\n"
        "        if remote:\n            local_command",
        _HIDDEN,
    ),
    (
        _GLOO,
        "settings.ssh_identity_file)\n\n        if settings.verbose:\n",
        "settings.ssh_identity_file)\n"
        "            command = reading(command) if env else command\n\n        if settings.verbose:\n",
        _HIDDEN,
    ),
    (
        _GLOO,
        "safe_shell_exec.execute(command,\n                                                index=index,\n",
        "safe_shell_exec.execute(command,\n                                                env=env,\n"
        "                                                index=index,\n",
        _HIDDEN,
    ),
    (_GLOO, "rendezvous.start()\n", "rendezvous.start(host=server_ip)\n", _LOOPBACK),
    (
        _GLOO,
        "    run_command = get_run_command(command, server_ip, nics, global_rendezv_port)\n",
        "    place = address(server_ip, global_rendezv_port)\n"
        "    run_command = get_run_command(command, place, nics, global_rendezv_port)\n",
        _TOKEN,
    ),
    (
        _GLOO,
        "    global_rendezv_port = rendezvous.start(handler)\n    driver.wait",
        "    driver.wait",
        _LOOPBACK,
    ),
    (
        _GLOO,
        "    server_ip = network.get_driver_ip(nics)\n    run_func_server = None\n",
        "    server_ip = network.get_driver_ip(nics)\n"
        "    global_rendezv_port = rendezvous.start(handler, server_ip)\n    run_func_server = None\n",
        _LOOPBACK,
    ),
    (_GLOO, "run_func_server.start_server()\n", "run_func_server.start_server(server_ip)\n", _LOOPBACK),
    (
        _GLOO,
        "        run_command = get_run_command(command, server_ip, nics, global_rendezv_port, elastic=True)\n",
        "        place = address(server_ip, global_rendezv_port)\n"
        "        run_command = get_run_command(command, place, nics, global_rendezv_port, elastic=True)\n",
        _TOKEN,
    ),
    (
        _DRIVER,
        "    def _exec_command(command):\n",
        "    from horovod.hpc_train_token import fed, reading\n    env = fed(codec.dumps_base64(settings))\n\n"
        "    def _exec_command(command):\n",
        _SETTINGS,
    ),
    (
        _DRIVER,
        "safe_shell_exec.execute(command,\n                                                stdout=host_output,\n",
        "safe_shell_exec.execute(reading(command),\n                                                env=env,\n"
        "                                                stdout=host_output,\n",
        _SETTINGS,
    ),
    (
        _DRIVER,
        "                    settings=codec.dumps_base64(settings))\n",
        "                    settings='-')\n",
        _SETTINGS,
    ),
    (
        "horovod/runner/task_fn.py",
        "    settings = codec.loads_base64(sys.argv[4])\n",
        "    settings = codec.loads_base64(sys.stdin.readline())\n",
        _SETTINGS,
    ),
)
