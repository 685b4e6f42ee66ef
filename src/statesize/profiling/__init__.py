"""A whole model, measured over inputs. Read `run`, then `gathering`, `sequences` and `measuring`."""

from statesize.profiling.gathering import Progress
from statesize.profiling.measuring import MOST_OPERATIONS
from statesize.profiling.plan import Plan, PlannedMixer, plan
from statesize.profiling.profile import Profile
from statesize.profiling.run import profile
from statesize.results.settings import TOLERANCE_LADDER

__all__ = ["MOST_OPERATIONS", "TOLERANCE_LADDER", "Plan", "PlannedMixer", "Profile", "Progress", "plan", "profile"]
