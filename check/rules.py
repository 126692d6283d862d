"""Are the rules that a server has loaded the generated ones, and is their evaluation well?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alert_rules.promql import duration_seconds
from alert_rules.rules import Alert, Group, Recording, Site
from check.expressions import canonical
from check.findings import Finding, listed

LOAD_THEM = "load what `agent-oncall generate` writes, with the same options as here (docs/existing-prometheus.md)"

_NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, in the one form in which a generated and a loaded one are alike. Durations are in seconds."""

    name: str
    expr: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    wait: float
    keep_firing: float

    def differences(self, other: "Rule") -> list[str]:
        """What differs, by the names that a rule file has for it."""
        found = [
            ("expr", self.expr == other.expr),
            ("labels", self.labels == other.labels),
            ("for", self.wait == other.wait),
            ("keep_firing_for", self.keep_firing == other.keep_firing),
        ]
        annotations = sorted(
            name
            for name in self.annotations.keys() | other.annotations.keys()
            if self.annotations.get(name) != other.annotations.get(name)
        )
        return [name for name, same in found if not same] + annotations


def generated(rule: Recording | Alert, site: Site) -> Rule:
    document = rule.document(site)
    return Rule(
        name=document.get("alert") or document["record"],
        expr=canonical(document["expr"]),
        labels=document.get("labels", {}),
        annotations=document.get("annotations", {}),
        wait=duration_seconds(document.get("for", "")),
        keep_firing=duration_seconds(document.get("keep_firing_for", "")),
    )


def loaded(rule: Mapping[str, Any]) -> Rule:
    """A rule as `/api/v1/rules` shows it."""
    try:
        expr = canonical(rule["query"])
    except ValueError:
        expr = rule["query"]
    return Rule(
        name=rule["name"],
        expr=expr,
        labels=rule.get("labels") or {},
        annotations=rule.get("annotations") or {},
        wait=float(rule.get("duration") or 0),
        keep_firing=float(rule.get("keepFiringFor") or 0),
    )


def same_rules(groups: Sequence[Group], site: Site, found: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Compares the generated groups with those of the server's `/api/v1/rules`."""
    there: dict[str, list[Rule]] = {}
    for loaded_group in found:
        there.setdefault(loaded_group["name"], []).extend(loaded(rule) for rule in loaded_group["rules"])
    if missing := [group.name for group in groups if group.name not in there]:
        yield Finding(f"{len(missing)} of {len(groups)} groups of rules are not loaded: {listed(missing)}", LOAD_THEM)
    wrong = [
        what
        for group in groups
        if group.name in there
        for what in _differences(group.name, [generated(rule, site) for rule in group.rules], there[group.name])
    ]
    for what in wrong:
        yield Finding(what, LOAD_THEM)
    twice = list(_elsewhere(groups, found))
    for what in twice:
        yield Finding(what, "take it out of rule_files: what it holds is evaluated, and told, twice")
    if not missing and not wrong and not twice:
        count = sum(len(group.rules) for group in groups)
        yield Finding(f"rules: {len(groups)} groups, {count} rules, as generated")


def _elsewhere(groups: Sequence[Group], found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Groups of other names that hold what ours do."""
    names = {rule.name if isinstance(rule, Alert) else rule.record for group in groups for rule in group.rules}
    ours = {group.name for group in groups}
    for group in found:
        # A Watchdog without a cause is one of somebody else, and stays where it is.
        held = [
            rule["name"]
            for rule in group["rules"]
            if rule["name"] in names and (rule["name"] != "Watchdog" or (rule.get("labels") or {}).get("cause"))
        ]
        if held and group["name"] not in ours:
            file = f" ({group['file']})" if group.get("file") else ""
            yield f"group {group['name']}{file} is not generated, and holds {listed(dict.fromkeys(held))}"


def _differences(group: str, ours: list[Rule], theirs: list[Rule]) -> list[str]:
    # What is loaded twice is evaluated twice: that differs as well.
    rest = list(theirs)
    unmatched = []
    for rule in ours:
        if rule in rest:
            rest.remove(rule)
        else:
            unmatched.append(rule)
    absent, changed = [], []
    for rule in unmatched:
        # Of the rules that record one series, the most similar is meant.
        alike = sorted(
            (other for other in rest if other.name == rule.name), key=lambda other: len(rule.differences(other))
        )
        if alike:
            rest.remove(alike[0])
            changed.append(f"{rule.name} ({', '.join(rule.differences(alike[0]))})")
        else:
            absent.append(rule.name)
    found = (("are not loaded", absent), ("differ", changed), ("are not generated", [rule.name for rule in rest]))
    # Several rules may record one series.
    return [
        f"group {group}: {len(names)} rules {what}: {listed(dict.fromkeys(names))}" for what, names in found if names
    ]


def evaluation(groups: Sequence[Group], found: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Errors of the evaluation, and groups that take longer than their interval."""
    names = {group.name for group in groups}
    ours = [group for group in found if group["name"] in names]
    failed = [(rule["name"], rule.get("lastError", "")) for g in ours for rule in g["rules"] if rule["health"] == "err"]
    for name, error in failed:
        yield Finding(f"rule {name} cannot be evaluated: {error}", "mend what the error names: without it, it is blind")
    for group in ours:
        taken, interval = group.get("evaluationTime", 0.0), group.get("interval", 0.0)
        if interval and taken > interval:
            yield Finding(
                f"group {group['name']} takes {taken:.1f} s to evaluate, and is due every {interval:g} s",
                "give Prometheus more CPU, or agents fewer series (docs/performance.md)",
            )
    waiting = [group for group in ours if group.get("lastEvaluation", _NEVER) == _NEVER and group["rules"]]
    if ours and not failed:
        took = sum(group.get("evaluationTime", 0.0) for group in ours)
        yield Finding(f"evaluation: no errors, {1000 * took:.0f} ms for all rules")
    for group in waiting:
        # The first evaluation of a slow group is up to an interval after the start.
        yield Finding(f"group {group['name']} waits for its first evaluation, within {group.get('interval', 0):g} s")
