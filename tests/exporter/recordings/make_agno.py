"""Agno by OpenInference.

uv run --no-project --with agno --with openai --with openinference-instrumentation-agno --with opentelemetry-sdk \
    --with opentelemetry-exporter-otlp-proto-http tests/exporter/recordings/make_agno.py
"""

import contextlib

import scripted


def run(script: scripted.Script, base_url: str) -> None:
    provider = scripted.provider()
    from agno.agent import Agent
    from agno.models.openai import OpenAIChat
    from openinference.instrumentation.agno import AgnoInstrumentor

    AgnoInstrumentor().instrument(tracer_provider=provider)
    agent = Agent(
        name="weather_agent",
        model=OpenAIChat(id=scripted.MODEL, base_url=base_url, max_retries=0),
        tools=[script.get_weather, script.get_population],
    )
    for _ in range(script.scenario.tasks):
        with contextlib.suppress(Exception, KeyboardInterrupt):
            if script.scenario.stream:
                for _chunk in agent.run(scripted.PROMPT, stream=True):
                    pass
            else:
                agent.run(scripted.PROMPT)
    provider.shutdown()


if __name__ == "__main__":
    scripted.main(
        "agno.openinference",
        "openinference-instrumentation-agno",
        ["agno", "openai", "openinference-instrumentation-agno"],
        ["happy", "streaming", "tool_error", "invalid_args", "llm_down", "two_tasks", "refusal", "cancel"],
        run,
        missed={"refusal": {"as_sent": {"outcome": ["success", ""]}, "why": "no finish reason is sent"}},
    )
