"""The language of --format."""

import pytest

from ingle.cli.jsonable import Json, Shape, shape_of
from ingle.cli.templates import parse
from ingle.v1 import operation_pb2, vm_pb2

SHAPE: Shape = {
    "name": "value",
    "created_at": "value",
    "size": "value",
    "on": "value",
    "names": "list",
    "labels": "map",
    "inner": {"deep": "value", "more": {"x": "value"}},
}
ITEM: Json = {
    "name": "web",
    "created_at": "2026-01-01T00:00:00Z",
    "size": 3,
    "on": True,
    "names": ["a", "b"],
    "labels": {"team": "shop", "a.b/c": "dots"},
    "inner": {"deep": None, "more": None},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.name}}", "web"),
        ("{{ .name }}/{{.size}}", "web/3"),
        ("{{.CreatedAt}}", "2026-01-01T00:00:00Z"),
        ("{{.on}}", "true"),
        (r"a\tb\n{{.name}}", "a\tb\nweb"),
        ("{{.names}}", '["a", "b"]'),
        ('{{join .names ", "}}', "a, b"),
        ('{{join .names "}}"}}', "a}}b"),
        ("{{index .names 1}}{{index .names 7}}", "b"),
        ("{{.labels.team}}{{.labels.ghost}}", "shop"),
        ('{{index .labels "a.b/c"}}', "dots"),
        ("{{len .names}}{{len .name}}{{len .labels}}", "232"),
        ("{{upper .name}}{{lower .CreatedAt}}", "WEB2026-01-01t00:00:00z"),
        ("{{json .name}}", '"web"'),
        ("{{json .inner}}", '{"deep": null, "more": null}'),
        ("{{.inner.deep}}{{.inner.more.x}}", ""),
    ],
)
def test_a_template_becomes_text(template: str, text: str) -> None:
    assert parse(template, SHAPE).render(ITEM) == text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{.nope}}", "there is no .nope; the fields of it: name, created_at"),
        ("{{.inner.nope}}", "the fields of .inner: deep, more"),
        ("{{.name.x}}", ".name is a value"),
        ("{{.names.x}}", ".names is a list: give json, join, len or index"),
        ("{{.labels.team.x}}", ".labels.team is a value"),
        ("{{.name", "braces"),
        ("name}}", "braces"),
        ("{{name}}", "{{name}}: give {{.FIELD}}"),
        ("{{range .names}}", "give {{.FIELD}}"),
        ("{{join .names}}", "give {{.FIELD}}"),
        ("{{}}", "give {{.FIELD}}"),
        ("{{.name .size}}", "give {{.FIELD}}"),
    ],
)
def test_what_is_no_template_is_refused_with_what_is(template: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse(template, SHAPE)
    assert said in str(refused.value)


def test_columns_are_between_tabs_and_named_for_their_fields() -> None:
    template = parse(r"{{.name}}\t{{.inner.deep}}\tx{{.created_at}}", SHAPE)
    assert template.headings() == ["NAME", "DEEP", "xCREATED AT"]
    assert template.cells(ITEM) == ["web", "", "x2026-01-01T00:00:00Z"]


def test_json_holds_nothing_that_a_terminal_obeys() -> None:
    assert parse("{{json .name}}", SHAPE).render({"name": "\x1b[2J\u202e"}) == '"\\u001b[2J\\u202e"'


@pytest.mark.parametrize("message", [vm_pb2.Vm, operation_pb2.Operation])
def test_every_field_of_a_message_can_be_named(message: "type[vm_pb2.Vm] | type[operation_pb2.Operation]") -> None:
    for field in message.DESCRIPTOR.fields:
        parse(f"{{{{.{field.name}}}}}", shape_of(message.DESCRIPTOR))
