"""One request's body → spans → events → tasks → measures, in that order and on one thread."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from exporter.config import Settings
from exporter.contract import LOOP_REASONS, SPAN_RESULTS
from exporter.dialects import KEYS, LLM_LIKE, LONG, Recogniser
from exporter.dialects.common import Reading, failure
from exporter.events import AnyEvent, Batch, Event, Restart, Score, decode_batch, encode_batch
from exporter.faults import where
from exporter.journal import Journal, JournalError
from exporter.ledger import Ledger
from exporter.measures import Measures
from exporter.pricing import Pricing
from exporter.spans import Attributes, Decoder, LogRecord, Malformed, Resource, Span, text
from exporter.tasks import VERDICTS, Running, Tasks, Verdict, in_order

_log = logging.getLogger(__name__)

# A span that ended longer ago than any queue holds it tells of a wrong clock, not of a backlog.
_CLOCK_WRONG_SECONDS = 12 * 3600.0
_LAG_WINDOW_SECONDS = 60.0
_LONGEST = 100  # of an agent's name
_PASSAGE = int(Verdict.PASSAGE)
_HOUR = 3600.0
_SCORE_NAMES = frozenset({"goal_alignment", "confidence"})
_SCORE_EVENT = "gen_ai.evaluation.result"
_NO_TRACE, _NO_SPAN = bytes(16), bytes(8)
_SCORE_KEYS = frozenset({"event.name", "gen_ai.evaluation.name", "gen_ai.evaluation.score.value"})
_PROGRESS_REQUESTS = 10_000

__all__ = ["AgentSummary", "Answer", "Malformed", "Pipeline", "Summary", "Unavailable"]


class Unavailable(Exception):
    """The request could not be made safe on disk; the sender is to send it again."""


@dataclass(slots=True)
class Answer:
    """What OTLP calls a partial success: how many spans or records were refused, and why."""

    rejected: int = 0
    message: str = ""


@dataclass(slots=True)
class AgentSummary:
    agent: str
    in_flight: int
    looping: int
    spend_last_hour_usd: float
    tasks_ended: int


@dataclass(slots=True)
class Summary:
    """What was seen, for a person: spans by dialect, ignored spans and rejected values by reason."""

    agents: list[AgentSummary]
    dialects: dict[str, int]
    ignored: dict[str, int]
    rejected_values: dict[str, int]
    journal: str


@dataclass(slots=True)
class _Lag:
    """The most of the present and of the previous window."""

    present: float = 0.0
    previous: float = 0.0


@dataclass(slots=True)
class _Read:
    """What a body was read as."""

    events: list[Event] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


class Pipeline:
    """The exporter without its sockets. All methods are called on one thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        journal: Journal | None = None,
        pricing: Pricing | None = None,
        explain: Callable[[Event, str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._at: float | None = None  # the time that is gone through again, while the journal is read
        self._journal = journal
        self._explain = explain
        self.measures = Measures(clock=self._now, max_values=settings.max_values)
        facts = {condition.attribute for conditions in settings.success.values() for condition in conditions}
        self._reading = Reading(sorted(facts))
        self._recogniser = Recogniser(self._reading)
        self._decoder = Decoder(KEYS | facts | _SCORE_KEYS, LONG)
        self._ledger = Ledger(self.measures)
        self._tasks = Tasks(
            settings,
            self._ledger,
            pricing or Pricing(settings.price_file),
            self._reading.rejected,
            journaled=journal is not None,
        )
        self._results = {r: self.measures.counter("agent_exporter_spans_total", r) for r in SPAN_RESULTS}
        self._noted: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._dialects: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()
        self._lags: dict[str, _Lag] = {}
        self._lag_turn = 0.0
        self._spend: list[tuple[float, dict[str, float]]] = []  # by agent, each minute of the last hour
        self._spend_at = 0.0
        self._gauges: set[str] = set()
        self._checkpointed = clock()
        self._appended = 0
        if journal is not None:
            self._recover(journal)
            self._spend.append((clock(), self.measures.sums("agent_spend_usd_total", "agent")))

    def _now(self) -> float:
        return self._clock() if self._at is None else self._at

    # -- in ------------------------------------------------------------------------------------------------------------

    def take_traces(self, body: bytes, *, json: bool = False, may_speak_for: frozenset[str] | None = None) -> Answer:
        """Count the spans of an ExportTraceServiceRequest, decompressed. Raises Malformed and Unavailable."""
        spans = self._decoder.spans_json(body) if json else self._decoder.spans(body)
        read = _Read()
        resource: Resource | None = None
        for span in spans:
            if span.resource is not resource:
                resource = span.resource
                resource.agent = self._agent(resource)
            self._read_span(span, read, may_speak_for)
        return self._take(read)

    def take_logs(self, body: bytes, *, json: bool = False, may_speak_for: frozenset[str] | None = None) -> Answer:
        """Count the evaluations of an ExportLogsServiceRequest; other records are dropped. Raises like the other."""
        records = self._decoder.log_records_json(body) if json else self._decoder.log_records(body)
        read = _Read()
        for record in records:
            if record.event_name == _SCORE_EVENT:
                self._read_record(record, read, may_speak_for)
        return self._take(read)

    def _agent(self, resource: Resource) -> str:
        own = text(resource.attributes.get("oncall.agent"))
        service = text(resource.attributes.get("service.name"))
        return own[:_LONGEST] or self._settings.agent_names.get(service) or service[:_LONGEST] or "unknown"

    def _read_span(self, span: Span, read: _Read, may_speak_for: frozenset[str] | None) -> None:
        span_id, parent_id = span.span_id, span.parent_id
        if len(span.trace_id) != 16 or len(span_id) != 8 or span.trace_id == _NO_TRACE or span_id == _NO_SPAN:
            read.rejected["a trace or span id is not 16 or 8 bytes, or all zeros"] += 1
            return
        if parent_id:
            if len(parent_id) != 8 or parent_id == _NO_SPAN:
                span.parent_id = b""
            elif parent_id == span_id:
                read.rejected["a span is its own parent"] += 1
                return
        attributes, resource = span.attributes, span.resource
        if "oncall.agent" in attributes:
            own = text(attributes["oncall.agent"])[:_LONGEST]
            if own and own != resource.agent:
                span.resource = resource = Resource(resource.attributes)
                resource.agent = own
        if may_speak_for is not None and resource.agent not in may_speak_for:
            read.rejected["the sender's token is not for this agent"] += 1
            return
        try:
            event = self._recogniser.read(span)
        except Exception as error:
            self._fault(error)
            read.rejected["a fault of the exporter"] += 1
            return
        read.events.append(event)
        if not event.dialect:
            if not span.parent_id or event.remote:
                event.error = failure(span, "internal")  # the top of a request: it says how that ended
            if not LLM_LIKE.isdisjoint(attributes):
                self.measures.counter("agent_exporter_unknown_scope_total", span.scope or "none").inc()
        if span.events:
            for of_span in span.events:
                if of_span.name == _SCORE_EVENT:
                    self._read_score(span.trace_id, span_id, may_speak_for, of_span.attributes, read)

    def _read_record(self, record: LogRecord, read: _Read, may_speak_for: frozenset[str] | None) -> None:
        agent = self._agent(record.resource)
        if may_speak_for is not None and agent not in may_speak_for:
            read.rejected["the sender's token is not for this agent"] += 1
            return
        if len(record.trace_id) != 16 or record.trace_id == _NO_TRACE:
            self._reading.rejected["an evaluation without a trace id"] += 1
            self._ledger.unmatched_score()
            return
        self._read_score(record.trace_id, record.span_id, may_speak_for, record.attributes, read)

    def _read_score(
        self,
        trace_id: bytes,
        span_id: bytes,
        may_speak_for: frozenset[str] | None,
        attributes: Attributes,
        read: _Read,
    ) -> None:
        name = text(attributes.get("gen_ai.evaluation.name")).lower().replace(" ", "_").replace("-", "_")
        value = self._reading.number(attributes, "gen_ai.evaluation.score.value", 0, 1)
        if name in _SCORE_NAMES and value is not None:
            only = None if may_speak_for is None else tuple(sorted(may_speak_for))
            read.scores.append(Score(trace_id, span_id, only, name, value))

    def _take(self, read: _Read) -> Answer:
        now = self._clock()
        events: list[AnyEvent] = [*in_order(read.events), *read.scores]
        if events and self._journal is not None:
            blob = encode_batch(Batch(now, events))
            try:
                self._journal.append(blob)
            except JournalError as error:
                raise Unavailable(str(error)) from error
            self._appended += len(blob)
        self._count(events, now, live=True)
        rejected = sum(read.rejected.values())
        if rejected:
            self._results["rejected"].inc(rejected)
            self._ignored.update({f"rejected: {why}": n for why, n in read.rejected.items()})
        if self._reading.rejected:
            self._note_rejected_values()
        return Answer(rejected, "; ".join(read.rejected))

    def _count(self, events: list[AnyEvent], now: float, *, live: bool) -> None:
        verdicts = self._tasks.apply(events, now, self._fault)
        spans = [event for event in events if isinstance(event, Event)]
        for verdict, count in Counter(verdicts).items():
            words = VERDICTS[verdict]
            result = words.split()[0].strip(",:")
            if result in self._results:
                self._results[result].inc(count)
                if result != "counted" and result != "duplicate":
                    self._ignored[words] += count
        self._dialects.update([event.dialect for event in spans])
        strangers = self._dialects.pop("", 0) and sum(
            verdict == _PASSAGE and not event.dialect for event, verdict in zip(spans, verdicts, strict=False)
        )
        if strangers:
            self._ignored["ignored: no dialect knows the span"] += strangers
            self._ignored[VERDICTS[_PASSAGE]] -= strangers
        if live:
            oldest = {event.agent: event.end_ns for event in reversed(spans) if event.dialect}
            for agent, end_ns in oldest.items():
                self._note_lag(agent, now - end_ns / 1e9, now)
        if self._explain is not None:
            for event, verdict in zip(spans, verdicts, strict=False):
                self._explain(event, VERDICTS[verdict])

    def _fault(self, error: Exception) -> None:
        """A fault of ours: it must not keep the journal from being read, nor the other spans from being counted. An
        exception's text may hold a piece of a span, so that only its place is logged, the first of a kind."""
        place = where(error)
        self._faults[place] += 1
        if self._faults[place] == 1:
            _log.error("a span could not be counted, which is a fault of the exporter: %s", place)

    def _note_rejected_values(self) -> None:
        for why, count in self._reading.rejected.items():
            self.measures.counter("agent_exporter_values_rejected_total", why).inc(count)
            self._noted[why] += count
        self._reading.rejected.clear()

    def _note_lag(self, agent: str, lag: float, now: float) -> None:
        if lag > _CLOCK_WRONG_SECONDS or lag < -_LAG_WINDOW_SECONDS:
            self._reading.rejected["span times: hours away from the exporter's clock"] += 1
            return
        found = self._lags.setdefault(self.measures.label_value("agent", agent), _Lag())
        found.present = max(found.present, lag)

    # -- time ----------------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Let time-outs happen and bring the gauges up to date: about once a second, and before each scrape."""
        now = self._clock()
        if self._tasks.advance(now) and self._journal is not None:
            # What a time-out decided is served from now on: a restart must come to it again, and not to its undoing.
            try:
                self._journal.append(encode_batch(Batch(now, [])))
            except JournalError as error:
                _log.warning("a time-out is not in the journal: %s", error)
        if self._reading.rejected:
            self._note_rejected_values()
        if now - self._lag_turn >= _LAG_WINDOW_SECONDS / 2:
            self._lag_turn = now
            for lag in self._lags.values():
                lag.previous, lag.present = lag.present, 0.0
        if now - self._spend_at >= 60:
            self._spend_at = now
            self._spend.append((now, self.measures.sums("agent_spend_usd_total", "agent")))
            self._spend = [s for s in self._spend if s[0] >= now - _HOUR]
        self._gauge()
        journal = self._journal
        if journal is not None:
            due = now - self._checkpointed >= self._settings.checkpoint_seconds and self._appended
            if due or self._appended >= self._settings.checkpoint_bytes:
                try:
                    self.checkpoint()
                except JournalError as error:
                    # Nothing is lost: the log still holds it. The next one is tried when this much has come again.
                    _log.warning("no checkpoint: %s", error)
                    self._checkpointed = now
                    self._appended = 0

    def end_of_time(self) -> float:
        """A moment after every time-out of what is in flight now, for replays."""
        return self._tasks.end_of_time()

    def _gauge(self) -> None:
        gauge = self.measures.gauge
        running = self._running()
        for agent in self._gauges - running.keys():
            running[agent] = Running()
        self._gauges = {agent for agent, tasks in running.items() if tasks.tasks}
        for agent, tasks in running.items():
            gauge("agent_tasks_in_flight", agent).set(tasks.tasks)
            for why in LOOP_REASONS:
                gauge("agent_tasks_looping", agent, why).set(tasks.looping[why])
            gauge("agent_task_in_flight_iterations_max", agent).set(tasks.iterations)
            gauge("agent_task_in_flight_seconds_max", agent).set(tasks.seconds)
            gauge("agent_task_in_flight_spend_usd_max", agent).set(tasks.spend)
        for agent, lag in self._lags.items():
            gauge("agent_exporter_lag_seconds", agent).set(max(0.0, lag.present, lag.previous))
        gauge("agent_exporter_traces_in_memory").set(len(self._tasks))
        gauge("agent_exporter_journal_bytes").set(self._journal.size_bytes if self._journal else 0)

    def _running(self) -> dict[str, Running]:
        """Tasks in flight by the agent's label: those over the limit are one, `other`."""
        found: dict[str, Running] = {}
        for agent, tasks in self._tasks.running().items():
            label = self.measures.label_value("agent", agent)
            if label in found:
                found[label].add(tasks)
            else:
                found[label] = tasks
        return found

    # -- out -----------------------------------------------------------------------------------------------------------

    def summary(self) -> Summary:
        """For the landing page."""
        now = self._clock()
        spend = self.measures.sums("agent_spend_usd_total", "agent")
        ended = self.measures.sums("agent_tasks_total", "agent")
        before = next((spent for at, spent in self._spend if at >= now - _HOUR), {})
        running = self._running()
        agents = [
            AgentSummary(
                agent,
                running[agent].tasks if agent in running else 0,
                sum(running[agent].looping.values()) if agent in running else 0,
                spend.get(agent, 0.0) - before.get(agent, 0.0),
                int(ended.get(agent, 0)),
            )
            for agent in sorted({*spend, *ended, *running})
        ]
        journal = str(self._journal.directory) if self._journal else "in memory"
        return Summary(agents, dict(self._dialects), dict(+self._ignored), dict(self._noted), journal)

    # -- journal -------------------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Write down the state, so that a restart need not go through the whole journal."""
        if self._journal is None:
            return
        state, changed, forgotten = self._tasks.checkpoint()
        self._journal.checkpoint({"tasks": state, "measures": self.measures.snapshot()}, changed, forgotten)
        self._tasks.checkpointed()
        self._checkpointed = self._clock()
        self._appended = 0

    def _recover(self, journal: Journal) -> None:
        """Take over the checkpoint and go through the requests after it again, each at its own time."""
        loaded = journal.load()
        requests = 0
        try:
            if "tasks" in loaded.state:
                self.measures.restore(loaded.state["measures"])
                self._tasks.restore(loaded.state["tasks"], ((key, blob) for key, _expiry, blob in loaded.remembered))
                for agent in self.measures.sums("agent_tasks_started_total", "agent"):
                    self._ledger.seen(agent)  # gauges are not kept
            for blob in loaded.log:
                batch = decode_batch(blob)
                self._at = batch.arrival
                self._count(batch.events, batch.arrival, live=False)
                requests += 1
                if requests % _PROGRESS_REQUESTS == 0:
                    _log.info("journal: %d requests since the last checkpoint read so far", requests)
        except (msgspec.DecodeError, KeyError, ValueError) as error:
            raise JournalError(
                f"the journal in {journal.directory} was written by another version of the exporter ({error}); start "
                "that version, or move the directory away to begin anew"
            ) from error
        finally:
            self._at = None
        if requests or "tasks" in loaded.state:
            _log.info("journal: %d traces and %d requests since the last checkpoint read", len(self._tasks), requests)
            restart = Batch(self._clock(), [Restart()])
            journal.append(encode_batch(restart))
            self._count(restart.events, restart.arrival, live=False)
