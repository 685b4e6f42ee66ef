"""The ESS of a whole network: that of the Jacobian from past to future, for any module with derivatives.

Read span, jacobian and network in this order.
"""
