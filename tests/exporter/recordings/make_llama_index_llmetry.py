"""LlamaIndex by OpenLLMetry, with OpenLLMetry's instrumentation of the OpenAI client.

uv run --no-project --with llama-index-core --with llama-index-llms-openai --with opentelemetry-sdk \
    --with opentelemetry-instrumentation-llamaindex --with opentelemetry-instrumentation-openai \
    --with opentelemetry-exporter-otlp-proto-http tests/exporter/recordings/make_llama_index_llmetry.py
"""

import make_llama_index
import scripted


def instrument(provider: object) -> None:
    from opentelemetry.instrumentation.llamaindex import LlamaIndexInstrumentor
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    LlamaIndexInstrumentor().instrument(tracer_provider=provider)
    OpenAIInstrumentor().instrument(tracer_provider=provider)


def run(script: scripted.Script, base_url: str) -> None:
    make_llama_index.run(script, base_url, instrument)


NO_ROOT = {
    "as_sent": {"outcome": ["abandoned", "never_finished"]},
    "why": "the workflow's span is sent only if it ends well",
}

if __name__ == "__main__":
    scripted.main(
        "llama_index.llmetry_openai",
        "opentelemetry-instrumentation-llamaindex, opentelemetry-instrumentation-openai",
        ["llama-index-core", "opentelemetry-instrumentation-llamaindex", "opentelemetry-instrumentation-openai"],
        ["happy", "tool_error", "llm_down", "two_tasks", "cancel", "max_turns"],
        run,
        missed={
            "tool_error": {
                "as_sent": {"tools": [["get_weather", "ok"], ["get_weather", "ok"]]},
                "why": "that a tool failed stands in its output only",
            }
        }
        | dict.fromkeys(("llm_down", "cancel", "max_turns"), NO_ROOT),
    )
