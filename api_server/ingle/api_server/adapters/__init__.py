"""Implementations of the ports. An adapter never imports another; `main` wires them."""
