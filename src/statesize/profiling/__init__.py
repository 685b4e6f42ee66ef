"""A whole model, measured over inputs."""

from statesize.profiling.profile import Profile
from statesize.profiling.run import Progress, profile

__all__ = ["Profile", "Progress", "profile"]
