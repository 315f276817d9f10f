"""What can be done: which steps, in which order. Nothing here knows gRPC, SQLite or QEMU."""
