"""Which names of models are pins, and which answers are the pinned model's."""

import pytest

from agent_oncall.models import UnpinnedModel, answers, check_pin

PINNED = [
    "gpt-4o-2024-08-06",
    "gpt-4-0613",
    "claude-sonnet-4-5-20250929",
    "us.anthropic.claude-3-5-sonnet-20241022-v2:0",
    "claude-3-5-sonnet-v2@20241022",
    "amazon.nova-pro-v1:0",
    "gemini-1.5-pro-002",
    "mistral-large-2411",
    "command-r-08-2024",
    "openai/gpt-4o-mini-2024-07-18",
    "ft:gpt-4o-mini-2024-07-18:acme::abc",
    "meta-llama/Llama-3.1-8B@0e9e39f249a16976918f6564b8830bc894c89659",
    "llama3@sha256:365c0bd3c000a25d28ddbf732fe1c6add414de7275464c4e4d1c3b5fcb5d8ad1",
]
ALIASES = ["gpt-4o-latest", "claude-3-7-sonnet-latest", "llama3:latest", "openrouter/auto", "Mistral-LATEST"]
UNPROVEN = [
    "gpt-4o",
    "gemini-1.5-pro",
    "o3",
    "claude-sonnet-4-5",
    "llama-3.1-405b",
    "phi-3-mini-128k",
    "prod-deployment",
]
PREVIEWS = ["gemini-2.5-pro-preview-05-06", "gpt-4-1106-preview", "gemini-2.0-flash-exp"]


@pytest.mark.parametrize("model", PINNED)
def test_a_name_with_a_date_or_version_is_a_pin(model: str) -> None:
    check_pin(model)


@pytest.mark.parametrize("model", ALIASES)
def test_an_alias_is_refused_whatever_the_user_says(model: str) -> None:
    with pytest.raises(UnpinnedModel, match="alias"):
        check_pin(model, pinned=True)


@pytest.mark.parametrize("model", [*UNPROVEN, *PREVIEWS])
def test_a_bare_name_or_a_preview_needs_the_users_word(model: str) -> None:
    with pytest.raises(UnpinnedModel, match="pinned: true"):
        check_pin(model)
    check_pin(model, pinned=True)


@pytest.mark.parametrize("model", ["", " ", "gpt-4o-2024-08-06 "])
def test_no_name_is_refused(model: str) -> None:
    with pytest.raises(UnpinnedModel):
        check_pin(model, pinned=True)


@pytest.mark.parametrize(
    ("model", "answered_by"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("openai/gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet-20241022"),
        ("claude-3-5-sonnet-v2@20241022", "claude-3-5-sonnet-20241022"),
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("models/gemini-1.5-pro-002", "gemini-1.5-pro-002"),
    ],
)
def test_the_pinned_model_answered(model: str, answered_by: str) -> None:
    assert answers(model, answered_by)


@pytest.mark.parametrize(
    ("model", "answered_by"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4o", "gpt-4o-mini-2024-07-18"),
        ("claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001"),
    ],
)
def test_another_model_answered(model: str, answered_by: str) -> None:
    assert not answers(model, answered_by)
