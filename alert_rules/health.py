"""The alerts on the measuring itself: an exporter that is gone, and a heartbeat whose silence is the alarm."""

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
