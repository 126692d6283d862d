"""The controller's configuration: as the exporter's, with a prefix of its own. docs/controller.md has every setting."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from exporter.config import Address, Count, File, ListenAddress, Positive, Tls, expand_home

ENV_PREFIX = "AGENT_ONCALL_CONTROLLER_"

Action = Literal["breaker", "off", "prompt", "model", "provider", "rollout"]
ACTIONS: tuple[Action, ...] = ("breaker", "off", "prompt", "model", "provider", "rollout")


def _off(value: object) -> object:
    # A bare `off` is false in YAML.
    return "off" if value is False else value


Mode = Annotated[Literal["off", "dry-run", "confirm", "act"], BeforeValidator(_off)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Listener(_Strict):
    """Where the controller listens."""

    address: ListenAddress = Field(default=Address("127.0.0.1", 9465), description="HOST:PORT; port 0: any free one.")
    tls: Tls | None = None


class _ByAction(_Strict):
    @model_validator(mode="before")
    @classmethod
    def _off_as_a_key(cls, value: object) -> object:
        return (
            {"off" if key is False else key: given for key, given in value.items()}
            if isinstance(value, dict)
            else value
        )


class Modes(_ByAction):
    """What an alert's action may do by itself: nothing (`off`), be logged and counted (`dry-run`), wait for a person's
    word (`confirm`), or change the state (`act`)."""

    breaker: Mode = Field(default="dry-run", description="Open the circuit breaker (A1, A10).")
    off: Mode = Field(default="dry-run", description="Switch the agent off: over 30 % errors (A2).")
    prompt: Mode = Field(default="dry-run", description="The earlier prompt: success rate down by over 20 %.")
    model: Mode = Field(default="dry-run", description="The earlier model: cost per task over 3x.")
    provider: Mode = Field(default="dry-run", description="The backup provider: provider outage (A11).")
    rollout: Mode = Field(default="dry-run", description="All users back on stable.")


class AgentModes(_ByAction):
    """The same for one agent; what isn't given is as for every agent."""

    breaker: Mode | None = Field(default=None, description="As in `actions`.")
    off: Mode | None = Field(default=None, description="As in `actions`.")
    prompt: Mode | None = Field(default=None, description="As in `actions`.")
    model: Mode | None = Field(default=None, description="As in `actions`.")
    provider: Mode | None = Field(default=None, description="As in `actions`.")
    rollout: Mode | None = Field(default=None, description="As in `actions`.")


class PrometheusSettings(_Strict):
    """Where rollouts' figures come from, and whether loops agree with spending."""

    url: str | None = Field(
        default="http://127.0.0.1:9090", description="Prometheus, or Mimir's or Thanos' path; null: none is asked."
    )
    token_file: File | None = Field(default=None, description="Holds the bearer token it asks for.")
    ca_file: File | None = Field(default=None, description="Authority of its certificate, PEM.")


class GrafanaSettings(_Strict):
    """Where each change of the state becomes an annotation."""

    url: str | None = Field(default=None, description="Grafana, such as http://127.0.0.1:3000; unset: no annotations.")
    token_file: File | None = Field(default=None, description="Holds a service account's token that may annotate.")


class Settings(BaseSettings):
    """All settings. `exporter.config.load_as` makes one from the file, the environment and the command line."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=False
    )

    listen: Listener = Listener()
    state: Annotated[Path, BeforeValidator(expand_home)] = Field(
        default=Path("state/flags.json"), description="The state file; the audit log is beside it."
    )
    token_file: File = Field(description="Tokens that may send alerts and confirm actions, one a line.")
    state_token_file: File | None = Field(
        default=None, description="Tokens that may read GET /state, one a line; unset: those of token_file alone."
    )
    actions: Modes = Field(default=Modes(), description="What each action may do by itself.")
    agents: dict[str, AgentModes] = Field(default={}, description="The same for single agents, by name.")
    most_actions_per_hour: Count = Field(
        default=3, description="So many changes on alerts for one agent within an hour, then it is left to people."
    )
    breaker_needs_agreement: bool = Field(
        default=True,
        description="AgentCostAnomaly opens the breaker only while AgentRunawayLoop, looping tasks or agents' own "
        "breakers agree.",
    )
    confirm_minutes: Positive = Field(default=60, description="How long an action waits to be confirmed.")
    prometheus: PrometheusSettings = PrometheusSettings()
    verdict_seconds: Positive = Field(default=60, description="How often running rollouts are judged.")
    grafana: GrafanaSettings = GrafanaSettings()
    stop_seconds: Positive = Field(default=5, description="How long requests in flight may take when it stops.")

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

    def mode(self, agent: str, action: Action) -> str:
        """What `action` may do for `agent` by itself."""
        own = self.agents.get(agent)
        return str((getattr(own, action) if own else None) or getattr(self.actions, action))
