"""Random calls on operators, each judged by the definition in 80 bits."""
