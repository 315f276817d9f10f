"""The domain: frozen dataclasses, the VM state machine, ids and errors. No I/O, and no imports of ours from elsewhere."""
