"""Microsoft's Agent Framework by its own spans.

uv run --no-project --with agent-framework-core --with agent-framework-openai --with opentelemetry-sdk \
    --with opentelemetry-exporter-otlp-proto-http tests/exporter/recordings/make_agent_framework.py
"""

import asyncio
import contextlib

import scripted


def run(script: scripted.Script, base_url: str) -> None:
    provider = scripted.provider()
    from agent_framework.observability import enable_instrumentation
    from agent_framework.openai import OpenAIChatCompletionClient

    enable_instrumentation()

    async def ask() -> None:
        agent = OpenAIChatCompletionClient(model=scripted.MODEL, base_url=base_url, api_key="none").as_agent(
            name="weather_agent", tools=[script.get_weather, script.get_population]
        )
        for _ in range(script.scenario.tasks):
            with contextlib.suppress(Exception):
                if script.scenario.stream:
                    async for _update in agent.run(scripted.PROMPT, stream=True):
                        pass
                else:
                    await agent.run(scripted.PROMPT)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(ask())
    provider.shutdown()


if __name__ == "__main__":
    scripted.main(
        "agent_framework",
        "its own",
        ["agent-framework-core", "agent-framework-openai"],
        ["happy", "streaming", "tool_error", "invalid_args", "llm_down", "two_tasks", "refusal", "cancel"],
        run,
        missed={
            "invalid_args": {
                "as_sent": {"tools": [["get_weather", "ok"]]},
                "why": "a call with wrong arguments is turned down before there is a tool span",
            }
        },
    )
