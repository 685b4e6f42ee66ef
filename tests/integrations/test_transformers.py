"""The callback in the Trainer of transformers: its gradient is that of the sum, and it leaves nothing behind."""

import copy

import pytest
import torch
from oracles.recurrent_models import tiny_model
from transformers import Trainer, TrainingArguments

from statesize.errors import ModelError
from statesize.integrations.transformers import RegularisationCallback
from statesize.mixers import LanguageModel, ModelConfig
from statesize.training import Regularisation, mixer_calls

# Everything, so that nothing depends on the draws.
EVERYTHING = {"sequences": 99, "units": 999, "positions": 99}


class Causal(torch.nn.Module):
    """A model of statesize with a loss, as the Trainer wants it."""

    def __init__(self, mixer="gla"):
        super().__init__()
        shape = ModelConfig(mixer=mixer, vocabulary_size=64, width=16, heads=2, layers=2, key_size=4, decay_bias=0.0)
        self.model = LanguageModel(shape, torch.Generator().manual_seed(0))

    def forward(self, input_ids, labels=None):
        logits = self.model(input_ids)
        if labels is None:
            return {"logits": logits}
        return {"loss": torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def texts(count, length=12):
    tokens = torch.randint(3, 60, (count, length), generator=torch.Generator().manual_seed(4))
    return [{"input_ids": row, "labels": row} for row in tokens]


def trainer(model, data, folder, callbacks, **changes):
    arguments = {
        **{"output_dir": str(folder), "max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1.0},
        **{"lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0.0, "logging_steps": 1},
        **{"report_to": "none", "save_strategy": "no", "use_cpu": True, "dataloader_pin_memory": False},
        **{"disable_tqdm": True, "seed": 5, **changes},
    }
    return Trainer(model, TrainingArguments(**arguments), train_dataset=data, callbacks=callbacks)


def batches(given):
    """What the Trainer will draw, in its order."""
    return list(given.get_train_dataloader())


@pytest.mark.parametrize("family", ["gla", "mamba", "mamba2", "qwen3_next"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_one_step_is_the_gradient_of_the_mean_loss_and_penalty(family, accumulation, tmp_path):
    model = Causal() if family == "gla" else tiny_model(family)
    expected, data = copy.deepcopy(model).train(), texts(2 * accumulation)
    regularisation = Regularisation(0.7, 0.5, 0.9, **EVERYTHING)
    callback = RegularisationCallback(regularisation)
    given = trainer(model, data, tmp_path, [callback], gradient_accumulation_steps=accumulation, learning_rate=0.1)
    total, generator = 0.0, torch.Generator().manual_seed(0)
    for start in range(0, 2 * accumulation, 2):
        tokens = torch.stack([row["input_ids"] for row in data[start : start + 2]])
        with mixer_calls(expected) as calls:
            loss = expected(input_ids=tokens, labels=tokens)["loss"]
        total = total + (loss + regularisation.penalty(calls, generator)) / accumulation
    total.backward()
    given.get_train_dataloader = lambda: torch.utils.data.DataLoader(data, batch_size=2)
    found = given.train()
    assert found.training_loss == pytest.approx(total.item(), rel=1e-4)
    for name, parameter in expected.named_parameters():
        after = parameter - 0.1 * parameter.grad if parameter.grad is not None else parameter
        torch.testing.assert_close(dict(model.named_parameters())[name], after, rtol=1e-4, atol=1e-6, msg=name)


def test_training_opens_the_gates_and_evaluation_is_left_alone(tmp_path):
    data, distances, losses = texts(32), [], []
    for callbacks in ([], [RegularisationCallback(Regularisation(identity_weight=3.0))]):
        model = Causal("wla")
        given = trainer(
            model, data, tmp_path, callbacks, max_steps=20, per_device_train_batch_size=8, optim="adamw_torch",
            learning_rate=0.1,
        )  # fmt: skip
        given.train()
        with mixer_calls(model) as calls:
            loss = model(**{name: torch.stack([row[name] for row in data]) for name in data[0]})["loss"]
        distances.append(Regularisation(identity_weight=1.0).penalty(calls, torch.Generator()).item())
        losses.append((given.evaluate(data)["eval_loss"], loss.item()))
        assert not model._forward_hooks
        assert not model._forward_pre_hooks
        logged = [entry for entry in given.state.log_history if "loss" in entry]
        assert all(("regularisation" in entry) == bool(callbacks) for entry in logged)
    assert distances[1] < 0.5 * distances[0]
    for evaluated, computed in losses:
        assert evaluated == pytest.approx(computed, rel=1e-4)


def test_a_resumed_run_draws_the_same(tmp_path):
    callback = RegularisationCallback(Regularisation(utilisation_weight=1.0), seed=3)
    weights = []
    for folder, steps in (("whole", (4,)), ("parts", (2, 4))):
        for number, last in enumerate(steps):
            model = Causal()
            given = trainer(
                model, texts(16), tmp_path / folder, [callback], max_steps=last, save_strategy="steps", save_steps=2,
                learning_rate=0.1,
            )  # fmt: skip
            given.train(resume_from_checkpoint=number > 0)
        weights.append(model.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, msg=name)


def test_a_model_without_a_loss_is_refused_and_left_as_it_was(tmp_path):
    model = Causal()
    callback = RegularisationCallback(Regularisation(identity_weight=1.0))
    given = trainer(model, texts(4), tmp_path, [callback])
    given.compute_loss_func = lambda output, labels, num_items_in_batch: output["logits"].square().mean()
    given.model_accepts_loss_kwargs = False
    with pytest.raises(ModelError, match="Causal returns no 'loss'"):
        given.train()
    assert not any(module._forward_pre_hooks for module in model.model.modules())
