"""Work in this process, in others on this machine, or on Ray: tasks in, outcomes out as they come."""
