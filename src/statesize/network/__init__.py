"""The ESS of a whole network: of the Jacobian from past to future, for any module with derivatives.

Read span, jacobian, result and network in this order.
"""
