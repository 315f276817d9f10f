"""The operating system: processes, files, tools. Knows nothing of ours but model.errors."""
