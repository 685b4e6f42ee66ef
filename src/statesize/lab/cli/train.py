"""`statesize lab train`: train a small language model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from statesize.cli.shared.options import Count, Flag, Seed
from statesize.cli.shared.printing import TEXT, Printing
from statesize.io.progress import Bar


def train(
    task: Literal["text"],
    /,
    *,
    mixer: str,
    output: Path,
    text: Path | None = None,
    vocabulary: Count = 1024,
    steps: Count = 4000,
    batch: Count = 8,
    length: Count = 256,
    rate: float = 6e-3,
    weight_decay: float = 0.1,
    dropout: float = 0.1,
    seed: Seed = 0,
    evaluate_every: Count = 250,
    checkpoint_every: Count = 250,
    keep_every: Count | None = None,
    device: str = "cpu",
    resume: Flag = False,
    plugin: Path | None = None,
    printing: Printing = TEXT,
) -> None:
    """Train a small language model of about one million parameters.

    Args:
        task: What to train on.
        mixer: Sequence mixer: sa, la, wla or gla (softmax, linear, weighted linear, gated linear attention), s6 or
            gla-s6 (state-space models), deltanet or gated-deltanet (delta rules), or a pattern such as gla,sa.
        output: Folder of the run.
        text: File to train on: UTF-8 text with blank lines between documents, or rows of JSON, JSONL or Parquet with a
            field "text". Default: the bundled documents, which are few.
        vocabulary: Tokens of the tokenizer, which is made from the text.
        steps: Optimizer steps.
        batch: Sequences in each optimizer step.
        length: Tokens in each sequence.
        rate: Peak learning rate.
        weight_decay: Weight decay of AdamW, on parameters of two or more dimensions.
        dropout: Dropout of the outputs of mixers and MLPs.
        seed: Seed of the initial weights, the batches and dropout.
        evaluate_every: Steps between held-out evaluations.
        checkpoint_every: Steps between checkpoints.
        keep_every: Keep a model in OUTPUT every this many steps, from step 0 on, for `statesize lab series`.
        device: Torch device, cpu or cuda.
        resume: Continue the run in OUTPUT. The final weights are those of a run without a stop.
        plugin: Python file that registers a mixer of your own.
        printing: What is printed.
    """
    import torch

    from statesize.cli.shared.printing import print_json
    from statesize.io.files import replace_file
    from statesize.lab.mixers.model import LanguageModel, ModelConfig
    from statesize.lab.registry import load_plugin
    from statesize.lab.tasks.text import TextTask, read_text, split, train_tokenizer
    from statesize.lab.training import RunFolder, TrainingConfig
    from statesize.lab.training import train as run
    from statesize.texts.bundled import TOKENIZER
    from statesize.texts.bundled import documents as bundled_documents

    del task
    if plugin is not None:
        load_plugin(plugin)
    config = TrainingConfig(
        steps=steps,
        batch_size=batch,
        rate=rate,
        weight_decay=weight_decay,
        seed=seed,
        evaluate_every=evaluate_every,
        checkpoint_every=checkpoint_every,
        device=device,
    )
    ModelConfig(mixer=mixer)  # which refuses an unknown name before the text is read
    corpus = split(bundled_documents()) if text is None else read_text(text)
    tokenizer = train_tokenizer(corpus.train, vocabulary)
    text_task = TextTask.from_corpus(corpus, tokenizer, length)
    shape = ModelConfig(mixer=mixer, vocabulary_size=text_task.vocabulary_size, dropout=dropout)
    model = LanguageModel(shape, torch.Generator().manual_seed(seed))
    folder = RunFolder(output, resume, keep_every)
    with Bar(f"train text {mixer}") as bar:
        held_out = ""
        for number, record in enumerate(run(model, text_task, config, folder=folder)):
            if number == 0:
                replace_file(output / TOKENIZER, tokenizer.to_str(pretty=True).encode())
                bar.keep(record.step - 1)
            if record.held_out is not None:
                held_out = "".join(f", held-out {figure} {value:.4f}" for figure, value in record.held_out.items())
            speed = record.tokens / record.seconds
            detail = f"step {record.step} of {steps}: loss {record.loss:.3f}, {speed:,.0f} tokens/s{held_out}"
            bar.update(record.step, steps, detail)
    report = {"mixer": mixer, "step": folder.best_step, **folder.best}
    if printing.json:
        print_json(report)
    else:
        print(f"The mixer {mixer} has its lowest held-out loss at step {folder.best_step} of {steps}.")
        for name, value in folder.best.items():
            print(f"{name.replace('_', ' ')}: {value:.4f}")
