"""Settings that hold for every test: one torch thread, interrupts, and how hard hypothesis tries."""

import os
import signal

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# A shell that runs the tests in the background ignores interrupts for them, and children would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline would assert a time, and the first example of many pays for torch's own start.
settings.register_profile("dev", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.register_profile("large", settings.get_profile("dev"), max_examples=1000)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
