"""The unprivileged gRPC server: it holds state, runs the start-step pipeline and starts the VMMs."""
