"""All checks: first what one process can see alone, then what the ranks know together."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpc_train.doctor import affinity, allreduce, gpus, mpi, network, placement, software, storage
from hpc_train.doctor.container import container
from hpc_train.doctor.facts import Facts, Place, cpu_facts
from hpc_train.doctor.findings import Finding, Lost, Table
from hpc_train.doctor.supervise import Doing
from hpc_train.errors import UserError
from hpc_train.parallel.cuda import given, visible
from hpc_train.parallel.launcher import GLOO, Launcher, right_launch, wrong_size
from hpc_train.parallel.world import World, node_name


@dataclass
class Examination:
    """The checks of one rank. All ranks run them; only the findings of the launcher's rank 0 are printed."""

    launcher: Launcher
    data: Path | None
    local: str | None
    seconds: float
    send: Callable

    def run(self) -> None:
        """Run all checks."""
        software.calm()
        self.send(software.python())
        family, one_mpi = self._mpi()
        self.send(placement.launcher_finding(self.launcher))
        self.send(placement.slurm_finding())
        if self._prints and (site := placement.site_finding()):
            self.send(site)
        if home := placement.home_finding():
            self.send(home)
        shared = placement.shared_memory_finding(self.launcher)
        self.send(shared)
        if shared.verdict == "wrong" and self.launcher.size > 1:
            return  # MPI would end this process by a signal
        counted = one_mpi and self.launcher.size > 1
        if counted and self._count(family) == 1 and not self._prints:
            _finalize()
            return  # every rank is a job of size 1; rank 0 finds the same and continues alone
        finding, usable = self._software()
        places = self._places()
        if not usable and not self._prints:
            self.send(Lost(finding))
            return
        world = self._join(family) if usable else None
        if world is None:
            self.send(Finding("world", "note", "not known: only Horovod can count the ranks", "fix Horovod first"))
            self._alone(places, None)
        elif wrong_size(self.launcher, world.size, family):
            # Each process believes that it is the whole job.
            if self._prints:
                self.send(placement.judge_world(self.launcher, world.size, [], family))
                self._alone(places, world)
        else:
            self._together(world, places, family)
        if world is not None:
            self._doing("shutting Horovod down")
            import horovod.tensorflow as hvd

            hvd.shutdown()
            if counted:
                _finalize()

    @property
    def _prints(self) -> bool:
        return self.launcher.rank == 0

    def _doing(self, what: str, *remedy: str) -> None:
        self.send(Doing(what, self.seconds, *remedy))

    def _software(self) -> tuple[Finding, bool]:
        """Check TensorFlow, CUDA's libraries and Horovod; the last finding, and whether Horovod can be used."""
        self._doing("loading TensorFlow")
        finding, usable = software.tensorflow()
        self.send(finding)
        if not usable:
            self.send(Finding("Horovod", "note", "not checked: it needs TensorFlow", "fix TensorFlow first"))
            return finding, False
        self._doing("opening CUDA's libraries")
        if self._prints and (cuda := software.cuda()):
            self.send(cuda)
        self._doing("loading Horovod")
        finding, usable = software.horovod()
        self.send(finding)
        return finding, usable

    def _mpi(self) -> tuple[str | None, bool]:
        """Check which MPI Horovod, mpi4py and the launcher use.

        Returns:
            The family of Horovod's MPI, or else of mpi4py's; and whether MPI started the ranks and both use
            the same library.
        """
        self._doing("finding the MPI of Horovod and of mpi4py")
        library = software.horovod_library()
        horovods = mpi.horovods(library) if library else None
        mpi4pys = mpi.mpi4pys()
        if self._prints:
            self.send(mpi.judge(horovods, mpi4pys, mpi.mpirun_on_path(), self.launcher, container()))
        ours = horovods or mpi4pys
        one = bool(horovods and mpi4pys and horovods.path == mpi4pys.path)
        return ours.family if ours else None, one and self.launcher.name != GLOO

    def _count(self, family: str | None) -> int:
        """The number of ranks in MPI's world. Counted first, as loading TensorFlow takes far longer. Collective."""
        how = f"start with {right_launch(family)}"
        self._doing(f"MPI_Init of {family or 'an unknown MPI'} under {self.launcher.name}", how)
        import mpi4py

        mpi4py.rc.initialize = mpi4py.rc.finalize = False
        from mpi4py import MPI

        # As Horovod would do; it uses an MPI that is started already.
        MPI.Init_thread(MPI.THREAD_MULTIPLE)
        return MPI.COMM_WORLD.size

    def _places(self) -> tuple[Place | None, Place | None]:
        """Data and local storage as this node sees them, on its first rank."""
        if self.launcher.local_rank:
            return None, None
        self._doing(f"checking {self.data}")
        data = storage.look_at_data(self.data) if self.data else None
        self._doing("checking node-local storage")
        return data, storage.look_at_local(self.local)

    def _join(self, family: str | None) -> World | None:
        """Start Horovod. If it fails on this rank: send the problem, return None."""
        import horovod.tensorflow as hvd

        how = f"start with {right_launch(family)}"
        self._doing("joining the other ranks (hvd.init)", how)
        try:
            hvd.mpi_ops.init()
        except Exception as error:
            self.send(Lost(Finding("world", "wrong", f"Horovod does not start: {software.brief(error)}", how)))
            return None
        return World(hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size(), hvd.cross_rank(), hvd.cross_size())

    def _alone(self, places: tuple[Place | None, Place | None], world: World | None) -> None:
        """Check this process alone, if the ranks have not found each other."""
        own = [self._facts(World(), places, with_tensorflow=world is not None)]
        if world is not None:
            self._gpus(own, alone=True)
        if self.launcher.size == 1:
            self.send(placement.judge_cpus(own))
        self._network(own)
        self._storage(own)
        self.send(Table([gpus.row(facts) for facts in own]))
        self.send(Finding("all-reduce", "note", "not tried: the ranks have not found each other"))

    def _together(self, world: World, places: tuple[Place | None, Place | None], family: str | None) -> None:
        from hpc_train.parallel.collectives import gather_objects

        self._doing("checking GPUs and CPUs")
        own = self._facts(world, places, with_tensorflow=True)
        self._doing("gathering what the ranks see (hvd.allgather)")
        everybody = gather_objects(own)
        self.send(placement.judge_world(self.launcher, world.size, everybody, family))
        self._gpus(everybody)
        self.send(placement.judge_cpus(everybody))
        self._network(everybody)
        if self._prints:
            self._storage(everybody)
        self.send(Table([gpus.row(facts) for facts in everybody]))
        if world.size == 1:
            self.send(Finding("all-reduce", "ok", "nothing to sum: one rank"))
            return
        device = "/gpu:0" if own.seen and software.has_nccl() else "/cpu:0"
        self._doing("all-reduce in float32 and float16")
        wrong = gather_objects(allreduce.wrong_sums(world.rank, world.size, device))
        ranks = {dtype: [rank for rank, bad in enumerate(wrong) if dtype in bad] for dtype in ("float32", "float16")}
        self._doing("all-reduce of large messages")
        self.send(allreduce.judge(world.size, ranks, *allreduce.speed(device), device))

    def _facts(self, world: World, places: tuple[Place | None, Place | None], with_tensorflow: bool) -> Facts:
        shown, seen, bus = visible(), 0, None
        buses, no_driver, cuda = gpus.driver()
        if with_tensorflow:
            seen = gpus.pin(world)
        index, name, problem = gpus.take(shown, seen, world)
        if seen and index is not None and index < len(buses):
            bus = buses[index]
        cpus = cpu_facts(world)
        nccl = with_tensorflow and software.has_nccl()
        return Facts(
            rank=world.rank,
            host=node_name(),
            local_rank=world.local_rank,
            local_size=world.local_size,
            visible=shown,
            given=given(),
            seen=seen,
            takes=name,
            bus=bus,
            problem=problem,
            no_driver=no_driver,
            **cpus,
            data=places[0],
            local=places[1],
            network=None if world.local_rank else network.look(nccl, world.nodes),
            numa=affinity.look(bus, cpus["mask"]),
            driver=gpus.release(),
            driver_cuda=cuda,
        )

    def _gpus(self, everybody: list[Facts], alone: bool = False) -> None:
        import tensorflow as tf

        built = tf.sysconfig.get_build_info().get("cuda_version", "")
        old = gpus.judge_driver(everybody, built)
        cuda = tf.test.is_built_with_cuda()
        self.send(old or gpus.judge(everybody, cuda, software.has_nccl(), container(), alone))

    def _network(self, everybody: list[Facts]) -> None:
        if near := affinity.judge(everybody):
            self.send(near)
        for finding in network.judge({facts.host: facts.network for facts in everybody if facts.network}):
            self.send(finding)

    def _storage(self, everybody: list[Facts]) -> None:
        size = None
        if self.data:
            self._doing(f"counting the files of {self.data}")
            try:
                count, size = storage.bytes_of(self.data)
            except (UserError, OSError) as error:
                self.send(Finding("data", "wrong", str(error)))
            else:
                self.send(
                    storage.judge_data({facts.host: facts.data for facts in everybody if facts.data}, count, size)
                )
        self.send(storage.judge_local({facts.host: facts.local for facts in everybody if facts.local}, size))


def _finalize() -> None:
    from mpi4py import MPI

    MPI.Finalize()
