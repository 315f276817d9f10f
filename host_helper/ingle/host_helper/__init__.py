"""ingle's root helper: the only code of ingle that runs as root, and as little of it as possible.

It takes ids, slots and numbers and derives every name itself; it makes only what its policy admits, journals it before,
and never touches what it did not make.
"""
