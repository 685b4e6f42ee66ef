"""The ESS of a whole network: that of the Jacobian from past to future, for any module with derivatives.

Read span, jacobian and network in this order.
"""

from statesize.network.network import NetworkEss, network_ess
from statesize.network.plan import NetworkPlan, network_plan
from statesize.network.redundancy import redundancy
from statesize.report.redundancy import Redundancy

__all__ = ["NetworkEss", "NetworkPlan", "Redundancy", "network_ess", "network_plan", "redundancy"]
