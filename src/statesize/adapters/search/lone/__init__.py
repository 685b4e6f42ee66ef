"""A module run alone with other numbers.

Read `other_inputs` (what it is asked with), `transposed` (where positions lie if shapes do not tell), `runs` (its
tensors kept or replaced), `mixing` (whether it mixes positions).
"""
