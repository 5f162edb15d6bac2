"""The gateway's configuration: one YAML file, every field typed, bounded and explained.

Unknown and repeated keys are refused; an error names the field, the line and the column.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tinyllava_edge.errors import ConfigError

MAX_FILE_BYTES = 1 << 20
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}\z")]


def _check_topic(topic: str, *, wildcards: bool) -> str:
    levels = topic.split("/")
    if not topic or len(topic) > 512 or "\0" in topic or topic.startswith("$"):
        raise ValueError("no MQTT topic")
    if not wildcards and ("+" in topic or "#" in topic):
        raise ValueError("wildcards + and # are not allowed here")
    if any("+" in level and level != "+" for level in levels) or "#" in "".join(
        [*levels[:-1], levels[-1] if levels[-1] != "#" else ""]
    ):
        raise ValueError("+ stands for a whole level, # for the last one")
    return topic


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TlsSettings(_Settings):
    """Encrypted connection to the broker; an empty section uses the system's authorities."""

    ca_file: Path | None = Field(None, description="authorities to trust instead of the system's")
    cert_file: Path | None = Field(None, description="this gateway's certificate")
    key_file: Path | None = Field(None, description="the certificate's private key")


class MqttSettings(_Settings):
    """Where the broker is and how to speak to it."""

    host: str = Field("localhost", min_length=1)
    port: int = Field(1883, ge=1, le=65535)
    username: str | None = None
    password_env: str | None = Field(
        None, description="name of the environment variable that holds the password"
    )
    client_id: str | None = Field(None, description="default: tinyllava-<gateway>")
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="auto tries MQTT 5 and falls back to 3.1.1"
    )
    keepalive_s: int = Field(30, ge=5, le=3600)
    tls: TlsSettings | None = None

    @field_validator("protocol", mode="before")
    @classmethod
    def _numbers_are_fine(cls, value: object) -> object:
        return str(value) if isinstance(value, int | float) else value


class CameraSettings(_Settings):
    """A camera; its frames are raw JPEG, PNG or WebP payloads."""

    topic: str | None = Field(None, description="default: <base>/camera/<name>/frame")

    @field_validator("topic")
    @classmethod
    def _topic(cls, topic: str | None) -> str | None:
        return topic if topic is None else _check_topic(topic, wildcards=True)


class SensorSettings(_Settings):
    """A sensor; its payload is a number, a text, or JSON."""

    topic: str | None = Field(None, description="default: <base>/sensor/<name>")
    unit: str = Field("", max_length=16, description="written behind the value in the prompt")
    pointer: str | None = Field(
        None, pattern=r"^(/.*)?$", description="JSON pointer to the value, such as /temperature"
    )
    stale_after_s: float = Field(60.0, gt=0, description="older readings are shown as stale")

    @field_validator("topic")
    @classmethod
    def _topic(cls, topic: str | None) -> str | None:
        return topic if topic is None else _check_topic(topic, wildcards=True)


class LimitSettings(_Settings):
    """What the outside may cost. Everything that waits or is kept is bounded here."""

    queue: int = Field(64, ge=1, le=10_000, description="asks that may wait for the model")
    inbox: int = Field(256, ge=8, le=100_000, description="messages that may wait to be read")
    inbox_bytes: int = Field(64 << 20, ge=1 << 16, le=1 << 32, description="their bytes in all")
    group: int = Field(8, ge=1, le=64, description="asks on one frame answered together")
    questions: int = Field(16, ge=1, le=64, description="questions in one ask")
    picture_bytes: int = Field(8 << 20, ge=1024, le=64 << 20)
    picture_pixels: int = Field(32 << 20, ge=1024, le=256 << 20)
    cameras: int = Field(16, ge=1, le=1000, description="cameras taken where none is configured")
    sensors: int = Field(64, ge=1, le=10_000, description="sensors taken where none is configured")
    remembered_answers: int = Field(
        1024, ge=1, le=100_000, description="answers kept so that a repeated id costs nothing"
    )
    outbox: int = Field(
        1024, ge=8, le=100_000, description="answers that may wait for the broker to confirm them"
    )
    reply_prefixes: tuple[str, ...] = Field(
        ("tinyllava/",), description="topics a reply_to may start with, besides the base topic"
    )


class GatewayConfig(_Settings):
    """The whole file."""

    gateway: Name = Field("gateway", description="this gateway's name, a topic level")
    base_topic: str = Field("", description="default: tinyllava/<gateway>", validate_default=False)
    bundle: str = Field("demo", description="bundle folder, or the word demo for the shipped one")
    threads: int | None = Field(None, ge=1, le=256, description="default: chosen by the engine")
    gpu_layers: int = Field(0, ge=-1, description="layers on the GPU; -1 for all")
    mqtt: MqttSettings = MqttSettings()
    cameras: dict[Name, CameraSettings] = Field(
        default_factory=dict, description="empty: any <base>/camera/<name>/frame is taken"
    )
    sensors: dict[Name, SensorSettings] = Field(
        default_factory=dict, description="empty: any <base>/sensor/<name> is taken"
    )
    limits: LimitSettings = LimitSettings()
    health_s: float = Field(10.0, ge=0.1, le=3600, description="seconds between health messages")
    self_test_s: float = Field(
        30.0, ge=0.1, le=3600, description="idle seconds after which the model is tried"
    )
    online_within_s: float = Field(
        120.0, ge=1, le=86400, description="status goes offline after so long without an inference"
    )
    drain_s: float = Field(10.0, ge=0, le=600, description="time to finish asks when stopping")

    @field_validator("base_topic")
    @classmethod
    def _base_topic(cls, topic: str) -> str:
        return _check_topic(topic.rstrip("/"), wildcards=False) if topic else ""

    @field_validator("cameras", "sensors", mode="before")
    @classmethod
    def _bare_names(cls, value: object) -> object:
        """``porch:`` with nothing behind it is a camera with every default."""
        if isinstance(value, dict):
            return {name: {} if form is None else form for name, form in value.items()}
        return value

    @model_validator(mode="after")
    def _password_needs_name(self) -> GatewayConfig:
        if self.mqtt.password_env and not self.mqtt.username:
            raise ValueError("mqtt.password_env is given without mqtt.username")
        return self

    @property
    def base(self) -> str:
        """The topic that everything of this gateway stands under."""
        return self.base_topic or f"tinyllava/{self.gateway}"


def load_config(path: Path) -> GatewayConfig:
    """Read a configuration file; a relative ``bundle`` is taken from the file's folder.

    Raises ``ConfigError`` in one line: file, line, column, field, what is wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check --config") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: {len(data)} bytes, the limit is {MAX_FILE_BYTES}")
    config = parse_config(data, str(path))
    if config.bundle == "demo" or Path(config.bundle).is_absolute():
        return config
    return config.model_copy(update={"bundle": str(path.parent / config.bundle)})


def parse_config(data: bytes, name: str) -> GatewayConfig:
    """Read configuration text; ``name`` stands for the file in messages."""
    try:
        root = yaml.compose(data, Loader=yaml.SafeLoader)
        _refuse_repeated_keys(root, name)
        values = yaml.safe_load(data)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{name}{_at(error.problem_mark)}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{name}: no YAML ({' '.join(str(error).split())[:120]})") from None
    try:
        return GatewayConfig.model_validate({} if values is None else values)
    except ValidationError as error:
        raise ConfigError(_describe(error, root, name)) from None


def _describe(error: ValidationError, root: yaml.Node | None, name: str) -> str:
    first = error.errors(include_url=False)[0]
    location = [part for part in first["loc"] if part != "[key]"]
    where = ".".join(str(part) for part in location)
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        text = "unknown key; see docs/gateway.md for the keys there are"
    elif isinstance(first.get("input"), str | int | float):
        text += f" (got {str(first['input'])[:60]!r})"
    return f"{name}{_at(_mark(root, location))}: {where or 'file'}: {text}"


def _mark(root: yaml.Node | None, location: list[Any]) -> yaml.Mark | None:
    """Where in the text a field stands: the deepest part of its path that exists."""
    node = root
    mark = root.start_mark if root else None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pairs = {key.value: (key, value) for key, value in node.value}
            if str(part) not in pairs:
                break
            key, node = pairs[str(part)]
            mark = key.start_mark
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            mark = node.start_mark if node else mark
    return mark


def _refuse_repeated_keys(node: yaml.Node | None, name: str, done: set[int] | None = None) -> None:
    """YAML keeps the last of two equal keys without a word; a typing slip should not win.

    Aliases make one node a child of many: each is visited once.
    """
    done = set() if done is None else done
    if id(node) in done:
        return
    done.add(id(node))
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen if isinstance(key.value, str) else False:
                raise ConfigError(f"{name}{_at(key.start_mark)}: key {key.value!r} is given twice")
            seen.add(str(key.value))
            children.append(value)
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    for child in children:
        _refuse_repeated_keys(child, name, done)


def _at(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f":{mark.line + 1}:{mark.column + 1}"
