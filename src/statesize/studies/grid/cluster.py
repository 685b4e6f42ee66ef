"""Runs on Ray: a local cluster that is started for them, or one that is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from statesize.errors import InputError
from statesize.parallel.ray_session import ray_session, wait_for_one
from statesize.studies.grid.grid import Run
from statesize.studies.grid.local import outcome_of
from statesize.studies.grid.outcome import ATTEMPTS, WORKER_ENVIRONMENT, Executor, Outcome
from statesize.studies.grid.settings import Execution
from statesize.studies.grid.user_code import UserModule
from statesize.studies.grid.worker import request


def ray_executor(address: str | None, execution: Execution, module: UserModule | None = None) -> Executor:
    """An executor of a Ray cluster, whose machines have this statesize installed.

    It raises an InputError where Ray is not installed, nothing answers at the address, or a run asks for more than the
    cluster has.

    Args:
        address: For `ray_session`.
        execution: Cores, GPUs and memory of a run.
        module: What registers mixers and tasks of one's own; the other machines need not have its file.

    Returns:
        The executor.
    """
    return partial(_run_on_ray, address=address, execution=execution, module=module)


def _run_on_ray(
    runs: Sequence[Run], address: str | None, execution: Execution, module: UserModule | None
) -> Iterator[Outcome]:
    with ray_session(address) as ray:
        yield from _outcomes(ray, runs, execution, module)


def _outcomes(ray: Any, runs: Sequence[Run], execution: Execution, module: UserModule | None) -> Iterator[Outcome]:
    _require_resources(ray, execution)
    # Killed workers are counted here rather than by Ray, so that both executors do the same.
    task = ray.remote(_answer).options(
        num_cpus=execution.cpus,
        num_gpus=execution.gpus,
        memory=execution.memory,
        max_retries=0,
        runtime_env={"env_vars": WORKER_ENVIRONMENT},
    )
    attempts = dict.fromkeys(runs, 1)
    pending = {task.remote(request(run, module)): run for run in runs}
    while pending:
        answer = wait_for_one(ray, list(pending))
        run = pending.pop(answer)
        try:
            yield outcome_of(run, json.loads(ray.get(answer)))
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError):
            if attempts[run] == ATTEMPTS:
                yield Outcome(run, (), f"its worker was killed {ATTEMPTS} times; is memory enough for {run.label}?")
            else:
                attempts[run] += 1
                pending[task.remote(request(run, module))] = run
        except ray.exceptions.RayError as error:
            yield Outcome(run, (), f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _require_resources(ray: Any, execution: Execution) -> None:
    there: dict[str, float] = ray.cluster_resources()
    asked = {"CPU": execution.cpus, "GPU": execution.gpus, "memory": execution.memory}
    for name, amount in asked.items():
        if amount > there.get(name, 0):
            raise InputError(
                f"a run asks for {name} {amount:g} and the Ray cluster has {there.get(name, 0):g}; lower [execution]"
            )


def _answer(line: str) -> str:
    # Imported where the work is done, so that the driver sends a line and no code of ours.
    import torch

    from statesize.studies.grid.worker import answer

    torch.set_num_threads(1)
    return answer(line)
