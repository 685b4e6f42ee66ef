"""Workers on Ray that share out sequences among them; what a killed one had not finished is done again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from statesize.errors import InputError, StatesizeError
from statesize.parallel.ray_session import wait_for_one
from statesize.profiling.gathering import Progress
from statesize.profiling.measuring import measured_names
from statesize.profiling.units import Units
from statesize.profiling.worker import Asked, Loader, Ready, Worker
from statesize.results.record import SequenceRecord

# Workers that may be lost in a row at one thing before it is taken for the cause.
_MOST_LOST = 3
# A process with torch and its libraries, before it holds a model.
_PROCESS_BYTES = 5 * 10**8


@dataclass(eq=False)
class Job:
    """A sequence that is to be measured.

    Attributes:
        sequence: Its index.
        ids: Its tokens.
    """

    sequence: int
    ids: Tensor
    names: list[str] = field(default_factory=list[str])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    told: set[str] = field(default_factory=set[str])
    lost: int = 0


@dataclass(frozen=True)
class _Call:
    """A call of a worker's method that has not been answered."""

    worker: Any
    answered: Callable[[Any, Any, Any], None]
    job: Job | None = None


@dataclass(eq=False)
class Crew:
    """Workers of one run.

    Attributes:
        ray: The module ray, connected.
        load: Gives each worker its model.
        asked: What is measured.
        cpus: Cores, and threads, of each worker.
        gpus: GPUs of each worker.
    """

    ray: Any
    load: Loader
    asked: Asked
    cpus: int
    gpus: float
    _ready: Ready | None = None
    _workers: list[Any] = field(default_factory=list[Any])
    _idle: list[Any] = field(default_factory=list[Any])
    _calls: dict[Any, _Call] = field(default_factory=dict[Any, _Call])
    _lost_while_opening: int = 0
    _jobs: deque[Job] = field(default_factory=deque[Job])
    _units: Units | None = None
    _count: int = 0
    _on_progress: Callable[[Progress], None] | None = None

    def open(self) -> Ready:
        """Start the first worker, which shows what the model is and how much memory the others will need.

        Returns:
            What it says.

        Raises:
            InputError: If no machine of the cluster is large enough.
        """
        if not self._fits():
            gpus = f", {self.gpus:g} GPUs" if self.gpus else ""
            raise InputError(
                f"no machine of the Ray cluster has the {self.cpus} cores{gpus} and {self._bytes() / 1e9:.1f} GB that "
                "a worker asks for; give fewer cores, less memory, or the address of a larger cluster"
            )
        self._hire()
        while self._ready is None:
            self._step()
        return self._ready

    def measure(self, jobs: Sequence[Job], units: Units, count: int, tell: Callable[[Progress], None] | None) -> None:
        """Measure sequences on as many workers as the cluster has room for.

        Args:
            jobs: The sequences.
            units: Receives each record as soon as it is there.
            count: Number of all sequences, for progress.
            tell: Told after each mixer of each sequence.
        """
        self._jobs, self._units, self._count, self._on_progress = deque(jobs), units, count, tell
        idle, self._idle = self._idle, []
        for worker in idle:
            self._employ(worker)
        if self._fits():
            cores = int(self.ray.cluster_resources().get("CPU", 0))
            # Those for which there is no room now wait, and are dismissed with the others if it never comes.
            for _ in range(min(len(jobs), cores // self.cpus) - len(self._workers)):
                self._hire()
        while any(call.job for call in self._calls.values()) or self._jobs:
            self._step()

    def dismiss(self) -> None:
        """End all workers."""
        while self._workers:
            self.ray.kill(self._workers.pop())

    def _bytes(self) -> int:
        return self.asked.settings.memory + _PROCESS_BYTES + (self._ready.bytes if self._ready else 0)

    def _fits(self) -> bool:
        """Whether a worker could ever run on some machine of the cluster."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self._bytes()}
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return any(all(machine.get(name, 0) >= amount for name, amount in asked.items()) for machine in machines)

    def _hire(self) -> None:
        make = self.ray.remote(Worker).options(num_cpus=self.cpus, num_gpus=self.gpus, memory=self._bytes())
        worker = make.remote(self.load, self.cpus, self.asked)
        self._workers.append(worker)
        self._calls[worker.open.remote()] = _Call(worker, self._opened)

    def _employ(self, worker: Any) -> None:
        """Give a free worker the next sequence, or let it go."""
        if self._units is None:
            self._idle.append(worker)
        elif self._jobs:
            job = self._jobs.popleft()
            self._calls[worker.begin.remote(job.sequence, job.ids)] = _Call(worker, self._begun, job)
        else:
            self._workers.remove(worker)
            self.ray.kill(worker)

    def _step(self) -> None:
        """Wait for one answer and act on it."""
        answer = wait_for_one(self.ray, list(self._calls))
        call = self._calls.pop(answer)
        try:
            value = self.ray.get(answer)
        except self.ray.exceptions.RayTaskError as error:
            # As in a single process; the traceback of the worker comes with it.
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            self._replace(call, error)
        else:
            call.answered(call.worker, call.job, value)

    def _opened(self, worker: Any, _: object, ready: Ready) -> None:
        self._lost_while_opening = 0
        self._ready = self._ready or ready
        if ready.key != self._ready.key:
            raise StatesizeError(
                f"the worker on {ready.place} computes something else than the first, on {self._ready.place}: weights, "
                "versions or settings differ. Make them the same on all machines of the cluster."
            )
        self._employ(worker)

    def _begun(self, worker: Any, job: Job, answer: tuple[list[str], dict[str, str]]) -> None:
        job.names, job.skipped = answer
        for name in job.names:
            record = None if self._units is None else self._units.read(job.sequence, job.ids, name)
            if record is not None:
                self._tell(job, record, resumed=True)
        self._continue(worker, job)

    def _measured(self, worker: Any, job: Job, record: SequenceRecord | dict[str, str]) -> None:
        if self._units is None:
            return
        if not isinstance(record, SequenceRecord):
            self._units.finish(job.sequence, job.ids, measured_names(job.names, record), record)
            self._employ(worker)
            return
        self._units.write(job.sequence, job.ids, record)
        self._tell(job, record, resumed=False)
        job.lost = 0
        self._continue(worker, job)

    def _continue(self, worker: Any, job: Job) -> None:
        self._calls[worker.next.remote(tuple(job.told))] = _Call(worker, self._measured, job)

    def _tell(self, job: Job, record: SequenceRecord, *, resumed: bool) -> None:
        if record.name in job.told:
            return
        job.told.add(record.name)
        if self._on_progress is not None:
            index, seconds = job.names.index(record.name), 0.0 if resumed else record.seconds
            place = (job.sequence, self._count, index, len(job.names))
            self._on_progress(Progress(*place, record.name, record.engine, seconds, resumed))

    def _replace(self, call: _Call, error: Exception) -> None:
        """Another worker for one that is gone."""
        if call.job is None:
            self._lost_while_opening += 1
            lost, at = self._lost_while_opening, "loading the model"
        else:
            call.job.lost += 1
            lost, at = call.job.lost, f"sequence {call.job.sequence} of {len(call.job.ids)} tokens"
            self._jobs.appendleft(call.job)
        if lost == _MOST_LOST:
            reason = str(error).strip().splitlines()[-1].strip()[:200]
            raise StatesizeError(
                f"{lost} workers in a row were lost at {at} ({reason}); is the machines' memory enough, and this "
                "statesize installed on all of them?"
            ) from error
        self._workers.remove(call.worker)
        # It may be out of reach only.
        self.ray.kill(call.worker)
        self._hire()
