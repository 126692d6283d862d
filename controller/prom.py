"""What Prometheus knows of a rollout, by its HTTP API."""

import http.client
import json
import math
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_oncall.bucket import SHARDS
from controller.verdict import Arm, Sums

FLEET = "fleet"
"""`why` of the trips that the controller counts: the breaker of all of an agent's processes opened."""
_POINTS = 250
_SHORTEST_STEP = 15.0
_MOST_BYTES = 256 * 1024 * 1024

Labels = Mapping[str, str]


class PrometheusError(Exception):
    """Prometheus gave no answer that can be used. The text names its URL and what was wrong."""


@dataclass(frozen=True, slots=True)
class Series:
    """A series of a range query: points of (unix seconds, value), those without a sample left out."""

    labels: Labels
    points: tuple[tuple[float, float], ...]


class Prometheus:
    """Queries to the server at `url` (as Grafana would be told it, paths of Mimir or Thanos included)."""

    def __init__(
        self, url: str, *, token_file: Path | None = None, ca_file: Path | None = None, timeout: float = 20.0
    ) -> None:
        self.url = url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise PrometheusError(f"{url}: a URL of Prometheus begins with http:// or https://")
        self._token_file = token_file
        self._tls = ssl.create_default_context(cafile=ca_file) if ca_file else None
        self._timeout = timeout

    def value(self, expression: str, at: float | None = None) -> float | None:
        """The value of the only series of an instant query; None if there is none. PrometheusError if it failed."""
        parameters = {"query": expression} | ({"time": f"{at:.3f}"} if at is not None else {})
        result = self._ask("query", parameters)
        return float(result[0]["value"][1]) if result else None

    def range(self, expression: str, start: float, end: float) -> list[Series]:
        """Series from `start` to `end`, both of them points. PrometheusError if it failed."""
        steps = max(min(_POINTS, math.floor((end - start) / _SHORTEST_STEP)), 1)
        parameters = {
            "query": expression,
            "start": f"{start:.3f}",
            "end": f"{end + 0.001:.3f}",  # the last point must not be lost to rounding
            "step": f"{max((end - start) / steps, 0.001):.6f}",
        }
        return [
            Series(found["metric"], tuple((float(at), float(value)) for at, value in found["values"]))
            for found in self._ask("query_range", parameters)
        ]

    def _ask(self, what: str, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
        url = f"{self.url}/api/v1/{what}"
        request = urllib.request.Request(url, urllib.parse.urlencode(parameters).encode())
        try:
            if self._token_file:
                request.add_header("Authorization", f"Bearer {self._token_file.read_text().strip()}")
            with urllib.request.urlopen(request, timeout=self._timeout, context=self._tls) as answer:
                content = json.loads(answer.read(_MOST_BYTES))
            result = content["data"]["result"]
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"{url} answered {error.code}: {_why(error)}") from None
        except http.client.HTTPException as error:
            raise PrometheusError(f"{url}: no answer of HTTP: {error!r}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PrometheusError(f"{url}: no answer that can be used: {getattr(error, 'reason', error)}") from None
        if not isinstance(result, list):
            raise PrometheusError(f"{url}: no answer that can be used: a {content['data'].get('resultType')}")
        return result


def _why(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(65536))["error"])[:500]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return error.reason


def increase(points: Iterable[tuple[float, float]], start: float) -> float:
    """How much a counter grew from `start` to its last point.

    A series that appears later began at 0: `increase()` of PromQL would lose its first events, and there are 16 shards
    of everything. A fall is a restart from 0; what came between the last point before it and the restart is lost, at
    most a 250th of the time. A series that ends (an exporter that was replaced) keeps what it had.
    """
    total, before = 0.0, None
    for at, value in points:
        if before is None:
            total += 0.0 if at <= start else value
        else:
            total += value - before if value >= before else value
        before = value
    return total


def rollout_sums(
    prometheus: Prometheus, agent: str, rollout: str, stage: str, since: float, until: float, *, fresh: bool = True
) -> Sums | None:
    """Both variants' sums over a stage, from `since` to `until` (unix seconds); None if nothing is served of it.

    Summed over exporters only after each one's restarts were seen. `fresh`: None as well if nothing is served of it any
    more at `until`. PrometheusError if Prometheus can't be asked.
    """
    if until <= since:
        return None
    selector = f"agent={_quoted(agent)},rollout={_quoted(rollout)},stage={_quoted(stage)}"
    tasks = f"agent_rollout_tasks_total{{{selector}"
    started = prometheus.range(f"agent_rollout_started_total{{{selector}}}", since, until)
    ended = prometheus.range(f"sum without (outcome) ({tasks}}})", since, until)
    succeeded = prometheus.range(f'sum without (outcome, task_type) ({tasks},outcome="success"}})', since, until)
    cost = prometheus.range(f"agent_rollout_cost_usd_total{{{selector}}}", since, until)
    last = max((point[0] for series in (*started, *ended) for point in series.points[-1:]), default=0.0)
    if not last or (fresh and last < until - 1):
        return None  # an exporter that isn't there any more says nothing of how the canary does now
    arms = {}
    for variant in ("stable", "canary"):
        arms[variant] = Arm(
            _by_shard(started, variant, since).get("", _NONE),
            _by_shard(succeeded, variant, since).get("", _NONE),
            _by_shard(ended, variant, since, "task_type"),
            _by_shard(cost, variant, since, "task_type"),
        )
        for task_type in arms[variant].ended:
            arms[variant].cost.setdefault(task_type, _NONE)  # type: ignore[attr-defined]
    return Sums(arms["stable"], arms["canary"])


_NONE = (0.0,) * SHARDS


def _by_shard(found: Iterable[Series], variant: str, since: float, by: str = "") -> dict[str, tuple[float, ...]]:
    sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0] * SHARDS)
    for series in found:
        shard = series.labels.get("shard", "")
        if series.labels.get("variant") != variant or not shard.isdecimal() or int(shard) >= SHARDS:
            continue
        sums[series.labels.get(by, "") if by else ""][int(shard)] += increase(series.points, since)
    return {key: tuple(values) for key, values in sums.items()}


def traffic(prometheus: Prometheus, agent: str) -> tuple[float | None, float | None]:
    """An agent's tasks a day and its success rate, over the last day; None for what is not known."""
    selector = f"agent={_quoted(agent)}"
    tasks = prometheus.value(f"sum(increase(agent_tasks_started_total{{{selector}}}[1d]))")
    rate = prometheus.value(
        f'sum(increase(agent_tasks_total{{{selector},outcome="success"}}[1d]))'
        f" / (sum(increase(agent_tasks_total{{{selector}}}[1d])) > 0)"
    )
    return tasks or None, rate


def agrees_on_loops(prometheus: Prometheus, agent: str, now_only: bool) -> bool:
    """Whether more than spending says that tasks run away.

    At this moment: any task loops. Within the last minutes: three loop, AgentRunawayLoop fires, or breakers inside
    agents tripped (all but those that followed the fleet's).
    """
    selector = f"agent={_quoted(agent)}"
    looping = f"sum(agent_tasks_looping{{{selector}}}) >= {1 if now_only else 3}"
    lately = (
        f'max(ALERTS{{alertname="AgentRunawayLoop",alertstate="firing",{selector}}}) > 0',
        f'sum(increase(agent_breaker_trips_total{{{selector},why!="{FLEET}"}}[10m])) > 0',
        f"sum(increase(agent_breaker_shadow_trips_total{{{selector}}}[10m])) > 0",
    )
    return prometheus.value(looping if now_only else " or ".join((looping, *lately))) is not None


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
