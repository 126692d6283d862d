"""A canary against stable: the stage, the verdict, the figures it rests on, and what was done."""

from grafanalib import core as gl

from alert_rules.rules import Site
from alert_rules.thresholds import Thresholds
from dashboards import alerts, board
from dashboards.panels import (
    Column,
    Query,
    above,
    by_name,
    colours,
    dashed,
    percent,
    stat,
    state_timeline,
    steps,
    table,
    text,
    timeseries,
)
from dashboards.promql import happened

UID = "agent-oncall-rollout"
AGENT = 'agent="$agent"'
ROLLOUT = f'{AGENT},rollout="$rollout"'
STAGE = f'{ROLLOUT},stage="$stage"'

VERDICTS = {-1.0: ("roll back", "red"), 0.0: ("hold", "blue"), 1.0: ("promote", "green")}
VARIANTS = {"stable": "blue", "canary": "orange"}
# The most by which a canary may be worse (requirement 5), and the t quantile of 16 shards of users at 95 %.
MARGIN = 0.05
_T15 = 2.13

_NO_ROLLOUT = "No rollout ran in this time: agent-oncall rollout start begins one"
_NO_CONTROLLER = "No controller is scraped, or no rollout runs"


def rollout(thresholds: Thresholds, site: Site = board.HERE) -> gl.Dashboard:
    """The rollout that the variables `agent`, `rollout` and `stage` choose."""
    return board.board(
        "agent-oncall rollout",
        UID,
        "Canary against stable: stage, verdict and why, tasks still needed, exposures, actions.",
        ("Stage and verdict", _verdict(site)),
        ("Canary against stable", _figures(site)),
        ("Everything else, by variant", _by_variant(thresholds)),
        ("Actions and A/B tests", _actions()),
        variables=[
            board.agent(several=False),
            board.choice(
                "rollout",
                f"label_values(agent_rollout_started_total{{{AGENT}}}, rollout)",
                label="Rollout",
                several=False,
            ),
            # one stage: pooled, the canary\'s share changes with the traffic, and so do the figures
            board.choice(
                "stage",
                f"label_values(agent_rollout_started_total{{{ROLLOUT}}}, stage)",
                label="Stage",
                several=False,
                sort=gl.SORT_NUMERIC_DESC,
            ),
        ],
        site=site,
        time_from="now-2d",
    )


def _verdict(site: Site) -> list[gl.Panel]:
    percent = f"max by (agent, rollout) (agent_rollout_stage_percent{{{ROLLOUT}}})"
    at_the_end = f"max by (agent, rollout) (agent_rollout_stage_percent{{{ROLLOUT}}} @ end())"
    success = f'sum(agent_rollout_tasks_total{{{STAGE},variant="stable",outcome="success"}})'
    all_stable = f'sum(agent_rollout_tasks_total{{{STAGE},variant="stable"}})'
    all_canary = f'sum(agent_rollout_tasks_total{{{STAGE},variant="canary"}})'
    return [
        stat(
            "Verdict",
            "The controller's verdict on the present stage. Normal is hold for a day or two, then promote; roll back "
            "fires AgentRolloutRollback. agent-oncall rollout status says why, and how many tasks it still needs.",
            Query(f"min(agent_rollout_verdict{{{ROLLOUT}}})", now=True),
            unit="none",
            width=4,
            states=VERDICTS,
            names=False,
            links=[board.runbook("AgentRolloutRollback", site)],
            no_data=_NO_CONTROLLER,
        ),
        stat(
            "Users on the canary",
            "The stage that is in force, and for how long. Normal is 24 to 48 hours for each of 5, 10, 25 and 50 %.",
            Query(f"max({percent})", "share", now=True),
            Query(f"300 * max(count_over_time(({percent} == {at_the_end})[14d:5m]))", "held for", now=True),
            unit="percent",
            width=5,
            decimals=0,
            overrides=[by_name("held for", unit="dtdurations", decimals=0)],
            no_data=_NO_CONTROLLER,
        ),
        stat(
            "Success rate, canary against stable",
            "Tasks of the stage that reached their goal, and by how much the canary's share is higher (relative). "
            "Normal is within 5 %.",
            Query(_success("canary"), "canary", now=True),
            Query(_success("stable"), "stable", now=True),
            Query(f"({_success('canary')}) / ({_success('stable')}) - 1", "difference", now=True),
            unit="percentunit",
            width=5,
            decimals=1,
            overrides=[by_name("difference", thresholds=steps(("red", None), ("green", -MARGIN)))],
            no_data="no task ended",
        ),
        stat(
            "Cost per task, canary against stable",
            "USD of a task that ended in the stage, and the canary's in multiples of what stable's tasks of the same "
            "types cost. Normal is up to 1.05.",
            Query(_cost_per_task("canary"), "canary", now=True),
            Query(_cost_per_task("stable"), "stable", now=True),
            Query(_cost_ratio(), "same types", now=True),
            unit="currencyUSD",
            width=5,
            overrides=[
                by_name(
                    "same types",
                    unit="suffix: ×",
                    decimals=2,
                    thresholds=steps(("green", None), ("red", 1 + MARGIN)),
                )
            ],
            no_data="no task ended",
        ),
        stat(
            "Canary tasks still needed",
            "How many more tasks the canary has to end before a success rate that is 5 % lower would be seen (80 % "
            "power, tasks taken as independent, so the least it can be). Normal is thousands at 5 % of the users.",
            Query(
                # two-sample z-test, one-sided 5 %, 80 % power: (1.645 + 0.842)^2 = 6.18
                f"clamp_min(6.18 / {MARGIN}^2 * ({all_stable} / ({success} > 0) - 1) * (1 + {all_canary} / "
                f"({all_stable} > 0)) - {all_canary}, 0)",
                now=True,
            ),
            unit="short",
            width=5,
            decimals=0,
            no_data="no task ended",
        ),
        timeseries(
            "Stage",
            "Share of users on the canary. Normal is a staircase up; a fall to 0 is a rollback.",
            Query(f"max by (rollout) (agent_rollout_stage_percent{{{ROLLOUT}}})", "{{rollout}}"),
            unit="percent",
            width=8,
            height=6,
            stepped=True,
            no_data=_NO_CONTROLLER,
        ),
        state_timeline(
            "Verdict by stage",
            "The controller's verdict over time, stage by stage. Normal is hold, then promote.",
            Query(f"min by (stage) (agent_rollout_verdict{{{ROLLOUT}}})", "stage {{stage}}"),
            states=VERDICTS,
            width=8,
            height=6,
            no_data=_NO_CONTROLLER,
        ),
        alerts.listed(AGENT, site, width=8),
    ]


def _figures(site: Site) -> list[gl.Panel]:
    return [
        table(
            "The two variants",
            "Tasks since the stage began. The ± holds 95 of 100 times at one look, by how the 16 shards of users "
            "differ; the verdict's own are wider, since it looks each minute. Unended: started tasks that did not "
            "end, where a canary that hangs shows. Normal is a difference within the ±.",
            {"variant": "Variant"},
            Column(
                "Started",
                f"sum by (variant) (agent_rollout_started_total{{{STAGE}}})",
                "none",
                decimals=0,
            ),
            Column("Ended", _ended("variant"), "none", decimals=0),
            Column(
                "Unended",
                f"clamp_min(1 - {_ended('variant')} / sum by (variant) (agent_rollout_started_total{{{STAGE}}}), 0)",
                "percentunit",
                above(("orange", 0.05)),
                decimals=1,
            ),
            Column("Success", _success_by("variant"), "percentunit", decimals=1),
            Column("± success", _spread(_success_by("variant, shard")), "percentunit", decimals=1),
            Column("USD a task", _cost_by("variant"), "currencyUSD"),
            Column("± USD", _spread(_cost_by("variant, shard")), "currencyUSD"),
            sort="Ended",
            width=24,
            height=5,
            no_data=_NO_ROLLOUT,
        ),
        timeseries(
            "Success rate by variant",
            "Share of the tasks of 6 hours that reached their goal. Normal is two lines that cross.",
            Query(
                f'sum by (variant) (increase(agent_rollout_tasks_total{{{STAGE},outcome="success"}}[6h]))'
                f" / (sum by (variant) (increase(agent_rollout_tasks_total{{{STAGE}}}[6h])) > 0)",
                "{{variant}}",
            ),
            unit="percentunit",
            overrides=colours(VARIANTS),
            least=0.5,
            most=1,
            no_data=_NO_ROLLOUT,
        ),
        timeseries(
            "Cost per task by variant",
            "USD of a task that ended in 6 hours. Normal is two lines that cross.",
            Query(
                f"sum by (variant) (increase(agent_rollout_cost_usd_total{{{STAGE}}}[6h]))"
                f" / (sum by (variant) (increase(agent_rollout_tasks_total{{{STAGE}}}[6h])) > 0)",
                "{{variant}}",
            ),
            unit="currencyUSD",
            overrides=colours(VARIANTS),
            no_data=_NO_ROLLOUT,
        ),
        timeseries(
            "Exposures: the canary's share",
            "Share of the tasks started in 6 hours that the canary got, and of the users that it should get (dashed). "
            "Normal is about the same; far off, users are not assigned as they should be.",
            Query(
                f'sum(increase(agent_rollout_started_total{{{ROLLOUT},variant="canary"}}[6h]))'
                f" / (sum(increase(agent_rollout_started_total{{{ROLLOUT}}}[6h])) > 0)",
                "tasks",
            ),
            Query(f"max(agent_rollout_stage_percent{{{ROLLOUT}}}) / 100", "users"),
            unit="percentunit",
            overrides=[by_name("tasks", color="orange"), dashed("users")],
            no_data=_NO_ROLLOUT,
        ),
    ]


def _by_variant(thresholds: Thresholds) -> list[gl.Panel]:
    variant = f'{AGENT},variant=~"stable|canary"'

    def quantile(share: float, histogram: str) -> str:
        return f"histogram_quantile({share}, sum by (le, variant) (rate({histogram}_bucket{{{variant}}}[6h]))) >= 0"

    return [
        timeseries(
            "Error rate by variant",
            "Share of the tasks of 6 hours that failed with an error. Normal is no difference.",
            Query(
                f'sum by (variant) (increase(agent_tasks_total{{{variant},outcome="error"}}[6h]))'
                f" / (sum by (variant) (increase(agent_tasks_total{{{variant}}}[6h])) > 0)",
                "{{variant}}",
            ),
            unit="percentunit",
            width=6,
            overrides=colours(VARIANTS),
            thresholds=steps(("transparent", None), ("red", thresholds.value("error_rate"))),
        ),
        timeseries(
            "Latency by variant",
            "P99 of the end-to-end time of the tasks ended in 6 hours. Normal is no difference.",
            Query(quantile(0.99, "agent_task_duration_seconds"), "{{variant}}"),
            unit="s",
            width=6,
            overrides=colours(VARIANTS),
        ),
        timeseries(
            "Iterations by variant",
            "P99 of the iterations of the tasks ended in 6 hours. Normal is no difference; more is a prompt that goes "
            "round.",
            Query(quantile(0.99, "agent_task_iterations"), "{{variant}}"),
            unit="none",
            width=6,
            overrides=colours(VARIANTS),
        ),
        timeseries(
            "Tool calls that are valid, by variant",
            "Share of the tool calls of 6 hours with all required fields of the right type. Normal is no difference; "
            f"alerts below {percent(thresholds.value('tool_validity'))}.",
            Query(
                f'sum by (variant) (rate(agent_tool_calls_total{{{variant},result!="invalid"}}[6h]))'
                f" / (sum by (variant) (rate(agent_tool_calls_total{{{variant}}}[6h])) > 0)",
                "{{variant}}",
            ),
            unit="percentunit",
            width=6,
            least=0.8,
            most=1,
            overrides=colours(VARIANTS),
        ),
    ]


def _actions() -> list[gl.Panel]:
    return [
        table(
            "What the controller did",
            "Actions of the range by the alert that triggered them; agent-oncall state log says who, when and why. "
            "Normal is an empty table.",
            {"action": "Action", "trigger": "Trigger"},
            Column(
                "Times",
                happened(f"agent_controller_actions_total{{{AGENT}}}", "action, trigger"),
                "short",
                decimals=0,
                width=90,
            ),
            sort="Times",
            width=8,
            height=6,
            no_data="Nothing was done",
        ),
        table(
            "What it held back, and why",
            "Actions that alerts asked for and that were not taken. Normal is an empty table.",
            {"action": "Action", "why": "Why"},
            Column(
                "Times",
                happened(f"agent_controller_held_back_total{{{AGENT}}}", "action, why"),
                "short",
                decimals=0,
                width=90,
            ),
            sort="Times",
            width=8,
            height=6,
            no_data="Nothing was held back",
        ),
        text(
            "A/B tests",
            "Arms of an A/B test are in no metric: nobody concludes before the planned number of tasks, and a curve "
            "tempts to. Each run is recorded, and judged once:\n\n```sh\nagent-oncall ab status\nagent-oncall ab "
            "analyze EXPERIMENT\n```\n",
            width=8,
            height=6,
        ),
    ]


# -- expressions -------------------------------------------------------------------------------------------------------


# A stage's counters begin with it, so that their value is what it counted; increase() would lose the first task of each
# of the many series, of which nobody scraped a zero.


def _ended(by: str) -> str:
    return f"sum by ({by}) (agent_rollout_tasks_total{{{STAGE}}})"


def _success_by(by: str) -> str:
    reached = f'sum by ({by}) (agent_rollout_tasks_total{{{STAGE},outcome="success"}})'
    return f"({reached} / ({_ended(by)} > 0))"


def _cost_by(by: str) -> str:
    return f"(sum by ({by}) (agent_rollout_cost_usd_total{{{STAGE}}}) / ({_ended(by)} > 0))"


def _spread(by_shard: str) -> str:
    """Half of the 95 % interval of a mean over shards of users; users resemble themselves, tasks of one are no news."""
    return f"{_T15} * stddev by (variant) ({by_shard}) / sqrt(count by (variant) ({by_shard}) - 1)"


def _success(variant: str) -> str:
    of = f'{STAGE},variant="{variant}"'
    return f'sum(agent_rollout_tasks_total{{{of},outcome="success"}}) / (sum(agent_rollout_tasks_total{{{of}}}) > 0)'


def _cost_per_task(variant: str) -> str:
    of = f'{STAGE},variant="{variant}"'
    return f"sum(agent_rollout_cost_usd_total{{{of}}}) / (sum(agent_rollout_tasks_total{{{of}}}) > 0)"


def _cost_ratio() -> str:
    """What the canary's tasks cost over what stable's of the same types would have."""

    def by_type(metric: str, variant: str) -> str:
        return f'sum by (task_type) ({metric}{{{STAGE},variant="{variant}"}})'

    canary, tasks = by_type("agent_rollout_cost_usd_total", "canary"), by_type("agent_rollout_tasks_total", "canary")
    stable = (
        f"({by_type('agent_rollout_cost_usd_total', 'stable')}"
        f" / ({by_type('agent_rollout_tasks_total', 'stable')} > 0))"
    )
    return f"sum({canary} and {stable}) / sum({tasks} * {stable})"
