"""The command line: a client of the API like any other. It knows the generated protos and nothing of the server."""
