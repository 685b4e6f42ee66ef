"""Where the runs of a study are done: in this process, in others of one thread each, or on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from statesize.errors import InputError
from statesize.lab.studies.grid.grid import TrainingRun
from statesize.lab.studies.grid.run import Row, carry_out
from statesize.lab.studies.grid.settings import Execution
from statesize.lab.studies.grid.user_code import UserModule, load_module
from statesize.parallel import executor
from statesize.parallel.executor import ATTEMPTS, ONE_THREAD, LostError, Processes, SerialExecutor
from statesize.parallel.ray import OnRay, available_cores, ray_session


@dataclass(frozen=True)
class Outcome:
    """A run that came to its end.

    Attributes:
        run: The run.
        rows: What `carry_out` gave; empty where the run failed.
        error: Why it failed; empty where it did not.
    """

    run: TrainingRun
    rows: tuple[Row, ...]
    error: str = ""


Executor: TypeAlias = Callable[[Sequence[TrainingRun]], Iterator[Outcome]]
"""Does runs and yields their outcomes as they come, in any order."""

# The index of a run, and its settings as JSON values.
Task: TypeAlias = tuple[int, dict[str, Any]]


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
    return run_here if workers == 1 else partial(run_in_processes, workers=workers, module=module)


def ray_executor(address: str | None, execution: Execution, module: UserModule | None = None) -> Executor:
    """An executor of a Ray cluster, whose machines have this statesize installed.

    It raises an InputError where Ray is not installed, nothing answers at the address, or a run asks for more than the
    machines of the cluster have.

    Args:
        address: HOST:PORT or ray://HOST:PORT of a cluster, or "auto" for the one that runs on this machine. None takes
            the one that this process is connected to, or starts one on this machine and stops it at the end.
        execution: Cores, GPUs and memory of a run.
        module: What registers mixers and tasks of one's own; the other machines need not have its file.

    Returns:
        The executor.
    """
    resources = (float(execution.cpus), execution.gpus, execution.memory)

    def run(runs: Sequence[TrainingRun]) -> Iterator[Outcome]:
        make = partial(Runs, module)
        with ray_session(address) as ray, OnRay(make, ray, *resources, environment=ONE_THREAD) as workers:
            yield from _outcomes(workers, runs)

    return run


def run_here(runs: Sequence[TrainingRun]) -> Iterator[Outcome]:
    """Does runs one after another in this process, with everything that is registered in it."""

    def work(task: Task) -> list[list[Row]]:
        return [carry_out(runs[task[0]])]

    return _outcomes(SerialExecutor(work), runs)


def run_in_processes(runs: Sequence[TrainingRun], workers: int, module: UserModule | None = None) -> Iterator[Outcome]:
    """Does runs in several processes of one thread each; the run of a process that is killed is done again."""
    with Processes(partial(Runs, module), workers) as crew:
        yield from _outcomes(crew, runs)


def _outcomes(workers: executor.Executor, runs: Sequence[TrainingRun]) -> Iterator[Outcome]:
    tasks: list[Task] = [(index, run.to_dict()) for index, run in enumerate(runs)]
    for done in workers.run(tasks):
        run = runs[done.task[0]]
        if isinstance(done.error, LostError):
            yield Outcome(run, (), f"its worker was killed {ATTEMPTS} times; is memory enough for {run.label}?")
        elif done.error is not None:
            yield Outcome(run, (), str(done.error))
        else:
            yield Outcome(run, tuple(done.value or ()))


class Runs:
    """The work of another process: runs from their settings, with what a module registers."""

    def __init__(self, module: UserModule | None) -> None:
        self._module = module

    def __call__(self, task: Task) -> Iterator[list[Row]]:
        """The rows of one run."""
        # Not when the process begins, so that the error of a module is reported with each run.
        if self._module is not None:
            load_module(self._module)
        try:
            run = TrainingRun.from_dict(task[1])
        except InputError as error:
            raise InputError(
                f"{error}. Worker processes know mixers and tasks of your own from a module only, --module FILE; "
                "without one, do the runs in this process (workers = 1)"
            ) from error
        yield carry_out(run)
