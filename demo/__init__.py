"""Simulated agents on the base schema: one simulator for the demo, the tests and the docs.

What happens is data (`demo.scenarios`: normal, incident, launch), what the agents do follows from it and a seed
(`demo.fleet`), and sending is apart (`demo.sdk` as a real agent would, `demo.otlp` as fast as can be). No part but
`demo.play` reads a clock.

    from demo.fleet import Fleet
    from demo.otlp import RawSender, requests
    from demo.scenarios import incident, launch, normal, Runaway

    fleet = Fleet(incident(after=60), seed=1, start=time.time(), bare=True)
    spans = fleet.spans(until=time.time())     # what ended since the last call, by end; tasks that hang never end
    fleet.totals["support-agent"]              # what those spans add up to: tasks, iterations, tokens, USD
    for body in requests(spans): ...           # serialised ExportTraceServiceRequests, at most 512 spans each
    RawSender("127.0.0.1:4317").send(spans)    # over real OTLP/gRPC
    fleet.break_tool(at=time.time())           # the runaway of SPEC section 0, by hand; repair() ends it

`demo.play.play(fleet, sender, ...)` does the last steps in real time, or `speed` times as fast.
"""
