"""Haystack's Agent by OpenInference.

uv run --no-project --with haystack-ai --with openinference-instrumentation-haystack --with opentelemetry-sdk \
    --with opentelemetry-exporter-otlp-proto-http tests/exporter/recordings/make_haystack.py
"""

import contextlib
import os
from typing import Annotated

import scripted


def run(script: scripted.Script, base_url: str) -> None:
    provider = scripted.provider()
    os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
    from haystack.components.agents import Agent
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.tools import create_tool_from_function
    from openinference.instrumentation.haystack import HaystackInstrumentor

    def get_weather(city: Annotated[str, "a city"]) -> str:
        """The weather of a city."""
        return script.get_weather(city)

    def get_population(city: Annotated[str, "a city"]) -> str:
        """The population of a city."""
        return script.get_population(city)

    HaystackInstrumentor().instrument(tracer_provider=provider)
    agent = Agent(
        chat_generator=OpenAIChatGenerator(model=scripted.MODEL, api_base_url=base_url, max_retries=0),
        tools=[create_tool_from_function(get_weather), create_tool_from_function(get_population)],
    )
    for _ in range(script.scenario.tasks):
        with contextlib.suppress(Exception):
            agent.run(messages=[ChatMessage.from_user(scripted.PROMPT)])
    provider.shutdown()


def as_sent(**measures: object) -> dict[str, object]:
    return {"as_sent": {"tools": [], **measures}, "why": "neither tool spans nor cached tokens are sent"}


if __name__ == "__main__":
    scripted.main(
        "haystack.openinference",
        "openinference-instrumentation-haystack",
        ["haystack-ai", "openinference-instrumentation-haystack"],
        ["happy", "llm_down", "two_tasks"],
        run,
        missed={
            "happy": as_sent(tokens={"input": 6085, "output": 609}),
            "llm_down": as_sent(),
            "two_tasks": as_sent(tokens={"input": 6156, "output": 612}),
        },
    )
