"""The first screen of the person on call: four rows, from "is it burning" to the traces that say why."""

from collections.abc import Mapping

from grafanalib import core as gl

from alert_rules import rates
from alert_rules.promql import EVALUATIONS_PER_HOUR
from alert_rules.rules import Site
from alert_rules.thresholds import Thresholds
from dashboards import alerts, board, searches
from dashboards.panels import (
    Column,
    Query,
    above,
    bar_gauge,
    below,
    by_name,
    colours,
    dashed,
    lit,
    minutes,
    percent,
    pie,
    stat,
    steps,
    table,
    text,
    timeseries,
    trace_table,
)
from dashboards.promql import RECORDED_STEP, dots, recorded_count, recorded_quantile

UID = "agent-oncall-overview"
AGENT = 'agent=~"$agent"'
ROW_AGENT = "${__data.fields.Agent}"

_EXCESS = f'agent:spend_usd:excess{{{AGENT},window="5m"}}'
_ERRORS = f'agent:error_ratio:rate{{{AGENT},window="10m"}}'
_IN_FLIGHT = f"agent_tasks_in_flight{{{AGENT}}}"
_NO_RULES = "No recorded series: are the rules loaded?"
_NOT_RECORDED = "Nothing ended in this time, or the rules are not loaded"
_NO_BASELINE = "No baseline yet: it takes an hour of tasks"


def overview(thresholds: Thresholds, site: Site = board.HERE) -> gl.Dashboard:
    """The overview of all agents, or of those chosen by the variable `agent`."""
    return board.board(
        "agent-oncall overview",
        UID,
        "LLM agents: health, behaviour, cost, and the traces behind them.",
        ("Health at a glance", _health(thresholds, site)),
        ("Agent behaviour", _behaviour(thresholds, site)),
        ("Cost breakdown", _cost(thresholds, site)),
        ("Trace explorer", _traces()),
        variables=[board.agent(), board.jaeger_url()],
        site=site,
    )


def _health(thresholds: Thresholds, site: Site) -> list[gl.Panel]:
    return [
        *_tiles(thresholds, site),
        timeseries(
            "Spend against its limit",
            "USD an hour by agent, running tasks included, and the limit above which AgentCostAnomaly pages (dashed). "
            "Normal is well below the dashed line; it follows traffic, so that a launch raises both. Of many agents, "
            "the 8 nearest to their limits.",
            Query(_highest(f'3600 * agent:spend_usd:rate{{{AGENT},window="5m"}}', _EXCESS), "{{agent}}"),
            Query(_highest(f"3600 * agent:spend_usd:limit{{{AGENT}}}", _EXCESS), "{{agent}} limit"),
            unit="currencyUSD",
            width=10,
            height=8,
            log=True,
            overrides=[dashed("/ limit$/", legend=False)],
            links=[board.runbook("AgentCostAnomaly", site)],
            no_data=_NO_RULES,
        ),
        _agents(thresholds),
        alerts.listed(AGENT, site),
        _tools(),
        _shortcuts(),
        timeseries(
            "Latency over time",
            "P50 and P99 of the end-to-end time of ended tasks. Tasks of 30 to 60 s are normal; P99 above "
            f"{minutes(thresholds.value('latency_p99_seconds'))} pages, where at least "
            f"{thresholds.value('latency_min_count'):g} tasks were slow. The dots are traces: a click opens one.",
            *_recorded(rates.DURATION, {0.5: "P50", 0.99: "P99"}),
            Query(dots("agent_task_duration_seconds", AGENT), exemplars=True),
            unit="s",
            thresholds=steps(("transparent", None), ("red", thresholds.value("latency_p99_seconds"))),
            overrides=colours({"P50": "blue", "P99": "orange"}),
            links=[board.runbook("AgentLatencyP99High", site)],
            no_data=_NOT_RECORDED,
        ),
        timeseries(
            "Error rate by agent",
            "Share of the tasks ended in the last 10 minutes that failed with an error; the line is where it pages. "
            "Normal is under 5 %; an agent with few tasks jumps. Of many agents, the 8 highest.",
            Query(_highest(_ERRORS, _ERRORS), "{{agent}}"),
            unit="percentunit",
            thresholds=steps(("transparent", None), ("red", thresholds.value("error_rate"))),
            links=[board.runbook("AgentErrorRateHigh", site)],
            no_data="No task ended in this time",
        ),
        timeseries(
            "In flight and looping over time",
            "Tasks that run, by agent, and those of them that loop (dashed). Normal follows the traffic, with no "
            "loops. Of many agents, the 8 highest.",
            Query(_highest(f"sum by (agent) ({_IN_FLIGHT})", _IN_FLIGHT), "{{agent}}"),
            Query(f"sum by (agent) (agent_tasks_looping{{{AGENT}}}) > 0", "{{agent}} looping"),
            unit="short",
            overrides=[dashed("/ looping$/", "red")],
            links=[board.runbook("AgentRunawayLoop", site)],
        ),
    ]


def _tiles(thresholds: Thresholds, site: Site) -> list[gl.Panel]:
    error_rate = thresholds.value("error_rate")
    ended = f'agent:tasks_ended:increase{{{AGENT},window="10m"}}'
    return [
        alerts.tile(AGENT),
        stat(
            "Spend now",
            "USD an hour by the last 5 minutes, running tasks included, and the same as a multiple of the limit above "
            "which it pages, for the agent that is nearest to it. Normal is under 0.5.",
            Query(f'3600 * sum(agent:spend_usd:rate{{{AGENT},window="5m"}})', "USD an hour", now=True),
            Query(f"max({_EXCESS})", "times its limit", now=True),
            unit="currencyUSD",
            width=4,
            overrides=[
                by_name("times its limit", unit="suffix: ×", decimals=1, thresholds=lit(("orange", 0.7), ("red", 1)))
            ],
            background=True,
            links=[board.runbook("AgentCostAnomaly", site)],
            no_data=_NO_RULES,
        ),
        stat(
            "In flight",
            "Tasks seen that have neither ended nor been given up. Normal follows the traffic.",
            Query(f"sum(agent_tasks_in_flight{{{AGENT}}})"),
            unit="short",
            width=2,
            thresholds=steps(("blue", None)),
        ),
        stat(
            "Looping",
            "Running tasks that repeat one call, fail on one tool again and again, or iterate far beyond normal. "
            "Normal is 0.",
            Query(f"sum(agent_tasks_looping{{{AGENT}}})", now=True),
            unit="short",
            width=2,
            thresholds=lit(("orange", 1), ("red", thresholds.value("looping_tasks"))),
            background=True,
        ),
        stat(
            "Success rate",
            "Share of ended tasks that reached their goal, hour by hour over 7 days; the number is the last hour. "
            f"Normal is 80 to 90 %; alerts below {percent(thresholds.value('success_rate'))} over 7 days.",
            Query(
                f'sum(last_over_time(agent_outcome:tasks_ended:increase1h{{{AGENT},outcome="success"}}[20m]))'
                f" / sum(last_over_time(agent_outcome:tasks_ended:increase1h{{{AGENT}}}[20m]))"
            ),
            unit="percentunit",
            decimals=1,
            time_from="7d",
            points=84,
            thresholds=steps(("red", None), ("green", thresholds.value("success_rate"))),
            no_data="no task ended",
        ),
        stat(
            "Cost per task",
            "USD spent in the last hour for each task started in it, running tasks included, and what the same tasks "
            "cost in the median hour of the last 7 days. Normal is less than "
            f"{thresholds.value('cost_per_task_factor'):g} times the baseline.",
            Query(_spent_per_task(), "now", now=True),
            Query(_usual_per_task(), "7-day baseline", now=True),
            unit="currencyUSD",
            width=4,
            no_data=_NO_BASELINE,
        ),
        stat(
            "Latency",
            "End-to-end time of the tasks that ended in the last hour. Normal is 30 to 60 s; P99 above "
            f"{minutes(thresholds.value('latency_p99_seconds'))} pages, where at least "
            f"{thresholds.value('latency_min_count'):g} tasks were slow.",
            Query(_latency(0.5), "P50", now=True),
            Query(_latency(0.99), "P99", now=True),
            unit="s",
            width=3,
            decimals=0,
            overrides=[
                by_name("P50", thresholds=above(("orange", thresholds.value("latency_p50_seconds")))),
                by_name("P99", thresholds=above(("red", thresholds.value("latency_p99_seconds")))),
            ],
            no_data="no task ended",
        ),
        stat(
            "Error rate",
            "Share of the tasks ended in the last 10 minutes that failed with an error. Normal is under 5 %; pages "
            f"above {percent(thresholds.value('error_rate'))}.",
            Query(f"sum({_ERRORS} * {ended}) / sum({ended})"),
            unit="percentunit",
            decimals=1,
            width=3,
            thresholds=steps(("green", None), ("orange", error_rate / 2), ("red", error_rate)),
            links=[board.runbook("AgentErrorRateHigh", site)],
            no_data="no task ended",
        ),
    ]


def _agents(thresholds: Thresholds) -> gl.Table:
    def by_agent(expr: str) -> str:
        return f"sum by (agent) ({expr})"

    return table(
        "Agents, the one that burns first",
        "Each agent now. Its spend as a multiple of the limit that pages (normal is under 0.5), for how long of the "
        "last 6 hours it has been over it, and what hangs. A click on an agent opens its dashboard, one on its loops "
        "or its worst task opens the traces.",
        {"agent": "Agent"},
        Column(
            "× limit",
            f"max by (agent) ({_EXCESS})",
            "none",
            lit(("orange", 0.7), ("red", 1)),
            cell="color-background",
            decimals=1,
            width=70,
        ),
        Column(
            "Over it for",
            f"60 * max by (agent) (count_over_time(({_EXCESS} > 1)[6h:1m]))",
            "dtdurations",
            above(("orange", 60)),
            width=110,
        ),
        Column(
            "USD/h",
            by_agent(f'3600 * agent:spend_usd:rate{{{AGENT},window="5m"}}'),
            "currencyUSD",
            width=80,
        ),
        Column("In flight", by_agent(f"agent_tasks_in_flight{{{AGENT}}}"), "short", width=75),
        Column(
            "Looping",
            by_agent(f"agent_tasks_looping{{{AGENT}}}"),
            "short",
            above(("orange", 1), ("red", thresholds.value("looping_tasks"))),
            width=75,
            links=searches.looping(ROW_AGENT).links(),
        ),
        Column(
            "Worst task",
            f"max by (agent) (agent_task_in_flight_spend_usd_max{{{AGENT}}})",
            "currencyUSD",
            above(("red", thresholds.value("looping_task_usd"))),
            width=90,
            links=searches.costly(ROW_AGENT).links(),
        ),
        Column(
            "Errors",
            f'max by (agent) (agent:error_ratio:rate{{{AGENT},window="10m"}})',
            "percentunit",
            above(("red", thresholds.value("error_rate"))),
            decimals=0,
            width=70,
            links=searches.failed(ROW_AGENT).links(),
        ),
        Column(
            "Success 1h",
            f'sum by (agent) (last_over_time(agent_outcome:tasks_ended:increase1h{{{AGENT},outcome="success"}}[20m]))'
            f" / sum by (agent) (last_over_time(agent_outcome:tasks_ended:increase1h{{{AGENT}}}[20m]))",
            "percentunit",
            below(thresholds.value("success_rate")),
            decimals=0,
            width=90,
        ),
        sort="× limit",
        width=14,
        height=8,
        row_links=[board.to_agent()],
    )


def _tools() -> gl.Table:
    now = f"sum by (agent, tool) (rate(agent_tool_calls_total{{{AGENT}}}[5m]))"
    of_day = f'sum by (agent, tool) (last_over_time(agent_tool:tool_calls:increase{{{AGENT},window="1d"}}[20m]))'
    # seconds of the day that the agent was watched for: an hour at least, or there is nothing to compare with
    watched = (
        f"{3600 / EVALUATIONS_PER_HOUR:g}"
        f" * (count_over_time(agent:tasks_started:increase1h{{{AGENT}}}[1d]) >= {EVALUATIONS_PER_HOUR})"
    )
    usual = f"(({of_day} or {now} * 0) / on (agent) group_left () ({watched}))"
    bad = f'sum by (agent, tool) (rate(agent_tool_calls_total{{{AGENT},result!="ok"}}[5m]))'
    return table(
        "Tools, the one called unusually often first",
        "Tool calls of the last 5 minutes against the mean of the day before, or of the hours that the agent has been "
        "watched for, from one hour on (a call in 5 minutes is added to both, so that few calls are no news). Normal "
        "is under 5 times; a loop stands out, whether its calls fail or not. A click on the tool opens its traces.",
        {"tool": "Tool", "agent": "Agent"},
        Column(
            "× usual",
            f"topk(8, ({now} + 1 / 300) / ({usual} + 1 / 300))",
            "none",
            lit(("orange", 5), ("red", 10)),
            cell="color-background",
            decimals=1,
            width=75,
        ),
        Column("Calls/min", f"60 * {now}", "none", decimals=1, width=85),
        Column("Failing", f"{bad} / ({now} > 0)", "percentunit", above(("orange", 0.1)), decimals=0, width=70),
        sort="× usual",
        width=9,
        height=6,
        row_links=searches.of_tool(ROW_AGENT, "${__data.fields.Tool}").links(),
        no_data="No tool was called in the last 5 minutes",
    )


def _shortcuts() -> gl.Text:
    listed = "\n".join(f"- [**{search.title}**]({search.links()[0].linkUrl})" for search in searches.all_kinds())
    return text("Open the traces", f"{listed}\n", width=5, height=6)


def _behaviour(thresholds: Thresholds, site: Site) -> list[gl.Panel]:
    calls = f"agent_tool_calls_total{{{AGENT}}}"
    called = recorded_count(rates.TOOL_CALLS, AGENT, "tool")
    missed = recorded_count(rates.TOOL_CALLS, f'{AGENT},result!="ok"', "tool")
    return [
        bar_gauge(
            "Iterations per task",
            "Tasks ended in the time range by how many iterations they took (up to and including the number). Normal "
            "is a hump at the left; a second one at the right is tasks that go round in circles.",
            Query(
                f'label_replace({recorded_count(rates.ITERATIONS, AGENT, "le")}, "le", "$1", "le", "(.+)[.]0")',
                "{{le}}",
                now=True,
                buckets=True,
            ),
            unit="short",
            decimals=0,
        ),
        pie(
            "Tools called most",
            "Tool calls of the time range, by tool. Normal is the same picture as yesterday.",
            Query(f"topk(8, {called} > 0)", "{{tool}}", now=True),
            unit="short",
        ),
        pie(
            "Tools failing most",
            "Tool calls of the time range that failed or were called wrongly, by tool. Normal is in proportion to the "
            "calls.",
            Query(f"topk(8, {missed} > 0)", "{{tool}}", now=True),
            unit="short",
            no_data="No tool call failed in this time",
        ),
        timeseries(
            "Abandoned tasks",
            "Share of the tasks ended in the last hour that were abandoned: cancelled, timed out, out of iterations, "
            f"or never finished. Normal is under 10 %; alerts above {percent(thresholds.value('abandon_rate'))} over "
            "7 days.",
            Query(
                "sum by (agent) (last_over_time(agent_outcome:tasks_ended:increase1h"
                f'{{{AGENT},outcome="abandoned"}}[20m]))'
                f" / (sum by (agent) (last_over_time(agent_outcome:tasks_ended:increase1h{{{AGENT}}}[20m])) > 0)",
                "{{agent}}",
            ),
            unit="percentunit",
            width=6,
            thresholds=steps(("transparent", None), ("red", thresholds.value("abandon_rate"))),
            links=[board.runbook("AgentAbandonRateHigh", site)],
            no_data="No task ended in this time",
        ),
        table(
            "Tools: validity and latency",
            "Tool calls of the last hour. Valid: all required fields there and of the right type; alerts below "
            f"{percent(thresholds.value('tool_validity'))}. Normal is 98 % and more, and few errors.",
            {"tool": "Tool", "agent": "Agent"},
            Column("Calls", f"sum by (agent, tool) (increase({calls}[1h])) > 0", "short", decimals=0, width=70),
            Column(
                "Valid",
                f'sum by (agent, tool) (rate(agent_tool_calls_total{{{AGENT},result!="invalid"}}[1h]))'
                f" / (sum by (agent, tool) (rate({calls}[1h])) > 0)",
                "percentunit",
                steps(("red", None), ("green", thresholds.value("tool_validity"))),
                cell="gauge",
                most=1,
                decimals=0,
            ),
            Column(
                "Errors",
                f'sum by (agent, tool) (rate(agent_tool_calls_total{{{AGENT},result="error"}}[1h]))'
                f" / (sum by (agent, tool) (rate({calls}[1h])) > 0)",
                "percentunit",
                above(("orange", 0.1), ("red", 0.3)),
                decimals=1,
                width=70,
            ),
            Column("P50", _tool_latency(0.5), "s", width=80),
            Column("P99", _tool_latency(0.99), "s", width=80),
            sort="Calls",
            width=12,
            height=8,
            row_links=searches.of_tool(ROW_AGENT, "${__data.fields.Tool}").links(),
            no_data="No tool was called in the last hour",
        ),
        timeseries(
            "Latency per LLM call",
            "P99 of one LLM call, by model, and P50 (dashed). Normal is steady; a step is the provider's, not the "
            "agent's.",
            *_recorded(rates.CALL, {0.99: "{{model}}", 0.5: "{{model}} P50"}, "model"),
            unit="s",
            points=400,
            width=6,
            height=8,
            overrides=[dashed("/ P50$/", legend=False)],
            no_data=_NOT_RECORDED,
        ),
        timeseries(
            "Time to first token",
            "P99 of streaming calls, by model, and P50 (dashed). Normal is under 5 s.",
            *_recorded(rates.FIRST_TOKEN, {0.99: "{{model}}", 0.5: "{{model}} P50"}, "model"),
            unit="s",
            points=400,
            width=6,
            height=8,
            overrides=[dashed("/ P50$/", legend=False)],
            no_data="No streaming call told its first token",
        ),
        timeseries(
            "Refusals",
            "Share of the LLM calls of the last hour that were answered with a refusal, by model. Normal is under 1 %.",
            Query(
                f"sum by (model) (sum_over_time({rates.REFUSALS}{{{AGENT}}}[1h]))"
                f" / (sum by (model) (sum_over_time({rates.CALLS}{{{AGENT}}}[1h])) > 0)",
                "{{model}}",
            ),
            unit="percentunit",
        ),
        _shift("Confidence", "The agents' own score of a task", "task_confidence", thresholds, site),
        _shift("Goal alignment", "The judge's score of a task", "task_goal_alignment", thresholds, site),
    ]


def _cost(thresholds: Thresholds, site: Site) -> list[gl.Panel]:
    range_ = "[$__range]"
    tokens = f"agent_purpose:tokens:increase1h{{{AGENT}"
    return [
        timeseries(
            "Cost of an hour",
            "USD spent in the hour up to each moment, by agent, running tasks included: its right end is now. Normal "
            "follows the day.",
            Query(
                f'3600 * sum by (agent) (avg_over_time(agent:spend_usd:rate{{{AGENT},window="5m"}}[1h]))', "{{agent}}"
            ),
            unit="currencyUSD",
            width=9,
            stacked=True,
        ),
        timeseries(
            "Cost of a day",
            "USD spent in the 24 hours up to each moment, by agent, over the last 8 days, running tasks included: what "
            "was spent a quarter of an hour ago is in its right end. Normal is flat.",
            # windows of five minutes, one beside the other
            Query(
                f'300 * sum by (agent) (sum_over_time(agent:spend_usd:rate{{{AGENT},window="5m"}}[1d:5m]))',
                "{{agent}}",
            ),
            unit="currencyUSD",
            width=9,
            stacked=True,
            time_from="8d",
            points=8 * 24 * 6,
            no_data=_NO_RULES,
        ),
        pie(
            "Cost by task type",
            "USD of the tasks that ended in the time range. A running task is not in it: its type is told at its end. "
            "Normal is the same picture as yesterday.",
            Query(
                f"topk(8, sum by (task_type) (increase(agent_task_cost_usd_sum{{{AGENT}}}{range_})) > 1e-6)",
                "{{task_type}}",
                now=True,
            ),
            unit="currencyUSD",
        ),
        pie(
            "Cost by model",
            "USD spent in the time range by model, running tasks included. Normal is the same picture as yesterday.",
            Query(
                f"topk(8, sum by (model) (increase(agent_spend_usd_total{{{AGENT}}}{range_})) > 1e-6)",
                "{{model}}",
                now=True,
            ),
            unit="currencyUSD",
            width=7,
        ),
        timeseries(
            "Cost of an ended task",
            "P50 and P99 in USD of the tasks that ended; normal is steady. A task that runs away is not in it until "
            "it ends. The dots are traces: a click opens one.",
            *_recorded(rates.COST, {0.5: "P50", 0.99: "P99"}),
            Query(dots("agent_task_cost_usd", AGENT), exemplars=True),
            unit="currencyUSD",
            width=6,
            overrides=colours({"P50": "blue", "P99": "orange"}),
            links=[board.runbook("AgentCostPerTaskHigh", site)],
            no_data=_NOT_RECORDED,
        ),
        timeseries(
            "Token waste",
            "Share of the last hour's tokens that went into retries (the same call again) and into recovery (turns "
            "spent on a failed tool call). Normal is under 10 %; alerts above "
            f"{percent(thresholds.value('token_waste'))}.",
            Query(
                f'sum by (purpose) (last_over_time({tokens},purpose!="progress"}}[20m]))'
                f" / on () group_left () (sum(last_over_time({tokens}}}[20m])) > 0)",
                "{{purpose}}",
            ),
            unit="percentunit",
            width=6,
            stacked=True,
            overrides=colours({"retry": "yellow", "recovery": "orange"}),
            thresholds=steps(("transparent", None), ("red", thresholds.value("token_waste"))),
            links=[board.runbook("AgentTokenWasteHigh", site)],
        ),
        table(
            "Cost unknown",
            "Tokens of models without a price, and calls that told no token count, in the time range: spend that no "
            "other panel shows. Normal is an empty table.",
            {"agent": "Agent"},
            Column(
                "Tokens",
                f"sum by (agent) (increase(agent_unpriced_tokens_total{{{AGENT}}}{range_})) > 0",
                "short",
                above(("orange", 1)),
                width=80,
            ),
            Column(
                "Calls",
                f"sum by (agent) (increase(agent_unmetered_calls_total{{{AGENT}}}{range_})) > 0",
                "short",
                above(("orange", 1)),
                width=70,
            ),
            sort="Tokens",
            width=5,
            height=7,
            row_links=[board.to_agent()],
            links=[board.runbook("AgentCostUnknown", site)],
            no_data="Every token has its price",
        ),
    ]


def _traces() -> list[gl.Panel]:
    every, quick = (
        recorded_count(rates.DURATION, f'{AGENT},le=~"{bound}"', "agent") for bound in ("[+]Inf", "300|300.0")
    )
    not_found = "Tempo found no such trace of the chosen agents in this time"
    return [
        table(
            "Tasks worth a look: a number opens their traces",
            "Tasks of the time range by agent; looping and costly are those that run now. Normal is no loop. A click "
            "on a number opens the search in Tempo or Jaeger.",
            {"agent": "Agent"},
            Column(
                "Failed",
                recorded_count(rates.ENDED, f'{AGENT},outcome!="success"', "agent"),
                "short",
                decimals=0,
                links=searches.failed(ROW_AGENT).links(),
            ),
            Column(
                f"Over {searches.SLOW_SECONDS / 60:g} min",
                f"{every} - {quick}",
                "short",
                decimals=0,
                links=searches.slow(ROW_AGENT).links(),
            ),
            Column(
                "Costliest now",
                f"max by (agent) (agent_task_in_flight_spend_usd_max{{{AGENT}}})",
                "currencyUSD",
                links=searches.costly(ROW_AGENT).links(),
            ),
            Column(
                "Looping now",
                f"sum by (agent) (agent_tasks_looping{{{AGENT}}})",
                "short",
                above(("red", 1)),
                links=searches.looping(ROW_AGENT).links(),
            ),
            Column(
                "Most iterations now",
                f"max by (agent) (agent_task_in_flight_iterations_max{{{AGENT}}})",
                "short",
                links=searches.looping(ROW_AGENT).links(),
            ),
            sort="Looping now",
            width=24,
            height=6,
            row_links=[board.to_agent()],
        ),
        *(
            trace_table(
                search.title,
                f"Traces of the chosen agents and time range that {search.means}, the latest first. Normal is a few; "
                "a click on an id opens it.",
                search.traceql,
                no_data=not_found,
            )
            for search in searches.all_kinds()
        ),
    ]


# -- expressions -------------------------------------------------------------------------------------------------------


def _highest(expr: str, rank: str) -> str:
    """Of many agents, those whose `rank` was highest at some time of the range."""
    return f"{expr} and on (agent) topk(8, max_over_time({rank}[$__range] @ end()))"


def _recorded(histogram: str, named: Mapping[float, str], by: str = "") -> list[Query]:
    """Its quantiles over time, each with its legend."""
    return [
        Query(recorded_quantile(share, histogram, AGENT, by), legend, step=RECORDED_STEP)
        for share, legend in named.items()
    ]


def _latency(share: float) -> str:
    # Without observations the quantile is NaN, which is no answer.
    return f"histogram_quantile({share}, sum by (le) (rate(agent_task_duration_seconds_bucket{{{AGENT}}}[1h]))) >= 0"


def _tool_latency(share: float) -> str:
    return (
        f"histogram_quantile({share}, sum by (le, agent, tool) "
        f"(rate(agent_tool_duration_seconds_bucket{{{AGENT}}}[1h]))) >= 0"
    )


def _spent_per_task() -> str:
    return (
        f"sum(increase(agent_spend_usd_total{{{AGENT}}}[1h]))"
        f" / (sum(increase(agent_tasks_started_total{{{AGENT}}}[1h])) > 0)"
    )


def _usual_per_task() -> str:
    """Each agent's median, weighted by the tasks that it starts now; of the agents that have one."""
    expected = f'agent:spend_usd:expected{{{AGENT},basis="traffic"}}'
    return (
        f"sum({expected}) / (sum(max by (agent) (agent:tasks_started:rate{{{AGENT}}}) and on (agent) {expected}) > 0)"
    )


def _shift(title: str, what: str, score: str, thresholds: Thresholds, site: Site) -> gl.TimeSeries:
    alert = "AgentConfidenceShift" if score == "task_confidence" else "AgentGoalAlignmentShift"
    return timeseries(
        f"{title}: shift against the week",
        f"{what}: how far the distribution of 6 hours is from that of the 7 days before, the greatest distance of the "
        "two cumulative curves (0 is the same, 1 nothing in common), for the task type that is furthest. Normal is "
        "under 0.1; the line is where it is told. The agent's own dashboard shows the distributions.",
        Query(
            f'max by (agent) (last_over_time(agent_task_type:{score}:distance{{{AGENT},window="6h"}}[20m]))',
            "{{agent}}",
        ),
        unit="none",
        thresholds=steps(("transparent", None), ("red", thresholds.value("score_shift"))),
        links=[board.runbook(alert, site)],
        no_data="No distribution yet: it takes some hundred scores",
    )
