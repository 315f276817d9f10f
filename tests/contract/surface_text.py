"""The gRPC surface as text that a person can review: services, messages, numbers and enums, one a line.

    python -m tests.contract.surface_text >tests/contract/surface.golden

accepts what proto/gen has now (`make surface-accept`)."""

import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

PACKAGES = ("ingle.v1", "ingle.helper.v1", "ingle.agent.v1")


def compiled_files() -> list[FileDescriptorProto]:
    """Every file of PACKAGES as the generated code describes it."""
    files = []
    for package in PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if module.name.endswith("_pb2"):
                file = FileDescriptorProto()
                importlib.import_module(f"{package}.{module.name}").DESCRIPTOR.CopyToProto(file)
                files.append(file)
    return files


def render(files: Iterable[FileDescriptorProto]) -> str:
    """The surface of `files`, in an order that does not depend on theirs."""
    return "".join(f"{line}\n" for file in sorted(files, key=lambda file: file.name) for line in _file(file))


def _file(file: FileDescriptorProto) -> Iterator[str]:
    yield f"# {file.name}"
    for service in file.service:
        yield from _service(file.package, service)
    for message in file.message_type:
        yield from _message(file.package, message)
    for enum in file.enum_type:
        yield from _enum(file.package, enum)
    yield ""


def _service(package: str, service: ServiceDescriptorProto) -> Iterator[str]:
    yield f"service {package}.{service.name}"
    yield from (f"  {_method(method)}" for method in service.method)


def _method(method: MethodDescriptorProto) -> str:
    taken = ("stream " if method.client_streaming else "") + method.input_type.lstrip(".")
    given = ("stream " if method.server_streaming else "") + method.output_type.lstrip(".")
    return f"{method.name}({taken}) -> {given}"


def _message(scope: str, message: DescriptorProto) -> Iterator[str]:
    name = f"{scope}.{message.name}"
    maps = {f".{name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    yield f"message {name}"
    for field in sorted(message.field, key=lambda field: field.number):
        yield f"  {field.number:>2} {field.name}: {_field_type(field, message, maps)}"
    for reserved in message.reserved_range:
        yield f"  reserved {reserved.start} to {reserved.end - 1}"
    for nested in message.nested_type:
        if not nested.options.map_entry:
            yield from _message(name, nested)
    for enum in message.enum_type:
        yield from _enum(name, enum)


def _field_type(field: FieldDescriptorProto, message: DescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    if field.type_name in maps:
        key, value = maps[field.type_name].field
        return f"map<{_plain_type(key)}, {_plain_type(value)}>"
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {_plain_type(field)}"
    if field.proto3_optional:
        return f"optional {_plain_type(field)}"
    if field.HasField("oneof_index"):
        return f"{_plain_type(field)}, one of {message.oneof_decl[field.oneof_index].name}"
    return _plain_type(field)


def _plain_type(field: FieldDescriptorProto) -> str:
    return field.type_name.lstrip(".") or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _enum(scope: str, enum: EnumDescriptorProto) -> Iterator[str]:
    yield f"enum {scope}.{enum.name}"
    yield from (f"  {value.number:>2} {value.name}" for value in enum.value)


if __name__ == "__main__":
    sys.stdout.write(render(compiled_files()))
