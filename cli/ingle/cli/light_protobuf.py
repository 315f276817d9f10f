"""Imported before protobuf, this spares us what it has beside its implementation in C: the same once more in Python.

protobuf imports both, whichever it uses, and a short command spends a twentieth of its time on the one that it never
asks for anything. Should that be asked all the same, it is loaded then: the recipe of importlib's documentation."""

import sys
from importlib import import_module
from importlib.util import LazyLoader, find_spec, module_from_spec

_PACKAGE, _NAME = "google.protobuf.internal", "python_message"


def _load_when_used() -> None:
    spec = find_spec(f"{_PACKAGE}.{_NAME}")
    if spec is None or spec.loader is None or spec.name in sys.modules:
        return
    spec.loader = LazyLoader(spec.loader)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    setattr(import_module(_PACKAGE), _NAME, module)  # where `from package import name` looks first


_load_when_used()
