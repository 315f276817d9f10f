"""The system install: which files it consists of, what is there of them, and how they get there and away."""
