"""The domain: frozen dataclasses, the VM state machine, ids and errors. No I/O, no imports of ours."""
