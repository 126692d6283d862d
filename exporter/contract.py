"""The metric contract as data: every family that `/metrics` serves, once.

The exporter declares its series from this table, and the rules, the dashboards and the documentation check theirs
against it: a name, a label or a unit here is public and changes only with a new major version.
"""

from dataclasses import dataclass
from enum import StrEnum

SCRAPE_JOB = "agent-exporter"
OTHER = "other"
UNKNOWN = "unknown"


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family.

    `name` is what a PromQL selector says (counters with `_total`, histograms without `_bucket`); `buckets` are the
    upper bounds in the family's unit, `+Inf` left out. `served_by` is the process whose `/metrics` has it.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    served_by: str = "exporter"


DURATION_BUCKETS = (1, 2.5, 5, 10, 15, 20, 30, 45, 60, 120, 300, 600, 1800)
CALL_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
ITERATION_BUCKETS = (1, 2, 3, 5, 8, 13, 20, 30, 50, 100)
COST_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 25)
SCORE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)

# The closed label sets: each value is served as 0 as soon as an agent is seen, so that increase() sees the first event.
VARIANTS = ("stable", "canary")
LOOP_REASONS = ("failing_tool", "repeat", "iterations")
OUTCOMES = ("success", "failure", "error", "abandoned")
ERROR_REASONS = ("provider", "rate_limit", "timeout", "tool", "internal", "other")
ABANDON_REASONS = ("user_cancel", "timeout", "max_iterations", "never_finished")
OUTCOME_REASONS = (
    ("success", ""),
    ("failure", ""),
    *(("error", reason) for reason in ERROR_REASONS),
    *(("abandoned", reason) for reason in ABANDON_REASONS),
)
DIRECTIONS = ("input", "output", "cache_read", "cache_write")
PURPOSES = ("progress", "retry", "recovery")
TOOL_RESULTS = ("ok", "error", "invalid")
SPAN_RESULTS = ("counted", "ignored", "duplicate", "rejected")


def _counter(name: str, labels: tuple[str, ...], text: str, served_by: str = "exporter") -> Family:
    return Family(name, Kind.COUNTER, labels, text, served_by=served_by)


def _gauge(name: str, labels: tuple[str, ...], text: str, served_by: str = "exporter") -> Family:
    return Family(name, Kind.GAUGE, labels, text, served_by=served_by)


def _histogram(name: str, labels: tuple[str, ...], text: str, buckets: tuple[float, ...]) -> Family:
    return Family(name, Kind.HISTOGRAM, labels, text, buckets)


_ROLLOUT = ("agent", "rollout", "stage", "variant", "shard")
_TASK = ("agent", "task_type", "variant")
_CALL = ("agent", "model", "variant")

FAMILIES: tuple[Family, ...] = (
    # Tasks, while they run.
    _counter(
        "agent_tasks_started_total", ("agent", "variant"), "Tasks seen for the first time, running ones included."
    ),
    _gauge("agent_tasks_in_flight", ("agent",), "Tasks seen and neither ended nor given up."),
    _gauge("agent_tasks_looping", ("agent", "why"), "Tasks in flight that run away, each under its worst reason."),
    _counter("agent_tasks_looped_total", ("agent", "why"), "Tasks that ever looped, once per task and reason."),
    _counter("agent_tasks_resumed_total", ("agent",), "Spans of a task that was already given up."),
    _gauge("agent_task_in_flight_iterations_max", ("agent",), "Iterations of the running task that has most."),
    _gauge("agent_task_in_flight_seconds_max", ("agent",), "Age in seconds of the oldest running task."),
    _gauge("agent_task_in_flight_spend_usd_max", ("agent",), "Spend in USD of the costliest running task."),
    # Tasks that ended.
    _counter(
        "agent_tasks_total",
        ("agent", "task_type", "variant", "outcome", "reason"),
        "Ended tasks, once each, by outcome.",
    ),
    _histogram("agent_task_duration_seconds", _TASK, "End-to-end time of an ended task, in seconds.", DURATION_BUCKETS),
    _histogram("agent_task_iterations", _TASK, "Iterations of an ended task.", ITERATION_BUCKETS),
    _histogram("agent_task_cost_usd", _TASK, "Cost of an ended task, in USD.", COST_BUCKETS),
    # LLM calls and tool calls, counted as each ends.
    _counter(
        "agent_iterations_total", ("agent", "model", "variant", "stop_reason"), "Iterations (LLM calls) that ended."
    ),
    _counter("agent_tokens_total", ("agent", "model", "variant", "direction", "purpose"), "Tokens; directions add up."),
    _counter("agent_spend_usd_total", ("agent", "model", "variant", "purpose"), "Cost of the tokens counted, in USD."),
    _counter("agent_unpriced_tokens_total", ("agent", "model"), "Tokens of a model that no price is known for."),
    _counter("agent_unmetered_calls_total", ("agent", "model"), "Answered calls that told no token count."),
    _histogram("agent_iteration_duration_seconds", _CALL, "Time of an LLM call, in seconds.", CALL_BUCKETS),
    _histogram(
        "agent_time_to_first_token_seconds",
        _CALL,
        "Time to the first token of streaming calls, in seconds.",
        CALL_BUCKETS,
    ),
    _counter("agent_tool_calls_total", ("agent", "tool", "variant", "result"), "Tool calls that ended, by result."),
    _histogram(
        "agent_tool_duration_seconds", ("agent", "tool", "variant"), "Time of a tool call, in seconds.", CALL_BUCKETS
    ),
    _counter("agent_refusals_total", _CALL, "LLM calls answered with a refusal."),
    _histogram("agent_task_confidence", _TASK, "The agent's own score of a task, 0-1.", SCORE_BUCKETS),
    _histogram("agent_task_goal_alignment", _TASK, "The judge's score of a task, 0-1.", SCORE_BUCKETS),
    # Rollouts.
    _counter("agent_rollout_started_total", _ROLLOUT, "Tasks started while a rollout runs."),
    _counter("agent_rollout_tasks_total", (*_ROLLOUT, "task_type", "outcome"), "Tasks ended while a rollout runs."),
    _counter(
        "agent_rollout_cost_usd_total", (*_ROLLOUT, "task_type"), "Cost in USD of tasks ended while a rollout runs."
    ),
    # The exporter on itself.
    _counter("agent_exporter_spans_total", ("result",), "Spans received, by what became of them."),
    _gauge("agent_exporter_lag_seconds", ("agent",), "Arrival less the span's end: the most of the last minute."),
    _gauge("agent_exporter_traces_in_memory", (), "Traces the exporter remembers, ended ones included."),
    _counter("agent_exporter_scores_unmatched_total", (), "Scores whose task was not found."),
    _counter(
        "agent_exporter_late_labels_total", (), "Spans that told another variant or agent than their task's first."
    ),
    _counter("agent_exporter_series_limited_total", ("label",), "Label values folded into `other` by the limit."),
    _counter("agent_exporter_unknown_scope_total", ("scope",), "LLM-like spans of scopes no dialect knows."),
    _counter("agent_exporter_values_rejected_total", ("why",), "Attribute values that no one can mean, left out."),
    _counter("agent_exporter_requests_total", ("signal", "transport", "code"), "Export requests answered, by code."),
    _gauge("agent_exporter_requests_in_flight", (), "Export requests received and not yet answered."),
    _gauge("agent_exporter_journal_bytes", (), "Size of the journal on disk; 0 without a journal."),
    _gauge("agent_exporter_start_time_seconds", (), "When this process started, unix time."),
    _gauge("agent_exporter_build_info", ("version",), "Always 1; the version is the label."),
    # Served by the library and the controller.
    _gauge("agent_breaker_state", ("agent",), "0 closed, 1 half-open, 2 open.", "library"),
    _counter("agent_breaker_trips_total", ("agent", "why"), "Times the circuit breaker opened.", "library"),
    _gauge("agent_state_generation", (), "Generation of the state file that is in force.", "library"),
    _gauge("agent_state_read_ok", (), "1 while the state file could be read.", "library"),
    _gauge(
        "agent_rollout_stage_percent", ("agent", "rollout"), "Share of users on the canary, in percent.", "controller"
    ),
    _gauge("agent_rollout_verdict", ("agent", "rollout", "stage"), "-1 roll back, 0 hold, 1 promote.", "controller"),
    _counter(
        "agent_controller_actions_total", ("agent", "action", "trigger"), "Actions taken on alerts.", "controller"
    ),
    _counter(
        "agent_controller_held_back_total",
        ("agent", "action", "why"),
        "Actions that alerts asked for and that were not taken: off, dry_run, confirm, agreement.",
        "controller",
    ),
    _counter(
        "agent_controller_failures_total",
        ("action", "why"),
        "What the controller should have done and could not, by why.",
        "controller",
    ),
)

BY_NAME: dict[str, Family] = {family.name: family for family in FAMILIES}


def series_labels() -> dict[str, frozenset[str]]:
    """Every sample name a selector may name, with the labels it may match (the scrape's own `job`, `instance` too)."""
    found: dict[str, frozenset[str]] = {}
    for family in FAMILIES:
        labels = frozenset(family.labels) | {"job", "instance"}
        if family.kind is Kind.HISTOGRAM:
            found[f"{family.name}_bucket"] = labels | {"le"}
            found[f"{family.name}_sum"] = found[f"{family.name}_count"] = labels
        else:
            found[family.name] = labels
    return found
