"""Settings that hold for every test: one torch thread, and how hard hypothesis tries."""

import os

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# A deadline would assert a time, and the first example of many pays for torch's own start.
settings.register_profile("dev", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.register_profile("large", settings.get_profile("dev"), max_examples=1000)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
