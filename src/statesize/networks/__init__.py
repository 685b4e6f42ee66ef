"""The ESS of a whole network: that of the Jacobian from past to future, for any module with derivatives.

Read span, jacobian and network in this order.
"""

from statesize.networks.network import NetworkEss, network_ess
from statesize.networks.plan import network_plan
from statesize.networks.redundancy import redundancy
from statesize.report.redundancy import Redundancy

__all__ = ["NetworkEss", "Redundancy", "network_ess", "network_plan", "redundancy"]
__dir__ = __all__.copy
