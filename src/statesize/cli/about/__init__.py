"""Commands that say what there is: engines, models, this machine, and completion for shells."""
