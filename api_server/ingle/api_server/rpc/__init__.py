"""gRPC: thin servicers, and the one place where protos become model values and back. Never imports adapters."""
