"""What it cost, whom it hit, what failed: sections of counters and gauges."""

from collections import defaultdict

from incident.markdown import code, count, table, usd
from incident.past import Past
from incident.section import Section
from incident.window import Window, told

_MOST_ROWS = 10
_COVERED = 0.95
"""The share of a window in which expected spend has to be recorded for a difference to be told."""


def cost(past: Past, window: Window) -> Section:
    """Spend, and how far it is above or below what the rules recorded as expected."""
    section = Section()
    spent = sum(past.increases("agent_spend_usd_total").values())
    rows = [("spent", usd(spent))]
    expected = past.gauge("max(agent:spend_usd:expected$of)")
    section.headline = f"It cost {usd(spent)}; what was to be expected is not known."
    note = "No expected spend is recorded of this time: the agent has no history yet, or the rules are not loaded."
    if expected:
        begun = expected[0][0] if expected[0][0] > window.since + past.counter_step else window.since
        seconds = window.until - begun
        covered = len(expected) * past.counter_step / max(seconds, past.counter_step)
        note = f"Expected spend is recorded in {covered:.0%} of the time only: no difference is told."
        if covered >= _COVERED:
            if begun > window.since:
                spent = past.grown_since("agent_spend_usd_total", begun)
                rows.append((f"of it since {told(begun)}, from when on expected spend is recorded", usd(spent)))
            usual = sum(value for _, value in expected) / len(expected) * seconds
            side = "above" if spent >= usual else "below"
            differs = usd(abs(spent - usual))
            rows += [("expected", usd(usual)), (f"**{side} expected**", f"**{differs}**")]
            section.headline = f"It cost {differs} {side} the {usd(usual)} expected."
            note = (
                "Expected is, at each moment, the larger of what the agent's week and what the tasks started of late "
                "make normal (`agent:spend_usd:expected`)."
            )
    if rates := past.gauge("max(agent:spend_usd:rate$of)"):
        at, rate = max(rates, key=lambda point: (point[1], -point[0]))
        rows.append((f"an hour, at the highest rate: {told(at)}", usd(3600 * rate)))
        limit = dict(past.gauge("max(agent:spend_usd:limit$of)")).get(at)
        if limit is not None:
            rows.append(("an hour, the limit of `AgentCostAnomaly` at that moment", usd(3600 * limit)))
    section.say(*table(("cost", "amount"), rows, numbers=1))
    by_model = past.increases("agent_spend_usd_total", "model", "purpose")
    if len(by_model) > 1:
        dearest = sorted(by_model.items(), key=lambda item: (-item[1], item[0]))[:_MOST_ROWS]
        cells = [(code(model), code(purpose), usd(value)) for (model, purpose), value in dearest]
        section.say(*table(("model", "purpose", "spent"), cells, numbers=1))
    section.say(note)
    return section


def tasks(past: Past) -> Section:
    """Tasks by what became of them, and the worst that ran."""
    section = Section()
    started = sum(past.increases("agent_tasks_started_total").values())
    ended = past.increases("agent_tasks_total", "outcome", "reason")
    looped = past.increases("agent_tasks_looped_total", "why")
    rows = [("started", "", count(started))]
    rows += [(f"ended: {outcome}", code(reason) if reason else "", count(n)) for (outcome, reason), n in ended.items()]
    rows += [("looped", code(why), count(n)) for (why,), n in looped.items()]
    running = past.last("sum(agent_tasks_in_flight$of)")
    if running is not None:
        rows.append(("running at the end", "", count(running)))
    section.say(*table(("tasks", "reason", "number"), rows, numbers=1))
    missed = sum(n for (outcome, _), n in ended.items() if outcome != "success")
    section.headline = f"{count(missed)} of {count(sum(ended.values()))} ended tasks missed their goal"
    section.headline += f"; {count(sum(looped.values()))} looped." if looped else "."
    worst = [
        f"{what}: {shown(max(value for _, value in points))}"
        for what, expr, shown in (
            ("most tasks looping at once", "sum(agent_tasks_looping$of)", count),
            ("most iterations of a running task", "max(agent_task_in_flight_iterations_max$of)", count),
            ("dearest running task", "max(agent_task_in_flight_spend_usd_max$of)", usd),
        )
        if (points := past.gauge(expr))
    ]
    if worst:
        section.say(*(f"- {line}" for line in worst))
    return section


def tools(past: Past) -> Section:
    """Tools, those that fail most first, and what failed at the LLM."""
    section = Section()
    calls: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for (tool, result), n in past.increases("agent_tool_calls_total", "tool", "result").items():
        calls[tool][result] = n
    if calls:
        total = {tool: sum(results.values()) for tool, results in calls.items()}
        failed = {tool: results["error"] + results["invalid"] for tool, results in calls.items()}
        order = sorted(calls, key=lambda tool: (-failed[tool], -total[tool], tool))
        rows = [
            (code(tool), *(count(n) for n in (total[tool], *(calls[tool][key] for key in ("ok", "error", "invalid")))))
            for tool in order[:_MOST_ROWS]
        ]
        section.say(*table(("tool", "calls", "ok", "error", "invalid"), rows, numbers=4))
        if len(order) > _MOST_ROWS:
            section.say(f"And {len(order) - _MOST_ROWS} more tools, with fewer failures or calls.")
        if failed[order[0]]:
            worst = f"{count(failed[order[0]])} of {count(total[order[0]])} calls"
            section.headline = f"The tool that failed most is {code(order[0])}: {worst}."
    else:
        section.say("No tool was called.")
    stopped = past.increases("agent_iterations_total", "model", "stop_reason")
    rows = [("failed", code(model), count(n)) for (model, reason), n in stopped.items() if reason == "error"]
    refused = past.increases("agent_refusals_total", "model")
    rows += [("refused", code(model), count(n)) for (model,), n in refused.items()]
    if rows:
        section.say(*table(("LLM calls", "model", "number"), rows, numbers=1))
    else:
        section.say("No call of an LLM failed, none was refused.")
    return section


def variants(past: Past) -> Section:
    """Stable and canary beside each other."""
    section = Section()
    started = past.increases("agent_tasks_started_total", "variant")
    ended = past.increases("agent_tasks_total", "variant")
    spent = past.increases("agent_spend_usd_total", "variant")
    good: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for (variant, outcome), n in past.increases("agent_tasks_total", "variant", "outcome").items():
        if outcome == "success":
            good[(variant,)] = n
    rows = [
        (
            code(key[0]),
            count(started.get(key, 0.0)),
            count(ended.get(key, 0.0)),
            f"{good[key] / ended[key]:.1%}" if key in ended else "-",
            usd(spent.get(key, 0.0)),
        )
        for key in sorted({*started, *ended, *spent}, reverse=True)
    ]
    if rows:
        section.say(*table(("variant", "started", "ended", "success", "spent"), rows, numbers=4))
    else:
        section.say("No task was started, and none ended.")
    return section
