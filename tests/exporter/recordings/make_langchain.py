"""LangChain by OpenTelemetry's own instrumentation.

uv run --no-project --with langchain --with langchain-openai --with opentelemetry-instrumentation-genai-langchain \
    --with opentelemetry-sdk --with opentelemetry-exporter-otlp-proto-http tests/exporter/recordings/make_langchain.py
"""

import contextlib

import scripted


def run(script: scripted.Script, base_url: str) -> None:
    provider = scripted.provider()
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI
    from opentelemetry.instrumentation.genai.langchain import LangChainInstrumentor

    LangChainInstrumentor().instrument(tracer_provider=provider)
    agent = create_agent(
        ChatOpenAI(model=scripted.MODEL, base_url=base_url, max_retries=0, stream_usage=True),
        tools=[script.get_weather, script.get_population],
        name="weather_agent",
    )
    asked = {"messages": [{"role": "user", "content": scripted.PROMPT}]}
    limit = {"recursion_limit": 2 * script.scenario.limit} if script.scenario.limit else {}
    for _ in range(script.scenario.tasks):
        with contextlib.suppress(Exception, KeyboardInterrupt):
            if script.scenario.stream:
                for _chunk in agent.stream(asked, stream_mode="messages"):
                    pass
            else:
                agent.invoke(asked, limit)
    provider.shutdown()


if __name__ == "__main__":
    scripted.main(
        "langchain.otel_genai",
        "opentelemetry-instrumentation-genai-langchain",
        ["langchain", "langchain-openai", "opentelemetry-instrumentation-genai-langchain"],
        ["happy", "streaming", "tool_error", "invalid_args", "llm_down", "two_tasks", "refusal", "cancel", "max_turns"],
        run,
    )
