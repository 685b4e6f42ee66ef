"""Executors: in this process, with its threads, in other processes of this machine, and on Ray."""
