"""The table of our changes to Horovod's source, with the reasons. They are applied to the unpacked sdist.

The key of a build depends on every text that goes into the source (`digest`): an edit of one rebuilds Horovod.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.horovod_build import names, our_cpp, rendezvous


@dataclass(frozen=True)
class Patch:
    """Replace `old`, which must occur exactly once in `file`, by `new`."""

    file: str
    old: str
    new: str
    why: str


MPI_RUN = "horovod/runner/mpi_run.py"
TENSORFLOW = "horovod/tensorflow/__init__.py"
MPI_CONTROLLER = "horovod/common/mpi/mpi_controller.cc"

PATCHES = (
    Patch(
        MPI_RUN,
        "# MPI implementations\n",
        "from horovod.hpc_train_build import mpirun\n\n# MPI implementations\n",
        "the launcher must start the mpirun that belongs to the MPI that Horovod is linked with",
    ),
    Patch(
        MPI_RUN,
        "    command = 'mpirun --version'\n",
        "    command = quote(mpirun()) + ' --version'\n",
        "as above: another MPI's mpirun starts every rank as a world of size 1",
    ),
    Patch(
        MPI_RUN,
        "        'mpirun {basic_args} '\n",
        "        '{mpirun} {basic_args} '\n",
        "as above",
    ),
    Patch(
        MPI_RUN,
        "        .format(basic_args=basic_args,\n",
        "        .format(mpirun=quote(mpirun()), basic_args=basic_args,\n",
        "as above",
    ),
    Patch(
        MPI_RUN,
        "        elif 'MPICH' in output:\n            return _MPICH_IMPL\n"
        "        elif 'Intel(R) MPI' in output:\n            return _IMPI_IMPL\n",
        "        elif 'Intel(R) MPI' in output:\n            return _IMPI_IMPL\n"
        "        elif 'MPICH' in output or 'HYDRA' in output:\n            return _MPICH_IMPL\n",
        "MPICH's mpirun calls itself HYDRA, as some of Intel's do: ask for Intel first",
    ),
    Patch(
        MPI_RUN,
        "_OMPI_FLAGS = ['-mca pml ob1', '-mca btl ^openib']\n",
        "_OMPI_FLAGS = ['--mca pml ob1', '--mca btl ^openib']\n",
        "Open MPI 5 reads a single-dash option as the name of an executable; Open MPI 4 takes both",
    ),
    Patch(
        MPI_RUN,
        "_NO_BINDING_ARGS = ['-bind-to none', '-map-by slot']\n",
        "_NO_BINDING_ARGS = ['--bind-to none', '--map-by slot']\n",
        "as above; MPICH takes both",
    ),
    Patch(
        MPI_RUN,
        "f'-mca plm_rsh_args ",
        "f'--mca plm_rsh_args ",
        "as above",
    ),
    Patch(
        MPI_RUN,
        "'-mca btl_tcp_if_include ",
        "'--mca btl_tcp_if_include ",
        "as above",
    ),
    Patch(
        MPI_RUN,
        "'-mca plm_rsh_no_tree_spawn ",
        "'--mca plm_rsh_no_tree_spawn ",
        "as above",
    ),
    Patch(
        MPI_RUN,
        "'-mca plm_rsh_num_concurrent ",
        "'--mca plm_rsh_num_concurrent ",
        "as above",
    ),
    Patch(
        MPI_RUN,
        "_MPICH_FLAGS = []\n",
        "_MPICH_FLAGS = []\n"
        "# The traps let a rank handle a signal sent to its process group while this shell waits for it.\n"
        "_MPICH_GUARD = ['sh', '-c', 'trap : HUP INT TERM USR1 USR2; \"$@\" || '\n"
        "                '{ echo \"rank $PMI_RANK exited with code $?\" >&2; kill -KILL $$; }', 'sh']\n",
        "if a rank exits with an error, MPICH lets the others wait for ever; if a rank is killed, it ends all",
    ),
    Patch(
        MPI_RUN,
        "                command=' '.join(quote(par) for par in command))\n",
        "                command=' '.join(quote(par) for par in\n"
        "                                 [*(_MPICH_GUARD if mpi == _MPICH_IMPL else ()), *command]))\n",
        "as above",
    ),
    Patch(
        "horovod/runner/js_run.py",
        "from distutils.spawn import find_executable\n",
        "from shutil import which as find_executable\n",
        "Python 3.12 has no distutils",
    ),
    Patch(
        "horovod/runner/launch.py",
        "from horovod.common.util import (extension_available,\n"
        "                                 gloo_built, mpi_built,\n",
        "from horovod.hpc_train_build import gloo_built, mpi_built\n"
        "from horovod.common.util import (extension_available,\n",
        "to ask the library, the launcher would import TensorFlow: seconds at every start, and its log lines",
    ),
    Patch(
        "horovod/runner/launch.py",
        "        fn_cache = cache.Cache(CACHE_FOLDER, CACHE_STALENESS_THRESHOLD_MINUTES,\n"
        "                               parameters_hash)\n",
        "        try:\n"
        "            fn_cache = cache.Cache(CACHE_FOLDER, CACHE_STALENESS_THRESHOLD_MINUTES,\n"
        "                                   parameters_hash)\n"
        "        except OSError:\n"
        "            pass\n",
        "a home that cannot be written: the launcher needs no cache of what it has checked",
    ),
    Patch(
        "horovod/runner/launch.py",
        "        logging.basicConfig(level=logging.getLevelName(args.log_level))\n\n    _run(args)\n",
        "        logging.basicConfig(level=logging.getLevelName(args.log_level))\n\n"
        "    try:\n        _run(args)\n    except RuntimeError as error:\n        sys.exit(str(error))\n",
        "a rank that fails under --gloo is no bug of the launcher: do not show the launcher's traceback",
    ),
    Patch(
        "horovod/tensorflow/mpi_ops.cc",
        '#include "tensorflow/stream_executor/stream.h"\n#endif // TENSORFLOW_VERSION >= 2011000000\n',
        '#include "tensorflow/stream_executor/stream.h"\n#endif // TENSORFLOW_VERSION >= 2011000000\n'
        "inline GpuStreamHandle stream_executor::gpu::AsGpuStreamValue(Stream* stream) {\n"
        "  return static_cast<GpuStreamHandle>(stream->platform_specific_handle().stream);\n}\n",
        "TensorFlow no longer exports this function: without it a GPU build compiles, but cannot be loaded",
    ),
    Patch(
        "horovod/common/common.h",
        "#include <memory>\n",
        "#include <memory>\n#include <stdexcept>\n",
        "GCC 14 no longer brings std::logic_error with other headers",
    ),
    Patch(
        "horovod/common/group_table.h",
        "#include <queue>\n",
        "#include <cstdint>\n#include <queue>\n#include <string>\n",
        "GCC 14 no longer brings std::string and int32_t with other headers",
    ),
    Patch(
        "third_party/flatbuffers/include/flatbuffers/stl_emulation.h",
        "  const size_type count_;\n",
        "  size_type count_;\n",
        "GCC 14 refuses the assignment to it, which no code makes",
    ),
    Patch(
        "horovod/tensorflow/xla_mpi_ops.cc",
        '#if TENSORFLOW_VERSION >= 2006000000\n\n#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"\n',
        '#if HAVE_GPU\n\n#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"\n',
        "Horovod has XLA operations for GPUs only: a CPU build need not read XLA's headers, which take long and change",
    ),
    Patch(
        MPI_CONTROLLER,
        "#include <numeric>\n\n",
        "#include <chrono>\n#include <cstdlib>\n#include <numeric>\n#include <thread>\n\n",
        "headers for the next patch",
    ),
    Patch(
        MPI_CONTROLLER,
        "namespace common {\n\n// MPIController\n",
        "namespace common {\n\n" + our_cpp.AND_OF_ALL_RANKS + "\n// MPIController\n",
        "on few cores, a rank that spins until all have come takes the core that TensorFlow needs",
    ),
    Patch(
        MPI_CONTROLLER,
        "  int ret_code = MPI_Allreduce(MPI_IN_PLACE, bitvector.data(), count,\n"
        "                               MPI_LONG_LONG_INT, MPI_BAND, mpi_ctx_.mpi_comm);\n",
        "  int ret_code = AndOfAllRanks(bitvector, count, mpi_ctx_.mpi_comm);\n",
        "as above",
    ),
    Patch(
        "horovod/__init__.py",
        "__version__ = '0.28.1'\n",
        f"__version__ = '0.28.1+{names.LOCAL_VERSION}'\n",
        "pip and people can tell this build from the release of 2023",
    ),
    Patch(
        TENSORFLOW,
        "from horovod.tensorflow.mpi_ops import init, shutdown\n",
        "from horovod.hpc_train_names import init, tensor as _tensor, tf_variable as _tf_variable\n"
        "from horovod.tensorflow.mpi_ops import shutdown\n",
        "scripts of Keras 2 need a few of its words, and ranks a way to end together",
    ),
    Patch(
        TENSORFLOW,
        "from horovod.tensorflow.sync_batch_norm import SyncBatchNormalization\n",
        "from horovod.hpc_train_names import SyncBatchNormalization\n",
        "the layer of Keras 3 has other arguments",
    ),
    Patch(
        TENSORFLOW,
        "    op = handle_average_backwards_compatibility(op, average)\n\n"
        "    if isinstance(tensor, tf.IndexedSlices):\n",
        "    op = handle_average_backwards_compatibility(op, average)\n    tensor = _tensor(tensor)\n\n"
        "    if isinstance(tensor, tf.IndexedSlices):\n",
        "scripts give lists and Keras variables: hvd.allreduce([0])",
    ),
    Patch(
        TENSORFLOW,
        "    op = handle_average_backwards_compatibility(op, average)\n\n    average_in_framework = False\n",
        "    op = handle_average_backwards_compatibility(op, average)\n"
        "    tensors = [_tensor(value) for value in tensors]\n\n    average_in_framework = False\n",
        "as above",
    ),
    Patch(
        TENSORFLOW,
        "    groups = vars_to_refs(groups) if isinstance(groups, list) else groups\n",
        "    if isinstance(groups, list):\n"
        "        from horovod.hpc_train_names import grouped\n"
        "        return grouped(name, device_dense, device_sparse, compression, sparse_as_dense, op,\n"
        "                       gradient_predivide_factor, groups, process_set)\n",
        "groups were matched by name, and Keras 3 gives many variables the same: gradients got lost",
    ),
    Patch(
        TENSORFLOW,
        "        if op == Adasum:\n            raise ValueError('op == Adasum is not supported yet with Keras')\n\n"
        "        import horovod.tensorflow.keras as hvd_k\n        return hvd_k.DistributedOptimizer(\n"
        "            optimizer=optimizer,\n",
        "        import horovod.tensorflow.keras as hvd_k\n        return hvd_k.DistributedOptimizer(\n"
        "            optimizer=optimizer,\n            op=op,\n            groups=groups,\n",
        "these options were ignored: op=hvd.Sum averaged",
    ),
    Patch(
        TENSORFLOW,
        "            if _IS_TF2:\n                self._local_sources.add(source.ref())\n",
        "            if _IS_TF2:\n                self._local_sources.add(_tf_variable(source).ref())\n",
        "Keras 3 has variables of its own, which hold TensorFlow's",
    ),
    Patch(
        TENSORFLOW,
        "            gradients = super(self.__class__, self).gradient(target, sources, output_gradients)\n\n",
        "            if not isinstance(sources, (list, tuple)) or any(map(tf.nest.is_nested, sources)):\n"
        "                flat = self.gradient(target, tf.nest.flatten(sources), output_gradients, use_generic_names)\n"
        "                return tf.nest.pack_sequence_as(sources, flat)\n"
        "            sources = [_tf_variable(source) for source in sources]\n"
        "            gradients = super(self.__class__, self).gradient(target, sources, output_gradients)\n\n",
        "as above; and as a tape of TensorFlow does, take one variable, or a structure of them",
    ),
    Patch(
        TENSORFLOW,
        "                is_local_source = s.ref() in",
        "                is_local_source = _tf_variable(s).ref() in",
        "as above",
    ),
    Patch(
        "horovod/tensorflow/functions.py",
        '        inplace: whether to perform in-place broadcasts\n    """\n',
        '        inplace: whether to perform in-place broadcasts\n    """\n'
        "    from horovod.hpc_train_names import same_variables\n"
        "    variables = same_variables(variables, process_set)\n",
        "as above; and ranks that give different variables waited for ever",
    ),
    Patch(
        TENSORFLOW,
        '        with tf.name_scope(name + "_Allreduce"):\n'
        "            if sparse_as_dense:\n                grads = [tf",
        '        with tf.name_scope(name + "_Allreduce"):\n'
        "            grads = [g if g is None else tf.identity(g, f'grad_{i}') for i, g in enumerate(grads)]\n"
        "            if sparse_as_dense:\n                grads = [tf",
        "a gradient is known by its place: its name counts the layers that a rank has made, and ranks waited for ever",
    ),
    Patch(
        "horovod/tensorflow/functions.py",
        "            for var in variables:\n"
        "                var.assign(broadcast(var, root_rank, process_set=process_set))\n",
        "            for i, var in enumerate(variables):\n"
        "                var.assign(broadcast(var, root_rank, f'HorovodBroadcast_{i}', process_set=process_set))\n",
        "as above, for variables",
    ),
    Patch(
        "horovod/tensorflow/functions.py",
        "tf.group(*[var.assign(broadcast(var, root_rank, process_set=process_set))\n"
        "                              for var in variables])",
        "tf.group(*[var.assign(broadcast(var, root_rank, f'HorovodBroadcast_{i}', process_set=process_set))\n"
        "                              for i, var in enumerate(variables)])",
        "as above",
    ),
    Patch(
        "horovod/tensorflow/mpi_ops.py",
        "_resource([var.handle for var in variables],\n"
        "                                                        variable_names=[var.name for var in variables],",
        "_resource([var.handle for var in variables],\n"
        "                                                        variable_names=list(map(str, range(len(variables)))),",
        "as above",
    ),
    Patch(
        "horovod/common/util.py",
        "    available_fn = lambda ext: ext is not None\n",
        "    available_fn = lambda ext: getattr(ext, '_MPI_LIB_AVAILABLE', True)\n",
        "`horovodrun --check-build` must not list PyTorch: its Python module can be imported without its library",
    ),
    Patch(
        "setup.py",
        "else 'RelWithDebInfo'\n",
        "else 'Release'\n",
        "without debug information the build is faster, and the wheel has a tenth of the size",
    ),
    Patch(
        "CMakeLists.txt",
        "include(CheckLanguage)\ncheck_language(CUDA)\nif(NOT CMAKE_CUDA_COMPILER)\n",
        "include(CheckLanguage)\nif(HOROVOD_GPU_OPERATIONS)\n    check_language(CUDA)\nendif()\n"
        "if(HOROVOD_GPU_OPERATIONS AND NOT CMAKE_CUDA_COMPILER)\n",
        "a CPU build must not depend on a CUDA compiler that happens to be on PATH",
    ),
    Patch(
        "CMakeLists.txt",
        "    find_package(MPI ${MPI_REQUIRED})\n",
        '    set(MPI_CXX_COMPILER $ENV{MPICXX} CACHE FILEPATH "")\n    find_package(MPI ${MPI_REQUIRED})\n',
        "CMake must use the MPI that we chose, whatever else is on PATH",
    ),
    Patch(
        "CMakeLists.txt",
        "    add_subdirectory(third_party/gloo)\n",
        "    add_subdirectory(third_party/gloo EXCLUDE_FROM_ALL)\n",
        "only the C++17 copy of Gloo is linked: do not compile the other one",
    ),
    Patch(
        "horovod/tensorflow/CMakeLists.txt",
        'set_target_properties(${TF_TARGET_LIB} PROPERTIES OUTPUT_NAME "mpi_lib")\n',
        'set_target_properties(${TF_TARGET_LIB} PROPERTIES OUTPUT_NAME "mpi_lib")\n'
        "set_target_properties(${TF_TARGET_LIB} PROPERTIES\n"
        '        BUILD_WITH_INSTALL_RPATH TRUE INSTALL_RPATH "$ENV{HPC_TRAIN_RPATH}")\n',
        "the library must find MPI where the wheel is installed, not where it was built",
    ),
    Patch(
        "horovod/tensorflow/mpi_ops.cc",
        'REGISTER_OP("HorovodJoin")\n    .Output("output: int32")\n',
        'REGISTER_OP("HorovodJoin")\n    .Output("output: int32")\n    .SetIsStateful()\n',
        "TensorFlow runs an operation without inputs once and keeps its result: the second join waited for nobody",
    ),
    Patch(
        "horovod/common/gloo/gloo_context.cc",
        "#include <chrono>\n#include <iterator>\n",
        "#include <chrono>\n#include <cstdlib>\n#include <iostream>\n#include <iterator>\n",
        "headers for the next patch",
    ),
    Patch(
        "horovod/common/gloo/gloo_context.cc",
        '      out << hostname_ << "[" << local_rank << "] has been removed from elastic job";\n'
        "      throw std::runtime_error(out.str());\n",
        '      out << hostname_ << "[" << local_rank << "] has left the elastic job";\n'
        "      std::cerr << out.str() << std::endl;\n"
        "      std::_Exit(0);\n",
        "a rank that the job no longer needs must not end in an abort: nothing has failed",
    ),
    Patch(
        "horovod/runner/gloo_run.py",
        "        min_hosts = _get_min_start_hosts(settings)\n"
        "        current_hosts = driver.wait_for_available_slots(settings.num_proc, min_hosts=min_hosts)\n",
        "        current_hosts = driver.wait_for_available_slots(settings.num_proc)\n"
        "        if network.filter_local_addresses(current_hosts.host_assignment_order):\n"
        "            min_hosts = _get_min_start_hosts(settings)\n"
        "            current_hosts = driver.wait_for_available_slots(settings.num_proc, min_hosts=min_hosts)\n"
        "        elif not settings.nics:\n"
        "            print('note: all hosts are this machine, so the ranks talk over its loopback interface; '\n"
        "                  'if other machines may join, give --network-interface', file=sys.stderr)\n",
        "an elastic job on one machine waited ten minutes for a second host, then failed",
    ),
    Patch(
        "horovod/runner/elastic/registration.py",
        "            logging.error('blacklisted slots count == {} -> stop running'.format(self._size))\n"
        "            self._driver.stop()\n",
        "            failed = ', '.join(sorted({host for host, _ in failures}))\n"
        "            self._driver.stop(error_message=\n"
        "                f'error: a rank on {failed} failed, which excludes all ranks of that host name, and '\n"
        "                'no other name is left: to go on after a failure, the discovery script must print two '\n"
        "                'names or more, such as localhost:1 and 127.0.0.1:1')\n",
        "the job ended with the other ranks' status and two tracebacks, and did not say why it could not go on",
    ),
    Patch(
        "horovod/runner/http/http_server.py",
        "class RendezvousHTTPServer(socketserver.ThreadingMixIn, HTTPServer, object):\n",
        "class RendezvousHTTPServer(socketserver.ThreadingMixIn, HTTPServer, object):\n"
        "    def handle_error(self, request, client_address):\n"
        "        import sys\n"
        "        if not isinstance(sys.exc_info()[1], ConnectionError):\n"
        "            super().handle_error(request, client_address)\n\n",
        "a rank that ends while it waits for the launcher's answer is no bug of the launcher: no traceback",
    ),
    *(Patch(*change) for change in rendezvous.CHANGES),
    Patch(
        "horovod/common/tensor_queue.h",
        "  void RemoveJoinTensor();\n",
        "  void RemoveJoinTensor();\n\n  std::vector<std::string> Names() const;\n",
        "a report of a hang names the tensors that wait for other ranks",
    ),
    Patch(
        "horovod/common/tensor_queue.cc",
        "// Execute callback for each tensor and clear tensor queue\n",
        our_cpp.NAMES_OF_TENSORS + "// Execute callback for each tensor and clear tensor queue\n",
        "as above",
    ),
    Patch(
        "horovod/common/operations.cc",
        '#include "operations.h"\n',
        our_cpp.INCLUDES + '#include "operations.h"\n',
        "a process whose interpreter's lock is held for ever must end, too",
    ),
    Patch(
        "horovod/common/operations.cc",
        "int horovod_number_of_process_sets() {\n",
        our_cpp.WAITING_TENSORS + our_cpp.WAITED + "int horovod_number_of_process_sets() {\n",
        "as above",
    ),
    Patch(
        "horovod/common/tensor_queue.cc",
        '#include "logging.h"\n',
        '#include "hpc_train_waited.h"\n#include "logging.h"\n',
        "a rank that others wait for in step after step is named: each measures how long it waits",
    ),
    Patch(
        "horovod/common/tensor_queue.cc",
        "  tensor_table_.emplace(e.tensor_name, std::move(e));\n",
        "  Waited::Here().Begin(e.tensor_name);\n  tensor_table_.emplace(e.tensor_name, std::move(e));\n"
        "  Given::Here().Add();\n",
        "as above",
    ),
    Patch(
        "horovod/common/tensor_queue.cc",
        "    tensor_table_.emplace(entries[i].tensor_name, std::move(entries[i]));\n",
        "    Waited::Here().Begin(entries[i].tensor_name);\n"
        "    tensor_table_.emplace(entries[i].tensor_name, std::move(entries[i]));\n"
        "    Given::Here().Add();\n",
        "as above",
    ),
    Patch(
        "horovod/common/common.cc",
        '#include "logging.h"\n',
        '#include "hpc_train_waited.h"\n#include "logging.h"\n',
        "as above",
    ),
    Patch(
        "horovod/common/common.cc",
        "    callback(status);\n",
        "    Waited::Here().End(tensor_name);\n    callback(status);\n",
        "as above",
    ),
    Patch(
        "horovod/common/operations.cc",
        '#include "operations.h"\n\n',
        '#include "operations.h"\n\n#include "hpc_train_waited.h"\n',
        "as above",
    ),
    Patch(
        "horovod/common/operations.cc",
        "bool RunLoopOnce(HorovodGlobalState& state) {\n",
        our_cpp.WAIT_FOR_TENSORS + "bool RunLoopOnce(HorovodGlobalState& state) {\n",
        "on few cores, a thread that wakes each millisecond interrupts TensorFlow's two thousand times a second",
    ),
    Patch(
        "horovod/common/operations.cc",
        "    std::this_thread::sleep_for(sleep_duration);\n  }\n  state.last_cycle_start = ",
        "    std::this_thread::sleep_for(sleep_duration);\n  }\n  WaitForTensors(state);\n  state.last_cycle_start = ",
        "as above",
    ),
)

HEADER = "compat/tensorflow/compiler/xla/client/xla_builder.h"

HEADER_TEXT = """\
// TensorFlow 2.19 moved this header; 2.16 to 2.18 still have it, and then this one is not used.
#pragma once
#if __has_include("xla/hlo/builder/xla_builder.h")
#include "xla/hlo/builder/xla_builder.h"
#else
#include "xla/client/xla_builder.h"
#endif
// absl took the place of xla::StatusOr.
#if HAVE_GPU
#if __has_include("xla/statusor.h")
#include "xla/statusor.h"
#else
namespace xla {
template <typename T>
using StatusOr = absl::StatusOr<T>;
}
#endif
#endif
"""

LLVM_HEADERS = ("compat/llvm/ADT/ArrayRef.h", "compat/llvm/ADT/SmallVector.h")

LLVM_HEADER_TEXT = """\
// TensorFlow 2.19 names these two types of LLVM in a header, but brings no LLVM. Horovod makes no use of them.
#ifndef HPC_TRAIN_LLVM_TYPES
#define HPC_TRAIN_LLVM_TYPES
#include <cstddef>
#include <vector>
namespace llvm {
template <typename T>
using SmallVector = std::vector<T>;
template <typename T>
struct ArrayRef {
  ArrayRef(const SmallVector<T>& values) : data(values.data()), size(values.size()) {}
  const T* data;
  std::size_t size;
};
}
#endif
"""

BUILD_MODULE = "horovod/hpc_train_build.py"

BUILD_MODULE_TEXT = '''\
"""Which build of Horovod this is: written by `hpc-train build-horovod`."""

import os
import sysconfig

KEY = {key!r}
MPIRUN = {mpirun!r}


def mpirun():
    """The mpirun of the MPI that this Horovod is linked with: the site's, or the one in this environment."""
    path = MPIRUN or os.path.join(sysconfig.get_path("scripts"), "mpirun")
    return path if os.access(path, os.X_OK) else "mpirun"


def mpi_built(verbose=False):
    """True: this program builds Horovod with MPI or not at all."""
    return True


def gloo_built(verbose=False):
    """True: this program builds Horovod with Gloo or not at all."""
    return True
'''


def digest() -> str:
    """A hash of every text that this module changes or adds."""
    changes = [(patch.file, patch.old, patch.new) for patch in PATCHES]
    texts = (
        changes,
        HEADER_TEXT,
        LLVM_HEADER_TEXT,
        BUILD_MODULE_TEXT,
        rendezvous.TEXT,
        our_cpp.HEADER_TEXT,
        names.files(),
    )
    return hashlib.sha256(repr(texts).encode()).hexdigest()[:16]


def apply(source: Path, key: str, mpirun: Path | None, files: tuple[str, ...] = ()) -> None:
    """Patch Horovod's source; add our header and the module that identifies the build.

    Args:
        source: folder of the unpacked sdist.
        key: key of the build.
        mpirun: the site's mpirun; None for the one in the environment in which the wheel is installed.
        files: patch only these files; empty for all.

    Raises:
        UserError: the source is not the one that the patches are for.
    """
    for patch in PATCHES:
        if files and patch.file not in files:
            continue
        path = source / patch.file
        text = path.read_text() if path.is_file() else ""
        if (count := text.count(patch.old)) != 1:
            raise UserError(
                f"Horovod's {patch.file} is not the one this program knows: {patch.old.strip()!r} occurs {count} times "
                f"instead of once, so it cannot be patched ({patch.why}); use the release that hpc-train downloads"
            )
        path.write_text(text.replace(patch.old, patch.new))
    added = {
        HEADER: HEADER_TEXT,
        **dict.fromkeys(LLVM_HEADERS, LLVM_HEADER_TEXT),
        BUILD_MODULE: BUILD_MODULE_TEXT.format(key=key, mpirun=mpirun and str(mpirun)),
        rendezvous.MODULE: rendezvous.TEXT,
        our_cpp.HEADER: our_cpp.HEADER_TEXT,
        **({} if files else names.files()),
    }
    for name, text in added.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
