"""The first screen of the person on call: four rows, from "is it burning" to the traces that say why."""

from grafanalib import core as gl

from alert_rules.thresholds import Thresholds
from dashboards.explore import traces
from dashboards.panels import Query, bar_gauge, dashed, pie, rows, stat, steps, text, timeseries

UID = "agent-oncall-overview"
AGENT = 'agent=~"$agent"'


def overview(thresholds: Thresholds) -> gl.Dashboard:
    """The overview of all agents, or of those chosen by the variable `agent`."""
    return gl.Dashboard(
        title="agent-oncall overview",
        uid=UID,
        description="LLM agents: health, behaviour, cost, and the traces behind them.",
        tags=["agent-oncall"],
        timezone="browser",
        refresh="30s",
        time=gl.Time("now-6h", "now"),
        templating=gl.Templating(
            [
                gl.Template("prometheus_datasource", "prometheus", type="datasource", label="Prometheus data source"),
                gl.Template("tempo_datasource", "tempo", type="datasource", label="Tempo data source"),
                gl.Template(
                    "agent",
                    "label_values(agent_tasks_started_total, agent)",
                    dataSource={"type": "prometheus", "uid": "${prometheus_datasource}"},
                    label="Agent",
                    multi=True,
                    includeAll=True,
                    allValue=".+",
                ),
            ]
        ),
        panels=rows(
            ("Health at a glance", _health(thresholds)),
            ("Agent behaviour", _behaviour()),
            ("Cost breakdown", _cost()),
            ("Trace explorer", _traces()),
        ),
    ).auto_panel_ids()


def _health(thresholds: Thresholds) -> list[gl.Panel]:
    error_rate = thresholds.value("error_rate")
    failed = f'sum(agent_outcome:tasks_ended:increase{{{AGENT},window="10m",outcome="error"}})'
    ended = f'sum(agent:tasks_ended:increase{{{AGENT},window="10m"}})'
    duration = f"sum by (le) (rate(agent_task_duration_seconds_bucket{{{AGENT}}}[1h]))"
    return [
        stat(
            "Success rate",
            "Share of ended tasks that reached their goal, hour by hour over 7 days; the number is the last hour. "
            "Alerts below 70 % over 7 days.",
            Query(
                f'sum(last_over_time(agent_outcome:tasks_ended:increase1h{{{AGENT},outcome="success"}}[20m]))'
                f" / sum(last_over_time(agent_outcome:tasks_ended:increase1h{{{AGENT}}}[20m]))"
            ),
            unit="percentunit",
            decimals=1,
            time_from="7d",
            points=1000,
            thresholds=steps(("red", None), ("green", 0.7)),
        ),
        stat(
            "Cost per task",
            "USD spent in the last hour for each task started in it, running tasks included, and the median hour of "
            "the last 7 days.",
            Query(
                f"sum(rate(agent_spend_usd_total{{{AGENT}}}[1h]))"
                f" / sum(rate(agent_tasks_started_total{{{AGENT}}}[1h]))",
                "now",
                now=True,
            ),
            Query(
                f"avg(last_over_time(agent:usd_per_started_task:median7d{{{AGENT}}}[1h]))",
                "7-day baseline",
                now=True,
            ),
            unit="currencyUSD",
            width=4,
        ),
        stat(
            "Latency",
            "End-to-end time of the tasks that ended in the last hour. Normal is 30-60 s; P99 above 5 minutes pages.",
            Query(f"histogram_quantile(0.5, {duration})", "P50", now=True),
            Query(f"histogram_quantile(0.99, {duration})", "P99", now=True),
            unit="s",
            width=4,
            thresholds=steps(("text", None), ("red", 300)),
        ),
        stat(
            "Error rate",
            "Share of the tasks ended in the last 10 minutes that failed with an error. Pages above 20 %.",
            Query(f"{failed} / ({ended} > 0)"),
            unit="percentunit",
            decimals=1,
            thresholds=steps(("green", None), ("red", error_rate)),
        ),
        stat(
            "Spend now",
            "USD an hour, from the spend of the last 5 minutes, running tasks included.",
            Query(f'3600 * sum(agent:spend_usd:rate{{{AGENT},window="5m"}})'),
            unit="currencyUSD",
        ),
        stat(
            "In flight",
            "Tasks seen that have neither ended nor been given up.",
            Query(f"sum(agent_tasks_in_flight{{{AGENT}}})"),
            unit="short",
        ),
        stat(
            "Looping",
            "Running tasks that repeat one call, fail on one tool again and again, or iterate far beyond normal. "
            "Normal is 0.",
            Query(f"sum(agent_tasks_looping{{{AGENT}}})"),
            unit="short",
            width=2,
            thresholds=steps(("green", None), ("red", 1)),
        ),
        stat(
            "Alerts",
            "Alerts that fire now for the chosen agents.",
            Query(f'count(ALERTS{{alertstate="firing",{AGENT}}}) or vector(0)', now=True),
            unit="short",
            width=2,
            thresholds=steps(("green", None), ("red", 1)),
        ),
        timeseries(
            "Spend against its limit",
            "USD an hour by agent, and the limit above which AgentCostAnomaly pages (dashed). The limit follows "
            "traffic: a launch raises both.",
            Query(f'3600 * agent:spend_usd:rate{{{AGENT},window="5m"}}', "{{agent}}", exemplars=True),
            Query(f"3600 * agent:spend_usd:limit{{{AGENT}}}", "{{agent}} limit"),
            unit="currencyUSD",
            overrides=[dashed("/ limit$/")],
        ),
        timeseries(
            "Latency over time",
            "P50 and P99 of the end-to-end time of ended tasks.",
            Query(
                "histogram_quantile(0.5, sum by (le) "
                f"(rate(agent_task_duration_seconds_bucket{{{AGENT}}}[$__rate_interval])))",
                "P50",
            ),
            Query(
                "histogram_quantile(0.99, sum by (le) "
                f"(rate(agent_task_duration_seconds_bucket{{{AGENT}}}[$__rate_interval])))",
                "P99",
                exemplars=True,
            ),
            unit="s",
        ),
        timeseries(
            "Error rate by agent",
            "Share of the tasks ended in the last 10 minutes that failed with an error; the line is where it pages.",
            Query(f'agent:error_ratio:rate{{{AGENT},window="10m"}}', "{{agent}}"),
            unit="percentunit",
            thresholds=steps(("green", None), ("red", error_rate)),
        ),
    ]


def _behaviour() -> list[gl.Panel]:
    return [
        bar_gauge(
            "Iterations per task",
            "Tasks ended in the time range by how many iterations they took (up to and including the number).",
            Query(
                f"sum by (le) (increase(agent_task_iterations_bucket{{{AGENT}}}[$__range]))",
                "{{le}}",
                now=True,
                buckets=True,
            ),
            unit="short",
        ),
        pie(
            "Tools called most",
            "Tool calls of the time range, by tool.",
            Query(
                f"topk(10, sum by (tool) (increase(agent_tool_calls_total{{{AGENT}}}[$__range])) > 0)",
                "{{tool}}",
                now=True,
            ),
            unit="short",
        ),
        pie(
            "Tools failing most",
            "Tool calls of the time range that failed or were called wrongly, by tool.",
            Query(
                f'topk(10, sum by (tool) (increase(agent_tool_calls_total{{{AGENT},result!="ok"}}[$__range])) > 0)',
                "{{tool}}",
                now=True,
            ),
            unit="short",
        ),
        timeseries(
            "Abandoned tasks",
            "Share of ended tasks that were abandoned: cancelled, timed out, out of iterations, or never finished. "
            "Alerts above 15 % over 7 days.",
            Query(
                f'sum by (agent) (increase(agent_tasks_total{{{AGENT},outcome="abandoned"}}[1h]))'
                f" / (sum by (agent) (increase(agent_tasks_total{{{AGENT}}}[1h])) > 0)",
                "{{agent}}",
            ),
            unit="percentunit",
            width=6,
        ),
    ]


def _cost() -> list[gl.Panel]:
    return [
        timeseries(
            "Cost of the last hour",
            "USD spent in the hour up to each moment, running tasks included.",
            Query(f"sum by (agent) (increase(agent_spend_usd_total{{{AGENT}}}[1h]))", "{{agent}}"),
            unit="currencyUSD",
        ),
        stat(
            "Cost of 24 hours",
            "USD spent in the last 24 hours, to the last quarter of an hour.",
            Query(f"sum(sum_over_time(agent:spend_usd:increase1h{{{AGENT}}}[1d])) / 4", now=True),
            unit="currencyUSD",
            width=4,
            height=8,
        ),
        pie(
            "Cost by task type",
            "USD of the tasks that ended in the time range. A running task is not in it.",
            Query(
                f"topk(10, sum by (task_type) (increase(agent_task_cost_usd_sum{{{AGENT}}}[$__range])) > 0)",
                "{{task_type}}",
                now=True,
            ),
            unit="currencyUSD",
        ),
        timeseries(
            "Token waste",
            "Share of all tokens that went into retries and into recovering from failed tool calls. Alerts above 30 %.",
            Query(
                f'sum by (purpose) (rate(agent_tokens_total{{{AGENT},purpose=~"retry|recovery"}}[$__rate_interval]))'
                f" / on () group_left () sum(rate(agent_tokens_total{{{AGENT}}}[$__rate_interval]))",
                "{{purpose}}",
            ),
            unit="percentunit",
            width=6,
        ),
    ]


def _traces() -> list[gl.Panel]:
    of_agent = 'resource.service.name =~ "${agent:regex}"'
    task = f'name = "agent.task" && {of_agent}'
    links = {
        "Failed tasks": f'{{ {task} && (status = error || span.task.status != "completed") }}',
        "Slow tasks": f"{{ {task} && duration > 5m }}",
        "Costly tasks": f"{{ {task} && span.task.cost_usd > 1 }}",
        "Looping tasks": f'{{ name = "agent.iteration" && {of_agent} && span.iteration.number > 25 }}',
    }
    listed = "\n".join(f"- [{title}]({traces(query)})" for title, query in links.items())
    return [
        text(
            "Traces of the chosen agents and time range",
            f"Opens in Explore, in the chosen Tempo:\n\n{listed}\n",
        )
    ]
