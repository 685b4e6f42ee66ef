"""The tasks of mad-lab, whose arrays are those that its own generators return for the same seed.

Read `task`, then one of the tasks. Poli et al., "Mechanistic design and scaling of hybrid architectures" (MAD), 2024,
appendix B, and the functions of mad/data/instances.py in the repository athms/mad-lab.
"""
