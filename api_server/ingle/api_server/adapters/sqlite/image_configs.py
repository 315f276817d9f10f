"""What an image from a registry says of how it is to be run, as the JSON of one column; of other images it is empty."""

import json
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from ingle.api_server.model.image_config import Healthcheck, ImageConfig


def encoded(config: ImageConfig | None) -> str:
    """The column."""
    if config is None:
        return ""
    # asdict would copy the labels, which a proxy does not let it.
    known = {name: getattr(config, name) for name in ImageConfig.__slots__ if name not in {"labels", "healthcheck"}}
    health = None if config.healthcheck is None else asdict(config.healthcheck)
    return json.dumps({**known, "labels": dict(config.labels), "healthcheck": health}, ensure_ascii=False)


def decoded(column: str) -> ImageConfig | None:
    """What is in a column."""
    if not column:
        return None
    said = json.loads(column)
    health = said.pop("healthcheck")
    labels = MappingProxyType(said.pop("labels"))
    checked = None if health is None else Healthcheck(**{**health, "test": tuple(health["test"])})
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    return ImageConfig(**plain, labels=labels, healthcheck=checked)
