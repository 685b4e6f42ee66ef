"""What the ranks of the tests do; each function runs in a process of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from oracles.ranks import in_lower_precision, sharded, whole_model
from torch import nn

import statesize as ss
from statesize.integrations.probe import Probe
from statesize.measurement.settings import Settings

IDS = torch.randint(3, 60, (2, 20), generator=torch.Generator().manual_seed(1))
_TIMES = {"seconds", "source"}


def numbers(profile: ss.Profile) -> dict[str, Any]:
    """All that a profile holds, but for times."""
    nodes = {mixer: profile.mixer(mixer) for mixer in profile.mixers}
    facts: dict[str, Any] = {
        f"{mixer} {name}": node[name].values for mixer, node in nodes.items() for name in node.data_vars
    }
    facts |= {f"{mixer} {k}": v for mixer, node in nodes.items() for k, v in node.attrs.items() if k not in _TIMES}
    return facts | {name: profile.tree.attrs[name] for name in ("model", "kernels", "skipped")}


def same(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What differs in any bit."""
    keys = one.keys() | other.keys()
    return sorted(key for key in keys if repr(one.get(key)) != repr(other.get(key)) or not _equal(one[key], other[key]))


def _equal(one: Any, other: Any) -> bool:
    return not isinstance(one, np.ndarray) or (one.tobytes() == other.tobytes()) or one.dtype == object


def train(model: nn.Module, steps: int = 1) -> list[float]:
    """Losses of some steps of a training."""
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1), list[float]()
    for _ in range(steps):
        output: Any = model(IDS)
        logits = output if isinstance(output, torch.Tensor) else output.logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), IDS.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


def readings(family: str, policy: torch.dtype | None) -> dict[str, Any]:
    """How far what is read of a sharded model is from what is read of the whole one, and losses with and without."""
    plain, model = in_lower_precision(whole_model(family), policy), sharded(whole_model(family), policy)
    probe, settings = Probe(IDS, settings=Settings(positions=4)), Settings(positions=4)
    profiles = [ss.profile(one, IDS, settings=settings) for one in (model, plain)]
    found: dict[str, Any] = {"profile": same(*map(numbers, profiles))}
    unread = train(sharded(whole_model(family), policy), 3)
    losses = train(model)
    found["probe"] = same(*(numbers(probe.measure(one)) for one in (sharded(whole_model(family), policy), plain)))
    probe.measure(model)
    losses += train(model)
    with torch.inference_mode():
        probe.measure(model)
    losses += train(model)
    plans = [ss.plan(one, IDS, settings=settings) for one in (sharded(whole_model(family), policy), plain)]
    for plan in plans:
        found.setdefault("plan", []).append([(m.name, m.kind, m.units, m.measured, m.engine) for m in plan.mixers])
    return found | {"losses": losses == unread}
