"""Where the runs of a study are done: in this process, in others of one thread each, or on Ray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from statesize.errors import InputError
from statesize.lab.studies.grid.grid import TrainingRun
from statesize.lab.studies.grid.run import Row, carry_out
from statesize.lab.studies.grid.settings import Execution
from statesize.lab.studies.grid.user_code import UserModule, load_module
from statesize.parallel.executor import Crew, Done, Executor, Processes, SerialExecutor
from statesize.parallel.ray import available_cores, ray_workers


def local_executor(workers: int = 0, module: UserModule | None = None) -> Executor:
    """An executor of this machine.

    Args:
        workers: Number of processes; 0 takes one a core, 1 works in the calling process, which also knows tasks and
            mixers that were registered there.
        module: What registers mixers and tasks of one's own in the processes.

    Returns:
        The executor.
    """
    workers = workers or available_cores()
    return HERE if workers == 1 else OtherProcesses(partial(Processes, workers=workers), module)


def ray_executor(address: str | None, execution: Execution, module: UserModule | None = None) -> Executor:
    """An executor of a Ray cluster, whose machines have this statesize installed.

    It raises an InputError where Ray is not installed, nothing answers at the address, or a run asks for more than the
    machines of the cluster have.

    Args:
        address: As for `RayCluster`.
        execution: Cores, GPUs and memory of a run.
        module: What registers mixers and tasks of one's own; the other machines need not have its file.

    Returns:
        The executor.
    """
    resources = {"cpus": execution.cpus, "gpus": execution.gpus, "memory": execution.memory}
    return OtherProcesses(partial(ray_workers, address=address, **resources), module)


HERE = SerialExecutor(lambda run: [carry_out(run)])
"""Does runs one after another in this process, with everything that is registered in it."""


@dataclass(frozen=True)
class OtherProcesses:
    """Does runs in processes of one thread each; the run of a process that is killed is done again."""

    crew: Crew
    module: UserModule | None = None

    def run(self, tasks: Iterable[Any]) -> Iterator[Done[Any, Any]]:
        """The rows of all runs as they come; an error that says why a run failed."""
        runs: list[TrainingRun] = list(tasks)
        sent = [SentRun(index, run.label, run.to_dict()) for index, run in enumerate(runs)]
        with self.crew(partial(Runs, self.module)) as workers:
            for done in workers.run(sent):
                yield Done(runs[done.task.index], done.value, done.error)


@dataclass(frozen=True)
class SentRun:
    """A run as JSON values, since its classes may be known in other processes only once a module is loaded there."""

    index: int
    label: str
    values: dict[str, Any]

    def __str__(self) -> str:
        return self.label


class Runs:
    """The work of another process: runs from their settings, with what a module registers."""

    def __init__(self, module: UserModule | None) -> None:
        self._module = module

    def __call__(self, sent: SentRun) -> Iterator[list[Row]]:
        """The rows of one run."""
        # Not when the process begins, so that the error of a module is reported with each run.
        if self._module is not None:
            load_module(self._module)
        try:
            run = TrainingRun.from_dict(sent.values)
        except InputError as error:
            raise InputError(
                f"{error}. Worker processes know mixers and tasks of your own from a module only, --module FILE; "
                "without one, do the runs in this process (workers = 1)"
            ) from error
        yield carry_out(run)
