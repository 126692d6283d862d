"""LlamaIndex by OpenInference.

uv run --no-project --with llama-index-core --with llama-index-llms-openai --with opentelemetry-sdk \
    --with openinference-instrumentation-llama-index --with opentelemetry-exporter-otlp-proto-http \
    tests/exporter/recordings/make_llama_index.py
"""

import asyncio
import contextlib
from collections.abc import Callable

import scripted


def openinference(provider: object) -> None:
    from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

    LlamaIndexInstrumentor().instrument(tracer_provider=provider)


def run(script: scripted.Script, base_url: str, instrument: Callable[[object], None] = openinference) -> None:
    provider = scripted.provider()
    instrument(provider)
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.llms.openai import OpenAI

    async def ask() -> None:
        agent = FunctionAgent(
            name="weather_agent",
            llm=OpenAI(model=scripted.MODEL, api_base=base_url, max_retries=0),
            tools=[script.get_weather, script.get_population],
            streaming=script.scenario.stream,
        )
        for _ in range(script.scenario.tasks):
            with contextlib.suppress(Exception):
                await agent.run(user_msg=scripted.PROMPT, max_iterations=script.scenario.limit)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(ask())
    provider.shutdown()


if __name__ == "__main__":
    scripted.main(
        "llama_index.openinference",
        "openinference-instrumentation-llama-index",
        ["llama-index-core", "llama-index-llms-openai", "openinference-instrumentation-llama-index"],
        ["happy", "tool_error", "invalid_args", "llm_down", "two_tasks", "streaming", "refusal", "cancel", "max_turns"],
        run,
        missed={"streaming": {"as_sent": {"tokens": {}}, "why": "no token counts are sent when streaming"}},
    )
