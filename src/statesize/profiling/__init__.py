"""A whole model, measured over inputs. Read `run`, then `profile_run`, `sequences` and `work`."""

from statesize.measurement.settings import TOLERANCE_LADDER
from statesize.parallel.ray import RayCluster
from statesize.profiling.profile import Profile
from statesize.profiling.profile_run import ProfileProgress
from statesize.profiling.run import profile
from statesize.profiling.work import MOST_OPERATIONS

__all__ = ["MOST_OPERATIONS", "TOLERANCE_LADDER", "Profile", "ProfileProgress", "RayCluster", "profile"]
