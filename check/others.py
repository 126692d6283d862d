"""The exporter, the controller and Grafana: do they answer, and do they have what the rest reads?"""

import importlib.metadata
import json
import re
from collections.abc import Iterator, Mapping

from check.findings import Finding, listed
from check.samples import samples
from check.server import NoAnswer, Server
from exporter.contract import FAMILIES


def exporter(server: Server) -> Iterator[Finding]:
    """An exporter by its metrics address: ready, of the contract, and receiving spans that it understands."""
    try:
        server.text("/readyz")
        page = server.text("/metrics", accept="application/openmetrics-text")
    except NoAnswer as error:
        todo = (
            "it reads its journal or is stopping: ask again" if error.status == 503 else "is it running, and is this "
        )
        yield Finding(f"exporter: {error}", todo if error.status == 503 else f"{todo}its --metrics address?")
        return
    declared = set(re.findall(r"^# TYPE (\w+)", page, re.MULTILINE))
    missing = [
        family.name
        for family in FAMILIES
        if family.served_by == "exporter" and not {family.name, family.name.removesuffix("_total")} & declared
    ]
    if missing:
        yield Finding(
            f"exporter {server.url} does not serve {listed(missing)}",
            f"update it to the version of these rules, {importlib.metadata.version('agent-oncall')}",
        )
    else:
        yield Finding(f"exporter answers at {server.url}, and serves the contract")
    yield from _spans(page)


def _spans(page: str) -> Iterator[Finding]:
    counted, unknown = 0.0, []
    for name, labels, value in samples(page):
        if name == "agent_exporter_spans_total" and labels.get("result") == "counted":
            counted += value
        elif name == "agent_exporter_unknown_scope_total" and value:
            unknown.append(labels.get("scope", ""))
    if counted:
        yield Finding(f"spans: {counted:.0f} counted")
    else:
        yield Finding(
            "the exporter has counted no span yet",
            "let an agent send OTLP to it; `agent-oncall replay --explain FILE` tells what spans are taken for",
        )
    if unknown:
        yield Finding(
            f"spans that look like LLM calls come from instrumentations it does not know: {listed(unknown)}",
            "see docs/dialects.md for what is understood, and how to add one",
        )


def controller(server: Server) -> Iterator[Finding]:
    """The controller by its address."""
    try:
        server.text("/healthz")
    except NoAnswer as error:
        yield Finding(f"controller: {error}", "is it running, and is this its address? (--controller)")
    else:
        yield Finding(f"controller answers at {server.url}")


def grafana(server: Server, dashboards: Mapping[str, str]) -> Iterator[Finding]:
    """Grafana has the generated dashboards, by their uid. `dashboards` is file name → JSON."""
    for name, text in dashboards.items():
        uid = json.loads(text)["uid"]
        try:
            server.json(f"/api/dashboards/uid/{uid}")
        except NoAnswer as error:
            if error.status == 404:
                yield Finding(f"Grafana has no dashboard {uid}", f"import {name}, which `agent-oncall generate` writes")
                continue
            refused = error.status in (401, 403)
            todo = (
                "give a service account's token with the role Viewer (--grafana-token-file)"
                if refused
                else "is it running, and is this its address? (--grafana)"
            )
            yield Finding(f"Grafana: {error}", todo)
            return
        else:
            yield Finding(f"dashboard {uid} is in Grafana")
