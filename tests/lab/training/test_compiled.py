"""Training that torch compiles."""

import shutil
from pathlib import Path

import pytest
import torch

from statesize.errors import InputError
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.tasks import MQAR
from statesize.lab.training import TrainingConfig
from statesize.lab.training.loop import train_in_memory

TASK = MQAR(pairs=2, length=8, vocabulary_size=16)


def trained(mixer: str, compiled: bool, dropout: float = 0.0) -> list[float]:
    """Losses of a few steps of one layer of each mixer."""
    layers = len(mixer.split(","))
    shape = ModelConfig(mixer=mixer, vocabulary_size=16, width=8, heads=2, layers=layers, key_size=4, dropout=dropout)
    model = LanguageModel(shape, torch.Generator().manual_seed(0))
    return [step.loss for step in train_in_memory(model, TASK, TrainingConfig(steps=6, compiled=compiled))]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(("mixer", "dropout"), [("gla", 0.1), ("sa,s4d", 0.0), ("deltanet", 0.0), ("ssd", 0.0)])
def test_differs_by_round_off(mixer: str, dropout: float) -> None:
    assert trained(mixer, True, dropout) == pytest.approx(trained(mixer, False, dropout), abs=1e-4)


def test_scans_are_not_compiled() -> None:
    assert trained("s6", True) == trained("s6", False)


def test_settings_name_it_where_it_is() -> None:
    assert "compiled" not in TrainingConfig().to_dict()
    config = TrainingConfig(compiled=True)
    assert TrainingConfig(**config.to_dict()) == config


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(InputError, match="compiled must be True or False, got 1"):
        TrainingConfig(compiled=1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="compiled must be False where decays"):
        TrainingConfig(compiled=True, identity_weight=0.1)


def test_says_that_a_compiler_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with pytest.raises(InputError, match=r"compiled must be False here: torch cannot compile .*no-such-compiler"):
        trained("la", True)
    torch.compiler.reset()
