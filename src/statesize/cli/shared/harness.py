"""A task of lm-evaluation-harness (package lm-eval): the prompts that a model reads, and its score."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import device_of, logits_of
from statesize.check import refuse
from statesize.errors import InputError
from statesize.io.text import counted, meant
from statesize.texts.tokens import AnyTokenizer, encode_begun, plain_ids, special_ids
from statesize.version import installed

DOCUMENTS = 8
"""Documents of a task unless the caller says how many."""


@dataclass(frozen=True, eq=False)
class AnsweredTask:
    """A task that a model has answered.

    Attributes:
        prompts: What the model read before its answers, each prompt once, (L,) int64.
        score: The task, its metrics and the number of documents, in words.
    """

    prompts: list[Tensor]
    score: str


def find_task(task: str) -> tuple[str, Any]:
    """A task of lm-eval by its name, or that of a YAML file, and what knows it."""
    from lm_eval.tasks import TaskManager  # pyright: ignore

    managed, file = cast("Any", TaskManager), Path(task)
    if file.suffix in (".yaml", ".yml"):
        named = re.search(r"^task:\s*(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE) if file.is_file() else None
        if named is None:
            refuse("task", "a YAML file with the name of its task, or a name", task)
        manager = managed(include_path=str(file.parent), include_defaults=False)
        task = named[1]
    else:
        manager = managed()
    if task not in manager.all_tasks:
        refuse("task", "one that `lm-eval ls tasks` lists, or a YAML file", task, meant(task, manager.all_tasks, ""))
    return task, manager


def answer_task(task: str, manager: Any, model: nn.Module, tokenizer: AnyTokenizer, documents: int) -> AnsweredTask:
    """Let a model answer a task that was found."""
    from lm_eval import simple_evaluate  # pyright: ignore

    lm = _language_model(model, tokenizer)
    found = cast("Any", simple_evaluate)(
        model=lm, tasks=[task], task_manager=manager, limit=documents, bootstrap_iters=0, log_samples=False
    )
    metrics = {
        name.partition(",")[0]: value
        for name, value in found["results"][task].items()
        if isinstance(value, float) and "stderr" not in name
    }
    read = dict.fromkeys(tuple(ids) for ids in cast("list[list[int]]", lm.prompts))
    prompts = [torch.tensor(ids) for ids in read if len(ids) > 1]
    if not prompts:
        raise InputError(f"task must have prompts of at least 2 tokens, got {task} without. Take another.")
    said = ", ".join(f"{name} {value:.3g}" for name, value in metrics.items())
    version = installed("lm-eval")["lm-eval"]
    return AnsweredTask(prompts, f"{task}: {said} on {counted(documents, 'document')} (lm-eval {version})")


def _language_model(model: nn.Module, tokenizer: AnyTokenizer) -> Any:
    """What lm-eval asks: any model that returns logits, which keeps the prompts that it was given."""
    from lm_eval.api.model import TemplateLM  # pyright: ignore

    roles, device = special_ids(tokenizer)[1], device_of(model)
    if not roles:
        raise InputError("task must come with a tokenizer that knows the beginning or end of a text, got neither.")

    class LanguageModel(cast("Any", TemplateLM)):
        prompts: list[list[int]]

        def __init__(self) -> None:
            super().__init__()
            self.prompts = []

        @property
        def eot_token_id(self) -> int:
            return roles.get("eos", next(iter(roles.values())))

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            return plain_ids(tokenizer, string) if add_special_tokens is False else encode_begun(tokenizer, string)

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
        ) -> list[tuple[float, bool]]:
            self.prompts += [context for _, context, _ in requests]
            return [self._likelihood(context, answer) for _, context, answer in requests]

        @torch.no_grad()
        def _likelihood(self, context: list[int], answer: list[int]) -> tuple[float, bool]:
            ids, targets = torch.tensor([context + answer], device=device), torch.tensor(answer, device=device)
            likelihoods = logits_of(model, ids[:, :-1], len(answer))[0].float().log_softmax(-1)
            chosen = likelihoods.gather(1, targets[:, None])
            return float(chosen.sum()), bool((likelihoods.argmax(-1) == targets).all())

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            texts = [plain_ids(tokenizer, request.args[0]) for request in requests]
            self.prompts += texts
            return [self._likelihood([self.eot_token_id], ids)[0] for ids in texts]

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            raise InputError(
                "task must score answers that it gives, got one in which the model writes its own. Take a task of "
                "multiple choice or log-likelihood."
            )

    return LanguageModel()
