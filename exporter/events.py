"""What a span was taken for: plain data with nothing of OTLP in it, small enough to journal by the million.

Times are unix nanoseconds, durations seconds, money USD, ids raw bytes. The strings here are labels-to-be: the only
texts of a sender's that leave the dialects.
"""

from typing import ClassVar, TypeAlias

import msgspec

# What an event is, told by its `kind`: four times as quick to ask for as isinstance(), which msgspec makes slow.
PASSAGE, CALL, TOOL, AGENT, SCORE, RESTART = range(6)


class Event(msgspec.Struct, array_like=True, gc=False, tag="s"):
    """A span that counts for nothing by itself, but holds the others of its trace together."""

    kind: ClassVar[int] = PASSAGE

    trace_id: bytes
    span_id: bytes
    parent_id: bytes  # empty for the root of a trace
    remote: bool  # the parent is in another process
    start_ns: int
    end_ns: int
    agent: str
    variant: str  # "stable", "canary", or empty where the span does not tell
    instance: str  # the sending process
    scope: str
    dialect: str  # empty where no dialect knew the span
    error: str  # why the span failed: one of the contract's error reasons, "cancelled", "max_iterations", or empty;
    # of a span below a tool call that alone tells its failure: the call's result
    rollout: tuple[str, str, str] | None  # oncall.rollout, oncall.stage, oncall.shard
    facts: dict[str, str | int | float | bool] | None  # attributes that the user's success rules ask for


class Iteration(Event, tag="i"):
    """An LLM call. Token counts are disjoint; None where the call told none."""

    kind: ClassVar[int] = CALL

    model: str  # as the agent asked for it
    answered_by: str  # the model that answered, where told: the one that is paid for
    provider: str
    input: int | None
    output: int
    cache_read: int
    cache_write: int
    answered: bool  # it has usage, a finish reason or a response id
    response_id: str
    stop_reason: str
    asked: str  # the tool it asked for, where told and of use: a rejected call may have no span of its own
    refused: bool
    final: bool  # the loop ends here: iteration.final, end_turn, stop
    purpose: str  # iteration.purpose, or empty
    first_token: float | None
    own: bool  # the base schema's: a loop's own view of the call, which a client's span below may tell better
    client: bool  # of an SDK that reports its own calls beside whoever else reports them
    tokens: int  # of all four kinds
    # What `tasks` makes of it.
    counted: bool = False
    twin: bool = False  # another span tells of the same call, and was counted
    spend: float = 0.0


class ToolCall(Event, tag="t"):
    """A tool call."""

    kind: ClassVar[int] = TOOL
    tool: str
    result: str  # ok, error, invalid
    arguments: bytes  # a hash, empty where the arguments are not known
    confidence: float | None
    seconds: float | None  # as told; None: the span's own length; negative: not known


class AgentSpan(Event, tag="a"):
    """An agent, workflow or chain: the topmost of a trace is the task."""

    kind: ClassVar[int] = AGENT

    name: str  # the agent's own name, empty where it has none
    task_type: str  # told by task.type or a workflow's name
    nested: bool  # its instrumentation always puts another one above it
    answers: bool  # it always ends with an answer: one that ends on a tool call was cut off
    outcome: str  # told: success, failure, error, abandoned or empty
    reason: str
    success: bool | None
    confidence: float | None
    status: str  # task.status as told, in lower case
    iterations: int | None
    model: str
    provider: str
    input: int | None  # its own sums: used only where nothing was counted below it
    output: int
    cache_read: int
    cache_write: int
    cost_usd: float | None
    refused: bool  # its own answer was a refusal
    most_iterations: int | None = None  # its limit, where told
    closed: bool = False  # what is below it runs no more (noted by `tasks`)


class Score(msgspec.Struct, array_like=True, gc=False, tag="e"):
    """A judge's score of a task, 0-1. `name` is goal_alignment or confidence."""

    kind: ClassVar[int] = SCORE

    trace_id: bytes
    span_id: bytes
    only: tuple[str, ...] | None  # the agents its sender may speak for; None: all
    name: str
    value: float


class Restart(msgspec.Struct, array_like=True, gc=False, tag="r"):
    """The exporter was down until this batch: silence before it is its own, not the agents'."""

    kind: ClassVar[int] = RESTART


AnyEvent: TypeAlias = Event | Iteration | ToolCall | AgentSpan | Score | Restart


class Batch(msgspec.Struct, array_like=True):
    """What one request brought: the unit of the journal. `arrival` is unix seconds."""

    arrival: float
    events: list[AnyEvent]


encode_batch = msgspec.msgpack.Encoder().encode
decode_batch = msgspec.msgpack.Decoder(Batch).decode
