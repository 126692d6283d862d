"""The exporter's configuration: one YAML file, environment variables, and what the command line says.

Command line over environment over file over defaults. Unknown keys and bad values are refused at start, each with its
full name. Tokens and private keys are never values here, only the files that hold them.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from exporter.measures import MAX_VALUES

ENV_PREFIX = "AGENT_ONCALL_"
EVERY_AGENT = "*"
EVERY_TASK_TYPE = "*"

# What Kubernetes puts into every pod beside a Service named "agent-oncall": not ours, and not a mistake of the user's.
_KUBERNETES = re.compile(ENV_PREFIX + r"(SERVICE_(HOST|PORT.*)|PORT(_.*)?)$")


class ConfigError(Exception):
    """The configuration can't be used. The text names each key, its value (unless it may be secret) and the remedy."""


class Address(NamedTuple):
    """Where a listener listens. Port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(value: object) -> Address:
    """`HOST:PORT` or `[IPV6]:PORT`. ValueError says what is wrong with it."""
    if isinstance(value, Address):
        return value
    host, colon, port = str(value).rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("an address is HOST:PORT with a port from 0 to 65535, such as 127.0.0.1:4317")
    if not host:
        raise ValueError(f"an address needs a host: 127.0.0.1:{port}, or 0.0.0.0:{port} for every network interface")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"an IPv6 address stands in brackets: [{host}]:{port}")
    return Address(host, int(port))


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


def expand_home(value: object) -> object:
    return os.path.expanduser(value) if isinstance(value, str) else value


def _readable(value: Path) -> Path:
    if not value.is_file():
        raise ValueError("no such file")
    if not os.access(value, os.R_OK):
        raise ValueError("the file can't be read by this user")
    return value


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float | bool):
        raise ValueError("a text, a number, true or false is needed")
    return value


Number = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Count = Annotated[int, BeforeValidator(_not_bool), Field(ge=1)]
Size = Annotated[ByteSize, BeforeValidator(_not_bool), Field(ge=1024)]
ListenAddress = Annotated[Address, PlainValidator(parse_address), NoDecode]
File = Annotated[Path, BeforeValidator(expand_home), AfterValidator(_readable)]
Scalar = Annotated[str | int | float | bool, BeforeValidator(_scalar)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AgentLimits(_Strict):
    """What is normal for an agent. Under `agents`, `*` sets the defaults; an agent's own name overrides them."""

    give_up_seconds: Positive = Field(default=1800, description="A task without a span for so long is never_finished.")
    loop_failing_iterations: Count = Field(
        default=3, description="Looping (failing_tool): calls of one tool failed in so many iterations in a row."
    )
    loop_repeat_iterations: Count = Field(
        default=3,
        ge=2,
        description="Looping (repeat): the same call with the same arguments in so many iterations in a row.",
    )
    loop_iterations: Count = Field(default=25, description="Looping (iterations): more iterations than this, and ...")
    loop_iterations_factor: Positive = Field(default=3, description="... more than this times the agent's own P99.")
    polling_tools: list[str] = Field(default=[], description="Tools that may repeat one call: they poll.")
    default_model: str = Field(default="", description="The model of LLM calls whose spans name none; empty: unknown.")
    task_deadline_seconds: Positive | None = Field(
        default=None, description="A task that ran longer when it ended is abandoned (timeout); unset: the spans tell."
    )


class Condition(_Strict):
    """A condition on one attribute of the task's span: exactly one of the comparisons is given."""

    attribute: str = Field(min_length=1, description="Name of the attribute.")
    equals: Scalar | None = Field(default=None, description="Its value is this one.")
    not_equals: Scalar | None = Field(default=None, description="It is there, with another value.")
    at_least: Number | None = Field(default=None, description="Its number is this or more.")
    at_most: Number | None = Field(default=None, description="Its number is this or less.")
    one_of: Annotated[list[Scalar], Field(min_length=1)] | None = Field(
        default=None, description="Its value is one of these."
    )
    exists: bool | None = Field(default=None, description="true: it is there; false: it is not.")

    @model_validator(mode="after")
    def _one_comparison(self) -> Self:
        comparisons = [name for name in type(self).model_fields if name != "attribute"]
        if sum(getattr(self, name) is not None for name in comparisons) != 1:
            raise ValueError(f"a condition has exactly one of {', '.join(comparisons)}")
        return self


class Tls(_Strict):
    """TLS on a listener; with `client_ca_file` a client has to show a certificate of that authority."""

    certificate_file: File = Field(description="The server's certificate chain, PEM.")
    key_file: File = Field(description="Its private key, PEM.")
    client_ca_file: File | None = Field(default=None, description="Clients need a certificate of this authority, PEM.")


class GrpcListener(_Strict):
    """The listener for OTLP/gRPC."""

    address: ListenAddress = Field(default=Address("127.0.0.1", 4317), description="HOST:PORT; port 0: any free one.")
    tls: Tls | None = None


class HttpListener(_Strict):
    """The listener for OTLP/HTTP."""

    address: ListenAddress = Field(default=Address("127.0.0.1", 4318), description="HOST:PORT; port 0: any free one.")
    tls: Tls | None = None


class MetricsListener(_Strict):
    """The listener for Prometheus and for people."""

    address: ListenAddress = Field(default=Address("127.0.0.1", 9464), description="HOST:PORT; port 0: any free one.")
    tls: Tls | None = None
    token_file: File | None = Field(
        default=None, description="/metrics and the landing page need a token of this file."
    )


class Sender(_Strict):
    """Who may send: the tokens of one file, and the agents that they speak for."""

    token_file: File = Field(description="One token a line; more than one while tokens are changed over.")
    agents: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None, description="Agents whose spans these tokens may send; unset: any."
    )


class RequestLimits(_Strict):
    """What one sender, and all of them together, can make a receiver hold."""

    max_body_bytes: Size = Field(
        default=ByteSize(16 * 1024 * 1024),
        description="Largest request, as received and as unpacked. 16 MiB: a Collector's batch of 8,192 spans of 2 KB, "
        "or an SDK's batch of 512 spans with prompts of 32 KB.",
    )
    max_in_flight_bytes: Size = Field(
        default=ByteSize(256 * 1024 * 1024),
        description="Most bytes of unanswered requests, for each receiver. More has to come again. gRPC doesn't tell "
        "a request's size beforehand, so there each counts as max_body_bytes.",
    )
    body_seconds: Positive = Field(default=15, description="A request has to have arrived so long after its headers.")
    queue_seconds: Positive = Field(
        default=5, description="A gRPC request waits so long for room before it has to come again."
    )
    idle_seconds: Positive = Field(
        default=120, description="A connection without a (whole) request for so long is closed."
    )
    max_connections: Count = Field(default=1000, description="Most open connections, for each listener.")

    @model_validator(mode="after")
    def _room_for_one(self) -> Self:
        if self.max_in_flight_bytes < self.max_body_bytes:
            raise ValueError("max_in_flight_bytes has to be max_body_bytes or more, or no large request gets in")
        return self


class Settings(BaseSettings):
    """All settings. `load` makes one from the file, the environment and the command line."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=False
    )

    otlp_grpc: GrpcListener = GrpcListener()
    otlp_http: HttpListener = HttpListener()
    metrics: MetricsListener = MetricsListener()
    senders: list[Sender] = Field(default=[], description="Who may send; empty: whoever reaches the receivers.")
    requests: RequestLimits = RequestLimits()
    stop_seconds: Positive = Field(
        default=5, description="How long requests in flight may take when the exporter stops."
    )
    journal: Annotated[Path, BeforeValidator(expand_home)] | None = Field(
        default=None, description="Directory that keeps what was counted over a restart; unset: in memory."
    )
    checkpoint_seconds: Positive = Field(
        default=60,
        description="How often the state is written into the journal: a restart goes through what came after.",
    )
    checkpoint_bytes: Size = Field(
        default=ByteSize(64 * 1024 * 1024), description="... and earlier, when so much has come since the last time."
    )

    agent_names: dict[str, str] = Field(default={}, description="service.name -> agent, where the spans name no agent.")
    price_file: File | None = Field(default=None, description="Prices of your own; they win over the built-in ones.")
    cost_cap_usd: Positive = Field(default=1000, description="task.cost_usd is believed from 0 to this.")
    max_values: dict[str, Count] = Field(
        default=MAX_VALUES, description="Most values a label takes; what is over is counted under `other`."
    )
    seen_hours: Positive = Field(default=24, description="A span sent again within so long is counted once ...")
    seen_spans: Count = Field(default=5_000_000, description="... as long as it is among so many latest spans.")
    remembered_hours: Positive = Field(
        default=24, description="A score finds its task so long after the task's end ..."
    )
    remembered_tasks: Count = Field(default=200_000, description="... as long as it is among so many latest tasks.")
    max_spans_per_task: Count = Field(default=50_000, description="Spans of a task that are tracked one by one.")
    max_spans_in_flight: Count = Field(
        default=1_000_000,
        description="Spans in memory of traces that are not over, some 700 bytes each; over it, the oldest trace goes.",
    )
    max_traces: Count = Field(default=200_000, description="Traces in memory at once.")
    rollout_hours: Positive = Field(
        default=48, description="The series of a rollout are dropped when it was not heard of for so long."
    )
    parent_grace_seconds: Number = Field(
        default=10, ge=0, description="How long a span's missing remote parent is waited for."
    )
    bare_calls_are_tasks: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="LLM calls outside any agent span: tasks of their own always, never, or (auto) only for a service "
        "that never sent an agent span.",
    )
    agents: dict[str, AgentLimits] = Field(
        default={},
        description="Limits by agent; `*` sets the defaults, an agent's own entry overrides them key by key.",
    )
    success: dict[str, list[Condition]] = Field(
        default={},
        description="When a task counts as success, by task type (`*`: any): all conditions on its span hold.",
    )

    @field_validator("max_values", mode="after")
    @classmethod
    def _known_labels(cls, value: dict[str, int]) -> dict[str, int]:
        for label in value:
            if label not in MAX_VALUES:
                raise ValueError(f"no limit for a label {label!r}: there are {', '.join(MAX_VALUES)}")
        return {**MAX_VALUES, **value}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls)

    @cached_property
    def _limits(self) -> dict[str, AgentLimits]:
        return {}

    def limits(self, agent: str) -> AgentLimits:
        """The limits of `agent`: its own entry over that of `*` over the defaults, key by key."""
        if agent not in self.agents:
            agent = EVERY_AGENT  # agents' names are the senders' to choose: no entry for each
        found = self._limits.get(agent)
        if found is None:
            given: dict[str, Any] = {}
            for key in (EVERY_AGENT, agent):
                if key in self.agents:
                    given |= self.agents[key].model_dump(exclude_unset=True)
            found = self._limits[agent] = AgentLimits(**given)
        return found


def load(config_file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings; `overrides` (nested like the file) is the command line's. ConfigError tells all that is wrong."""
    return load_as(Settings, config_file, overrides)


_Model = TypeVar("_Model", bound=BaseSettings)


def load_as(model: type[_Model], config_file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> _Model:
    """The settings of a process, whose `model` says the environment's prefix; see load()."""
    overrides = overrides or {}
    from_file = _read(config_file) if config_file else {}
    config = SettingsConfigDict(yaml_file=config_file, yaml_file_encoding="utf-8")
    from_somewhere: type[_Model] = type(model.__name__, (model,), {"model_config": config, "__module__": __name__})
    prefix = model.model_config.get("env_prefix", "")
    try:
        return from_somewhere(**overrides)
    except ValidationError as invalid:
        lines = [
            _explain(error, model, overrides, from_file, config_file) for error in invalid.errors(include_url=False)
        ]
        raise ConfigError("\n".join(lines)) from None
    except SettingsError as invalid:
        key = re.search(r'field "(\w+)"', str(invalid))
        name = f"{prefix}{key[1].upper()}" if key else f"a variable {prefix}*"
        raise ConfigError(f"{name}: has to be JSON, or use one variable per key, joined by __") from None


def unknown_variables(environment: Mapping[str, str], model: type[BaseSettings] = Settings) -> list[str]:
    """Names of variables with our prefix that set nothing: a typing mistake, or another program's.

    They are not refused, since Kubernetes and other programs may name variables like that.
    """
    prefix = model.model_config.get("env_prefix", "")
    keys = {name.upper() for name in model.model_fields}
    return sorted(
        name
        for name in environment
        if name.upper().startswith(prefix)
        and name.upper().removeprefix(prefix).split("__")[0] not in keys
        and not _KUBERNETES.match(name)
    )


@dataclass(frozen=True, slots=True)
class Key:
    """One setting by its full name, such as `metrics.tls.key_file`; `NAME` stands for a key that the user chooses."""

    name: str
    default: object
    description: str


def keys(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Key]:
    """Every setting that holds a value."""
    for name, field in model.model_fields.items():
        full = f"{prefix}{name}"
        inner, chosen = _inner_model(field.annotation)
        if inner is None or field.description:
            yield Key(full, ... if field.is_required() else field.default, field.description or "")
        if inner is not None:
            yield from keys(inner, f"{full}.NAME." if chosen else f"{full}.")


def _inner_model(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in getattr(annotation, "__args__", ()):
        inner, chosen = _inner_model(argument)
        if inner is not None:
            return inner, chosen or getattr(annotation, "__origin__", None) is dict
    return None, False


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--config {path}: not a text in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"--config {path}{where}: not YAML: {getattr(error, 'problem', error)}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"--config {path}: has to be a mapping of keys to values, such as `journal: DIR`")
    return content


def _explain(
    error: Any,
    model: type[BaseSettings],
    overrides: Mapping[str, Any],
    from_file: Mapping[str, Any],
    config_file: Path | None,
) -> str:
    where = _whence(error["loc"], model.model_config.get("env_prefix", ""), overrides, from_file, config_file)
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(
            re.sub(r"(?<=agents\.)[^.]+", "NAME", name), [key.name for key in keys(model)], n=1
        )
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{name}{where}: unknown key{hint}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{name}{where}: has to be given"
    # A token or a key pasted where its file is asked for must not reach a log.
    secret = any(part in name for part in ("token", "key_file"))
    value = "" if secret or isinstance(error["input"], dict) else f" = {error['input']!r}"
    return f"{name}{value}{where}: {message}"


def _whence(
    loc: tuple[str | int, ...],
    prefix: str,
    overrides: Mapping[str, Any],
    from_file: Mapping[str, Any],
    config_file: Path | None,
) -> str:
    if _has(overrides, loc):
        return f" (--{str(loc[0]).replace('_', '-')})"
    variable = prefix + "__".join(str(part) for part in loc).upper()
    for name in os.environ:
        if variable.startswith(name.upper()) and name.upper().startswith(prefix):
            return f" ({name})"
    return f" ({config_file})" if config_file and str(loc[0]) in from_file else ""


def _has(content: Any, loc: tuple[str | int, ...]) -> bool:
    for part in loc:
        if not isinstance(content, Mapping) or part not in content:
            return False
        content = content[part]
    return True
