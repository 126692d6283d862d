"""One agent: its objectives and budgets, and everything by task type, tool and model."""

from grafanalib import core as gl

from alert_rules.rules import Site
from alert_rules.slo import BURN_IN_1H, BURN_IN_6H
from alert_rules.thresholds import Thresholds
from dashboards import alerts, board, searches
from dashboards.panels import (
    Column,
    Query,
    above,
    bar_gauge,
    by_name,
    colours,
    dashed,
    heatmap,
    lit,
    minutes,
    percent,
    stat,
    steps,
    table,
    timeseries,
    trace_table,
)

UID = "agent-oncall-agent"
CHOSEN = "${agent}"
"""The variable `agent` in links: Grafana fills it in before it decodes them, so that it must stand as it is."""
AGENT = 'agent="$agent"'
CALL = f'{AGENT},variant=~"$variant"'
TASK = f'{CALL},task_type=~"$task_type"'
TOOL = f'{CALL},tool=~"$tool"'

OUTCOMES = {"success": "green", "failure": "yellow", "error": "red", "abandoned": "orange"}
BREAKER = {0.0: ("closed", "green"), 1.0: ("half-open", "yellow"), 2.0: ("open", "red")}
_NO_TASK = "No task of these types ended in this time"
_NO_TOOL = "None of these tools was called in this time"


def agent(thresholds: Thresholds, site: Site = board.HERE) -> gl.Dashboard:
    """Everything about the agent that the variable `agent` chooses."""
    return board.board(
        "agent-oncall agent detail",
        UID,
        "One LLM agent: objectives and budgets, outcomes, behaviour, cost, by task type, tool and model.",
        ("Now", _now(thresholds, site)),
        ("Objectives and budgets", _objectives(thresholds, site)),
        ("Outcomes by task type", _outcomes(thresholds, site)),
        ("Behaviour by task type and tool", _behaviour(thresholds, site)),
        ("Cost by task type and model", _cost(thresholds, site)),
        ("Traces and limits", _traces_and_limits()),
        variables=[
            board.agent(several=False),
            board.task_type(),
            board.tool(),
            board.variant(),
            board.jaeger_url(),
        ],
        site=site,
    )


def _now(thresholds: Thresholds, site: Site) -> list[gl.Panel]:
    worst = "max(agent_task_in_flight_{}_max{{{}}})"
    return [
        alerts.tile(AGENT),
        stat(
            "Spend now",
            "USD an hour by the last 5 minutes, running tasks included, and the same as a multiple of the limit above "
            "which it pages. Normal is under 0.5.",
            Query(f'3600 * sum(agent:spend_usd:rate{{{AGENT},window="5m"}})', "USD an hour", now=True),
            Query(f'max(agent:spend_usd:excess{{{AGENT},window="5m"}})', "times its limit", now=True),
            unit="currencyUSD",
            width=4,
            overrides=[
                by_name("times its limit", unit="suffix: ×", decimals=1, thresholds=lit(("orange", 0.7), ("red", 1)))
            ],
            background=True,
            links=[board.runbook("AgentCostAnomaly", site)],
            no_data="No recorded series: are the rules loaded?",
        ),
        stat(
            "Tasks",
            "Tasks that run now, and those of them that loop. Normal follows the traffic, with no loops.",
            Query(f"sum(agent_tasks_in_flight{{{AGENT}}})", "in flight", now=True),
            Query(f"sum(agent_tasks_looping{{{AGENT}}})", "looping", now=True),
            unit="short",
            width=4,
            overrides=[by_name("looping", thresholds=lit(("orange", 1), ("red", thresholds.value("looping_tasks"))))],
            background=True,
            links=searches.looping(CHOSEN).links(),
        ),
        stat(
            "The worst running tasks",
            "The most iterations, the greatest age and the most USD of any task that runs now; not always the same "
            "task. Normal is what ended tasks take: see below.",
            Query(worst.format("iterations", AGENT), "iterations", now=True),
            Query(worst.format("seconds", AGENT), "age", now=True),
            Query(worst.format("spend_usd", AGENT), "spend", now=True),
            unit="short",
            width=6,
            overrides=[
                by_name("age", unit="s", decimals=0),
                by_name("spend", unit="currencyUSD", decimals=2),
                by_name("iterations", thresholds=above(("orange", searches.MOST_ITERATIONS))),
            ],
            links=searches.costly(CHOSEN).links(),
        ),
        stat(
            "Breaker",
            "The circuit breaker as the agent's processes see it: closed lets every task run, half-open a few, open "
            "none. Normal is closed.",
            Query(f"max(agent_breaker_state{{{AGENT}}})", now=True),
            unit="none",
            width=3,
            states=BREAKER,
            names=False,
            no_data="no breaker: the agent does not use the library",
        ),
        stat(
            "Lag",
            "How long after its end the latest span arrived, the most of the last minute. Normal is a few seconds; "
            f"over {minutes(thresholds.value('lag_hold_seconds'))} a backlog is being drained, and cost alerts wait.",
            Query(f"max(agent_exporter_lag_seconds{{{AGENT}}})"),
            unit="s",
            width=4,
            decimals=1,
            thresholds=steps(("green", None), ("red", thresholds.value("lag_hold_seconds"))),
        ),
    ]


def _objectives(thresholds: Thresholds, site: Site) -> list[gl.Panel]:
    runbook = board.runbook("AgentErrorBudgetBurn", site)

    def of(series: str) -> str:
        return f"max by (slo) (last_over_time({series}[20m]))"

    return [
        table(
            "Objectives",
            "Each objective: the share of tasks that must be good, and what is left of the 28 days' budget for bad "
            "ones (below 0 it is overspent). A burn of 1 uses the budget up in 28 days. Normal is a burn around 1 "
            "and a budget above 0. Good is: the goal reached (success); within "
            f"{thresholds.value('slo_latency_seconds'):g} s (latency); at most {thresholds.value('slo_cost_usd'):g} "
            "USD (cost), where the agent or task type has no own limit.",
            {"slo": "Objective"},
            Column("At least", of(f"agent:slo_objective{{{AGENT}}}"), "percentunit", decimals=1, width=80),
            Column(
                "Good, 28 d",
                "1 - " + of(f'agent:slo_bad:ratio{{{AGENT},window="28d"}}'),
                "percentunit",
                decimals=2,
                width=95,
            ),
            Column(
                "Budget left",
                of(f"agent:slo_budget_left:ratio28d{{{AGENT}}}"),
                "percentunit",
                steps(("red", None), ("orange", 0), ("green", 0.25)),
                cell="gauge",
                most=1,
                decimals=0,
            ),
            Column(
                "Burn, 1 h",
                of(f'agent:slo_burn_rate{{{AGENT},window="1h"}}'),
                "suffix: ×",
                above(("orange", 3), ("red", BURN_IN_1H)),
                decimals=1,
                width=85,
            ),
            Column(
                "Burn, 6 h",
                of(f'agent:slo_burn_rate{{{AGENT},window="6h"}}'),
                "suffix: ×",
                above(("orange", 3), ("red", BURN_IN_6H)),
                decimals=1,
                width=85,
            ),
            sort="Burn, 1 h",
            width=12,
            height=6,
            links=[runbook],
            no_data="No objective is measured yet: it takes an hour of tasks",
        ),
        timeseries(
            "Budget burn",
            "How fast each objective's budget burns over an hour, in multiples of the rate that uses it up in 28 "
            "days; the line is 2 % of it in an hour, where it alerts. Normal is around 1.",
            Query(of(f'agent:slo_burn_rate{{{AGENT},window="1h"}}'), "{{slo}}"),
            unit="suffix: ×",
            width=6,
            height=6,
            thresholds=steps(("transparent", None), ("red", BURN_IN_1H)),
            links=[runbook],
            no_data="No objective is measured yet: it takes an hour of tasks",
        ),
        timeseries(
            "Budget left over 28 days",
            "What is left of each objective's budget for bad tasks; below 0 it is overspent. Normal is a slow saw "
            "above 0.",
            Query(of(f"agent:slo_budget_left:ratio28d{{{AGENT}}}"), "{{slo}}"),
            unit="percentunit",
            width=6,
            height=6,
            time_from="28d",
            thresholds=steps(("red", None), ("transparent", 0)),
            links=[runbook],
            no_data="No objective is measured yet: it takes an hour of tasks",
        ),
    ]


def _outcomes(thresholds: Thresholds, site: Site) -> list[gl.Panel]:
    ended = f"agent_tasks_total{{{TASK}}}"
    return [
        timeseries(
            "Success rate",
            "Share of the tasks ended in the last hour that reached their goal, by task type. Normal is 80 to 90 %; "
            f"alerts below {percent(thresholds.value('success_rate'))} over 7 days.",
            Query(
                f'sum by (task_type) (increase(agent_tasks_total{{{TASK},outcome="success"}}[1h]))'
                f" / (sum by (task_type) (increase({ended}[1h])) > 0)",
                "{{task_type}}",
            ),
            unit="percentunit",
            most=1,
            thresholds=steps(("red", None), ("transparent", thresholds.value("success_rate"))),
            links=[*searches.failed(CHOSEN).links(), board.runbook("AgentSuccessRateLow", site)],
            no_data=_NO_TASK,
        ),
        timeseries(
            "Ended tasks by outcome",
            "Tasks an hour by how they ended. Normal is mostly success (green), and failure where a goal is hard.",
            Query(f"3600 * sum by (outcome) (rate({ended}[$__rate_interval]))", "{{outcome}}"),
            unit="short",
            stacked=True,
            overrides=colours(OUTCOMES),
            no_data=_NO_TASK,
        ),
        timeseries(
            "Errors and abandons by reason",
            "Tasks of the last hour that failed with an error or were abandoned, by reason, a share of all that "
            "ended. Normal is a few user cancels; provider and rate_limit are the provider's, tool is a tool's.",
            Query(
                f'sum by (outcome, reason) (increase(agent_tasks_total{{{TASK},outcome=~"error|abandoned"}}[1h]))'
                f" / on () group_left () (sum(increase({ended}[1h])) > 0) > 0",
                "{{outcome}}: {{reason}}",
            ),
            unit="percentunit",
            stacked=True,
            links=[*searches.failed(CHOSEN).links(), board.runbook("AgentErrorRateHigh", site)],
            no_data="No task failed or was abandoned in this time",
        ),
        heatmap(
            "Latency of ended tasks",
            "Tasks by end-to-end time: the darker, the more. Normal is a band between 30 and 60 s; a second band "
            "above is a kind of task, a tool or a model that became slow.",
            Query(
                f"sum by (le) (increase(agent_task_duration_seconds_bucket{{{TASK}}}[$__rate_interval]))",
                "{{le}}",
                buckets=True,
            ),
            unit="s",
            width=12,
            links=searches.slow(CHOSEN).links(),
            no_data=_NO_TASK,
        ),
        timeseries(
            "Latency by task type",
            "P99 of the end-to-end time of the tasks ended in the last hour, by task type, and P50 (dashed). Normal "
            "is 30 to 60 s; P99 of the whole agent above the line pages, where at least "
            f"{thresholds.value('latency_min_count'):g} tasks were slow and not by chance.",
            Query(
                _quantile(0.99, "agent_task_duration_seconds", TASK, "1h", "task_type"), "{{task_type}}", exemplars=True
            ),
            Query(_quantile(0.5, "agent_task_duration_seconds", TASK, "1h", "task_type"), "{{task_type}} P50"),
            unit="s",
            width=12,
            overrides=[dashed("/ P50$/", legend=False)],
            thresholds=steps(("transparent", None), ("red", thresholds.value("latency_p99_seconds"))),
            links=[*searches.slow(CHOSEN).links(), board.runbook("AgentLatencyP99High", site)],
            no_data=_NO_TASK,
        ),
    ]


def _behaviour(thresholds: Thresholds, site: Site) -> list[gl.Panel]:
    calls = f"agent_tool_calls_total{{{TOOL}}}"
    return [
        heatmap(
            "Iterations of ended tasks",
            "Tasks by how many iterations they took: the darker, the more. Normal is a steady band; one that climbs "
            "is a prompt or an input that makes tasks go round.",
            Query(
                f"sum by (le) (increase(agent_task_iterations_bucket{{{TASK}}}[$__rate_interval]))",
                "{{le}}",
                buckets=True,
            ),
            unit="none",
            width=8,
            links=searches.looping(CHOSEN).links(),
            no_data=_NO_TASK,
        ),
        timeseries(
            "Iterations by task type",
            "P99 of the iterations of the tasks ended in the last hour, by task type, and P50 (dashed). Normal is "
            "steady.",
            Query(_quantile(0.99, "agent_task_iterations", TASK, "1h", "task_type"), "{{task_type}}"),
            Query(_quantile(0.5, "agent_task_iterations", TASK, "1h", "task_type"), "{{task_type}} P50"),
            unit="none",
            overrides=[dashed("/ P50$/", legend=False)],
            links=[board.runbook("AgentIterationsSpike", site)],
            no_data=_NO_TASK,
        ),
        timeseries(
            "Running tasks that loop, by reason",
            "failing_tool: calls of one tool failed in 3 iterations in a row; repeat: the same call with the same "
            "arguments in 3; iterations: far more than this agent ever needed. Normal is none.",
            Query(f"sum by (why) (agent_tasks_looping{{{AGENT}}})", "{{why}}"),
            unit="short",
            stacked=True,
            overrides=colours({"failing_tool": "red", "repeat": "orange", "iterations": "yellow"}),
            links=[*searches.looping(CHOSEN).links(), board.runbook("AgentRunawayLoop", site)],
        ),
        timeseries(
            "Tool calls",
            "Calls a minute by tool, of running tasks as well. Normal follows the tasks; one tool that leaves the "
            "others behind is what a loop calls.",
            Query(f"60 * sum by (tool) (rate({calls}[$__rate_interval]))", "{{tool}}"),
            unit="none",
            no_data=_NO_TOOL,
        ),
        timeseries(
            "Tool calls that fail",
            "Share of a tool's calls of the last hour that ran and failed, or were invalid (dashed): a required "
            "field missing or of the wrong type. Normal is a few percent; validity alerts below "
            f"{percent(thresholds.value('tool_validity'))}.",
            Query(_of_tool_calls("error"), "{{tool}}"),
            Query(_of_tool_calls("invalid"), "{{tool}} invalid"),
            unit="percentunit",
            overrides=[dashed("/ invalid$/", legend=False)],
            thresholds=steps(("transparent", None), ("red", 1 - thresholds.value("tool_validity"))),
            links=[board.runbook("AgentToolValidityLow", site)],
            no_data=_NO_TOOL,
        ),
        timeseries(
            "Tool latency",
            "P99 of a tool's calls of the last hour, and P50 (dashed). Normal is steady.",
            Query(_quantile(0.99, "agent_tool_duration_seconds", TOOL, "1h", "tool"), "{{tool}}"),
            Query(_quantile(0.5, "agent_tool_duration_seconds", TOOL, "1h", "tool"), "{{tool}} P50"),
            unit="s",
            overrides=[dashed("/ P50$/", legend=False)],
            no_data=_NO_TOOL,
        ),
        table(
            "Tools now",
            "Tool calls of the last hour. Normal is nearly all valid. A click on a tool opens its traces.",
            {"tool": "Tool"},
            Column("Calls", f"sum by (tool) (increase({calls}[1h])) > 0", "short", decimals=0, width=80),
            Column(
                "Valid",
                f'sum by (tool) (rate(agent_tool_calls_total{{{TOOL},result!="invalid"}}[1h]))'
                f" / (sum by (tool) (rate({calls}[1h])) > 0)",
                "percentunit",
                steps(("red", None), ("green", thresholds.value("tool_validity"))),
                cell="gauge",
                most=1,
                decimals=0,
            ),
            Column(
                "Errors",
                _of_tool_calls("error"),
                "percentunit",
                above(("orange", 0.1), ("red", 0.3)),
                decimals=1,
                width=80,
            ),
            Column("P50", _quantile(0.5, "agent_tool_duration_seconds", TOOL, "1h", "tool"), "s", width=80),
            Column("P99", _quantile(0.99, "agent_tool_duration_seconds", TOOL, "1h", "tool"), "s", width=80),
            sort="Calls",
            width=12,
            row_links=searches.of_tool(CHOSEN, "${__data.fields.Tool}").links(),
            no_data=_NO_TOOL,
        ),
        timeseries(
            "How LLM calls stop",
            "LLM calls a minute by why they stopped. Normal is tool_use and end_turn; max_tokens cuts answers off, "
            "error is a call that failed.",
            Query(
                f"60 * sum by (stop_reason) (rate(agent_iterations_total{{{CALL}}}[$__rate_interval])) > 0",
                "{{stop_reason}}",
            ),
            unit="none",
            width=6,
            height=8,
            stacked=True,
            overrides=colours(
                {"end_turn": "green", "tool_use": "blue", "max_tokens": "orange", "refusal": "purple", "error": "red"}
            ),
            links=[board.runbook("AgentProviderOutage", site)],
        ),
        timeseries(
            "Refusals",
            "Share of the LLM calls of the last hour that were answered with a refusal, by model. Normal is under 1 %.",
            Query(
                f"sum by (model) (rate(agent_refusals_total{{{CALL}}}[1h]))"
                f" / (sum by (model) (rate(agent_iterations_total{{{CALL}}}[1h])) > 0)",
                "{{model}}",
            ),
            unit="percentunit",
            width=6,
            height=8,
        ),
        timeseries(
            "Latency per LLM call",
            "P99 of one LLM call, by model, and P50 (dashed). Normal is steady; a step is the provider's.",
            Query(
                _quantile(0.99, "agent_iteration_duration_seconds", CALL, "$__rate_interval", "model"),
                "{{model}}",
                exemplars=True,
            ),
            Query(
                _quantile(0.5, "agent_iteration_duration_seconds", CALL, "$__rate_interval", "model"), "{{model}} P50"
            ),
            unit="s",
            width=12,
            overrides=[dashed("/ P50$/", legend=False)],
        ),
        timeseries(
            "Time to first token",
            "P99 of streaming calls, by model, and P50 (dashed). Normal is under 5 s.",
            Query(_quantile(0.99, "agent_time_to_first_token_seconds", CALL, "$__rate_interval", "model"), "{{model}}"),
            Query(
                _quantile(0.5, "agent_time_to_first_token_seconds", CALL, "$__rate_interval", "model"), "{{model}} P50"
            ),
            unit="s",
            width=12,
            overrides=[dashed("/ P50$/", legend=False)],
            no_data="No streaming call told its first token",
        ),
        *_scores("Confidence", "The agent's own score", "task_confidence", "AgentConfidenceShift", site),
        *_scores("Goal alignment", "The judge's score", "task_goal_alignment", "AgentGoalAlignmentShift", site),
    ]


def _cost(thresholds: Thresholds, site: Site) -> list[gl.Panel]:
    spend = f"agent_spend_usd_total{{{CALL}}}"
    tokens = f"agent_tokens_total{{{CALL}}}"
    return [
        timeseries(
            "Spend by model",
            "USD an hour by model, running tasks included. Normal follows the tasks.",
            Query(f"3600 * sum by (model) (rate({spend}[$__rate_interval])) > 1e-6", "{{model}}"),
            unit="currencyUSD",
            stacked=True,
            links=[*searches.costly(CHOSEN).links(), board.runbook("AgentCostAnomaly", site)],
        ),
        timeseries(
            "Cost per ended task",
            "Mean USD of the tasks ended in the last hour, by task type, and the week's mean of the type times the "
            "factor that alerts (dashed). Normal is well below. A task that runs away is not in it until it ends.",
            Query(
                f"sum by (task_type) (increase(agent_task_cost_usd_sum{{{TASK}}}[1h]))"
                f" / (sum by (task_type) (increase(agent_task_cost_usd_count{{{TASK}}}[1h])) > 0)",
                "{{task_type}}",
            ),
            Query(
                f"{thresholds.value('cost_per_task_factor')} * max by (task_type) "
                f'(last_over_time(agent_task_type:cost_usd:mean7d{{{AGENT},task_type=~"$task_type"}}[20m]))',
                "{{task_type}} limit",
            ),
            unit="currencyUSD",
            overrides=[dashed("/ limit$/", "red", legend=False)],
            links=[*searches.costly(CHOSEN).links(), board.runbook("AgentCostPerTaskHigh", site)],
            no_data=_NO_TASK,
        ),
        bar_gauge(
            "Ended tasks by cost",
            "Tasks ended in the time range by what they cost, in USD (up to and including the number). Normal is one "
            "hump.",
            Query(
                f"sum by (le) (increase(agent_task_cost_usd_bucket{{{TASK}}}[$__range]))",
                "{{le}}",
                now=True,
                buckets=True,
            ),
            unit="short",
            width=8,
            decimals=0,
            no_data=_NO_TASK,
        ),
        timeseries(
            "Tokens by direction",
            "Tokens a minute: input is uncached, and the four add up to all tokens. Normal is much cache_read where "
            "the prompt is long.",
            Query(f"60 * sum by (direction) (rate({tokens}[$__rate_interval]))", "{{direction}}"),
            unit="short",
            stacked=True,
        ),
        timeseries(
            "Token waste by reason",
            "Share of the last hour's tokens that went into retries (the same call again) and into recovery (turns "
            "spent on a failed tool call). Normal is under 10 %; alerts above "
            f"{percent(thresholds.value('token_waste'))}.",
            Query(
                f'sum by (purpose) (rate(agent_tokens_total{{{CALL},purpose!="progress"}}[1h]))'
                f" / on () group_left () (sum(rate({tokens}[1h])) > 0)",
                "{{purpose}}",
            ),
            unit="percentunit",
            stacked=True,
            overrides=colours({"retry": "yellow", "recovery": "orange"}),
            thresholds=steps(("transparent", None), ("red", thresholds.value("token_waste"))),
            links=[board.runbook("AgentTokenWasteHigh", site)],
        ),
        table(
            "Cost unknown, by model",
            "Tokens of models without a price, and calls that told no token count, in the time range: spend that no "
            "other panel shows. Normal is an empty table.",
            {"model": "Model"},
            Column(
                "Tokens without a price",
                f"sum by (model) (increase(agent_unpriced_tokens_total{{{AGENT}}}[$__range])) > 0",
                "short",
                above(("orange", 1)),
            ),
            Column(
                "Calls without tokens",
                f"sum by (model) (increase(agent_unmetered_calls_total{{{AGENT}}}[$__range])) > 0",
                "short",
                above(("orange", 1)),
            ),
            sort="Tokens without a price",
            width=8,
            height=7,
            links=[board.runbook("AgentCostUnknown", site)],
            no_data="Every token has its price",
        ),
    ]


def _traces_and_limits() -> list[gl.Panel]:
    return [
        *(
            trace_table(
                search.title,
                f"Traces of the agent and the time range that {search.means}, the latest first. Normal is a few; a "
                "click on an id opens it.",
                search.traceql,
                no_data="Tempo found no such trace of this agent in this time",
            )
            for search in searches.all_kinds(CHOSEN)
        ),
        table(
            "Limits in force",
            "The numbers that this agent's alerts compare with: its own where it has one, else everybody's. Normal is "
            "few of its own. They come from thresholds.yml.",
            {"name": "Limit"},
            Column("In force", f'max by (name) (agent:limit{{{AGENT}}} or on (name) agent:limit{{agent="*"}})', "none"),
            Column("Its own", f"max by (name) (agent:limit{{{AGENT}}})", "none", above(("blue", 0))),
            sort="Its own",
            width=24,
            height=10,
            no_data="No recorded limits: are the rules loaded?",
        ),
    ]


# -- expressions -------------------------------------------------------------------------------------------------------


def _quantile(share: float, histogram: str, selector: str, window: str, by: str) -> str:
    # Without observations the quantile is NaN, which is no answer.
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({histogram}_bucket{{{selector}}}[{window}]))) >= 0"


def _of_tool_calls(result: str) -> str:
    return (
        f'sum by (tool) (rate(agent_tool_calls_total{{{TOOL},result="{result}"}}[1h]))'
        f" / (sum by (tool) (rate(agent_tool_calls_total{{{TOOL}}}[1h])) > 0)"
    )


def _scores(title: str, what: str, score: str, alert: str, site: Site) -> list[gl.Panel]:
    selector = f'{AGENT},task_type=~"$task_type"'
    of_range = f"sum by (le) (increase(agent_{score}_bucket{{{TASK}}}[$__range]))"
    of_week = f"avg by (le) (last_over_time(agent_task_type_le:{score}:share7d{{{selector}}}[20m]))"
    return [
        bar_gauge(
            title,
            f"{what} of a task, 0 to 1: tasks of the time range by score (up to and including the number). Normal is "
            "the picture beside it.",
            Query(of_range, "{{le}}", now=True, buckets=True),
            unit="short",
            width=6,
            decimals=0,
            links=[board.runbook(alert, site)],
            no_data="No task was scored in this time",
        ),
        bar_gauge(
            f"{title}: the week before",
            f"{what} of a task, 0 to 1: the share of the tasks of 7 days, mean of the task types. Normal is a hump "
            "near 0.9.",
            Query(of_week, "{{le}}", now=True, buckets=True),
            unit="percentunit",
            width=6,
            decimals=0,
            links=[board.runbook(alert, site)],
            no_data="No distribution of a week yet",
        ),
    ]
