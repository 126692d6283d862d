"""A span as the simulator makes it: plain data, with nothing of OTLP or of the SDK in it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

Value = str | bool | int | float

# Attributes an agent on the bare base schema does not set (SPEC section 4 calls them optional).
OPTIONAL = frozenset(
    {
        "task.success",
        "task.confidence",
        "tool.confidence",
        "tool.result",
        "tool.args_hash",
        "iteration.model",
        "iteration.purpose",
        "iteration.ttft_ms",
    }
)


@dataclass(frozen=True, slots=True)
class Span:
    """One ended span. Times are seconds since the epoch; `parent_id` is 0 for a root; `error` is a text or ""."""

    agent: str
    name: str
    trace_id: int
    span_id: int
    parent_id: int
    start: float
    end: float
    attributes: Mapping[str, Value]
    error: str = ""

    def bare(self) -> "Span":
        """The same span from an agent that sets nothing optional and ends every span OK."""
        required = {key: value for key, value in self.attributes.items() if key not in OPTIONAL}
        return replace(self, attributes=required, error="")

    def compressed(self, origin: float, speed: float) -> "Span":
        """The same span `speed` times as fast, `origin` being the moment that stays where it is."""
        if speed == 1:
            return self
        attributes = {
            key: value / speed if key.endswith("_ms") and not isinstance(value, str) else value
            for key, value in self.attributes.items()
        }
        return replace(
            self,
            start=origin + (self.start - origin) / speed,
            end=origin + (self.end - origin) / speed,
            attributes=attributes,
        )
