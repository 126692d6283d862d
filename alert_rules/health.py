"""The alerts on the measuring itself: an exporter that is gone or hears nothing, and a heartbeat that must not stop."""

from alert_rules.rules import Alert, Group, Severity
from exporter.contract import SCRAPE_JOB

GROUP = Group(
    "agent-health",
    (
        Alert(
            name="AgentExporterDown",
            requirement="METRICS: the scrape job is agent-exporter",
            severity=Severity.PAGE,
            cause="exporter",
            expr=f"""
            up{{job="{SCRAPE_JOB}"}} == 0
            or
            # none answers, or there is no such target: without the label instance, by which routing tells the two apart
            absent(up{{job="{SCRAPE_JOB}"}} == 1)
            """,
            # A restart is over in less.
            wait="3m",
            keep_firing_for="5m",
            summary=(
                "{{ if $labels.instance }}The exporter {{ $labels.instance }} is not scraped"
                "{{ else }}No exporter is scraped{{ end }}: agents run unwatched"
            ),
            description="""
            Prometheus has had no answer from the exporter for 3 minutes. Its agents run without alerts.
            """,
        ),
        Alert(
            name="Watchdog",
            requirement="ALERTS: always firing, to a dead man's switch",
            severity=Severity.NONE,
            cause="watchdog",
            expr="vector(1)",
            summary="Alerting works",
            description="Always firing. Whoever expects it and does not hear it knows that alerts no longer arrive.",
        ),
    ),
)

SLOW = Group(
    "agent-exporter",
    (
        Alert(
            name="AgentExporterSilent",
            requirement="ALERTS: up, but no span from anyone where there were many an hour ago",
            severity=Severity.CHAT,
            cause="exporter",
            expr="""
            # spans of the same quarter of an hour, yesterday
            sum(increase(agent_exporter_spans_total{result="counted"}[15m] offset 1d)) > 0
            and on ()
              # and no evening followed: the next hour had half as many as the one before
              sum(increase(agent_exporter_spans_total{result="counted"}[1h] offset 23h))
                > 0.5 * sum(increase(agent_exporter_spans_total{result="counted"}[1h] offset 1d))
            and on ()
              sum(increase(agent_exporter_spans_total{result="counted"}[1h] offset 15m)) > 100
            and on ()
              # so many tasks that a quarter of an hour without one is no chance
              sum(increase(agent_tasks_started_total[1h] offset 15m)) > 30
            and on ()
              sum(increase(agent_exporter_spans_total{result="counted"}[15m])) == 0
            """,
            wait="5m",
            keep_firing_for="10m",
            summary="No agent has sent a span for 20 minutes, though the exporters are up",
            description="""
            The exporters answer scrapes but count nothing, where there were spans an hour ago and at this time
            yesterday: the Collector in front of them, the network or every agent's instrumentation has stopped. No
            other alert can fire.
            """,
        ),
        Alert(
            name="AgentSeriesLimited",
            requirement="METRICS: values folded into other",
            severity=Severity.DASHBOARD,
            cause="exporter",
            expr="sum by (label) (increase(agent_exporter_series_limited_total[1h])) > 0",
            keep_firing_for="1h",
            summary="The label {{ $labels.label }} has more values than it may: new ones are counted as other",
            description="""
            An exporter folded values of this label into `other`: their figures are right in sum, but no longer told
            apart. Names made up by a model or holding an id are the usual reason; max_values in its config is the
            limit.
            """,
        ),
    ),
    "5m",
)
