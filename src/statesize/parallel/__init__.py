"""Executors in this process, in other processes of this machine, and on Ray; threads within a process."""
