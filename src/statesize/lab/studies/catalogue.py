"""All studies: commands, conclusions and pages follow from this list.

The command line reads this file whenever it starts, so a study is imported when it is done.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statesize.lab.studies.engine.study import Study

QUESTIONS = {
    "correlation": "Train a grid of small models: does accuracy go with ESS/kv, and more than with TSS/kv, also where "
    "runs differ in their seed only?",
    "crossover": "Meet full states and idle ones with a larger state and with gates that start more open: which remedy "
    "helps which?",
    "delimiters": "Measure how ESS dips at the delimiters of a text, and at the same places of controls without them.",
    "distillation": "Teach students with less state: does the teacher's ESS predict their error, and what does a byte "
    "buy?",
    "hybrids": "Place attention layers among gated ones in every way: which place wins, and does ESS show it early?",
    "initialisation": "Start the decays of S6 and GLA-S6 with and without the normalisation factor: what does ESS gain "
    "as states grow, and what accuracy?",
    "rank": "Train sixteen update rules in one shell: does recall go with ESS, or with the rank of the state, and what "
    "does a cut of either lose?",
    "recall": "Measure the perplexity of models on repeated bigrams: does it go with ESS, or its dip at delimiters?",
    "regimes": "Train mixers with equal state sizes on harder and harder tasks: which fill their state, and which "
    "leave it idle?",
    "regularisation": "Keep decays near 1, or ESS near a target, by a term in the loss: what do accuracy and ESS of "
    "gated mixers gain?",
    "variation": "Compare operators that are the same at every input with such that vary, at equal TSS: what do recall "
    "and compression gain?",
}
"""What each study asks, by its name, which is that of its module."""


def load_study(name: str) -> Study:
    """A study by its name."""
    return import_module(f"statesize.lab.studies.{name}").STUDY
