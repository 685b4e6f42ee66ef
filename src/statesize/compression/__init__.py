"""Models with smaller states: what is cut after training, what that costs on held-out text, and what recall loses.

Read `gramians`, `bases` and `sizes` for which states go, `shrinking` for the model that is left, `scoring` for
what it lost, and `compress` for the whole.
"""
