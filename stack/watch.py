"""What the local stack is doing now, as Prometheus tells it."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

QUERIES: Mapping[str, str] = {
    "in_flight": "sum by (agent) (agent_tasks_in_flight)",
    "looping": "sum by (agent) (agent_tasks_looping)",
    "ended": "sum by (agent) (agent_tasks_total)",
    "usd_per_minute": "60 * sum by (agent) (rate(agent_spend_usd_total[1m]))",
    "usd": "sum by (agent) (agent_spend_usd_total)",
}
"""Column → PromQL. Each gives one number per agent."""


@dataclass(frozen=True, slots=True)
class AgentNow:
    """One agent: tasks in flight, of them looping, and ended; USD a minute over the last one, and USD in all."""

    in_flight: float = 0
    looping: float = 0
    ended: float = 0
    usd_per_minute: float = 0
    usd: float = 0


@dataclass(frozen=True, slots=True)
class AlertNow:
    """An alert that is pending or firing."""

    name: str
    agent: str
    severity: str
    firing: bool
    summary: str


@dataclass(frozen=True, slots=True)
class Now:
    agents: Mapping[str, AgentNow] = field(default_factory=dict)
    alerts: tuple[AlertNow, ...] = ()


class Watch:
    """Asks a Prometheus. `now` gives the last known state where it does not answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        self._last = Now()

    async def now(self) -> Now:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError):
            columns = await asyncio.gather(*(self._query(query) for query in QUERIES.values()))
            alerts = await self._alerts()
            names = sorted({agent for column in columns for agent in column})
            agents = {
                name: AgentNow(**{key: column.get(name, 0.0) for key, column in zip(QUERIES, columns, strict=True)})
                for name in names
            }
            self._last = Now(agents, alerts)
        return self._last

    async def close(self) -> None:
        await self._http.close()

    async def _query(self, query: str) -> dict[str, float]:
        result = (await self._get("/api/v1/query", query=query))["result"]
        return {sample["metric"].get("agent", ""): float(sample["value"][1]) for sample in result}

    async def _alerts(self) -> tuple[AlertNow, ...]:
        alerts = (await self._get("/api/v1/alerts"))["alerts"]
        shown = (
            AlertNow(
                name=alert["labels"]["alertname"],
                agent=alert["labels"].get("agent", ""),
                severity=alert["labels"].get("severity", ""),
                firing=alert["state"] == "firing",
                summary=alert["annotations"].get("summary", ""),
            )
            for alert in alerts
            # Fires always, to show that alerts get through.
            if alert["labels"]["alertname"] != "Watchdog"
        )
        return tuple(sorted(shown, key=lambda alert: (alert.name, alert.agent)))

    async def _get(self, path: str, **parameters: str) -> Any:
        async with self._http.get(self._url + path, params=parameters) as answer:
            if not answer.ok:
                raise ValueError(f"{path} answered {answer.status}")
            return (await answer.json())["data"]
