import socket
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, TimeOfDateConstraint

from exporter.pricing import PriceFileError, Pricing

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
MILLION = 1_000_000


@pytest.fixture
def pricing() -> Pricing:
    return Pricing(clock=NOON.timestamp)


def library(
    model: str, provider: str | None, input: int, output: int, read: int, write: int, at: datetime = NOON
) -> float:
    usage = Usage(
        input_tokens=input + read + write, output_tokens=output, cache_read_tokens=read, cache_write_tokens=write
    )
    price = calc_price(usage, model, provider_id=provider, genai_request_timestamp=at)
    return float(price.total_price)


class TestKnownModels:
    @pytest.mark.parametrize(
        "tokens", [(1200, 340, 0, 0), (900, 80, 5000, 700), (150_000, 2000, 120_000, 30_001), (0, 0, 0, 0)]
    )
    def test_every_model_of_the_library_costs_what_the_library_says(
        self, pricing: Pricing, tokens: tuple[int, int, int, int]
    ) -> None:
        wrong = []
        for provider in get_snapshot().providers:
            for model in provider.models:
                ours = pricing.cost(model.id, provider.id, *tokens)
                try:
                    theirs = library(model.id, provider.id, *tokens)
                except LookupError:
                    continue
                if ours is not None and ours != pytest.approx(theirs, rel=1e-9, abs=1e-15):
                    wrong.append((provider.id, model.id, ours, theirs))
        assert wrong == []

    def test_only_what_is_not_sold_by_tokens_is_unknown(self, pricing: Pricing) -> None:
        unknown = []
        for provider in get_snapshot().providers:
            for model in provider.models:
                found = provider.find_model(model.id)
                by_token = found and any(
                    not any(vars(price).values()) or price.input_mtok or price.output_mtok
                    for price in (
                        [found.prices]
                        if isinstance(found.prices, ModelPrice)
                        else [choice.prices for choice in found.prices]
                    )
                )
                if by_token and pricing.cost(model.id, provider.id, 1, 1, 0, 0) is None:
                    unknown.append((provider.id, model.id))
        assert unknown == []

    def test_a_tier_holds_for_all_tokens_of_the_call(self, pricing: Pricing) -> None:
        at, over = (pricing.cost("gemini-2.5-pro", "google", size, 0, 0, 0) for size in (200_000, 200_001))
        assert at == pytest.approx(library("gemini-2.5-pro", "google", 200_000, 0, 0, 0))
        assert over == pytest.approx(library("gemini-2.5-pro", "google", 200_001, 0, 0, 0))
        assert over != pytest.approx(at, rel=0.1)

    def test_cached_tokens_choose_the_tier_too(self, pricing: Pricing) -> None:
        assert pricing.cost("gemini-2.5-pro", "google", 1, 0, 200_000, 0) == pytest.approx(
            library("gemini-2.5-pro", "google", 1, 0, 200_000, 0)
        )

    def test_cached_tokens_without_a_price_of_their_own_cost_what_input_costs(self, pricing: Pricing) -> None:
        assert pricing.cost("gpt-4", "openai", 0, 0, MILLION, 0) == pricing.cost("gpt-4", "openai", MILLION, 0, 0, 0)

    def test_a_price_follows_the_date(self) -> None:
        now = [0.0]
        pricing = Pricing(clock=lambda: now[0])
        changed = 0
        for provider in get_snapshot().providers:
            for model in provider.models:
                if isinstance(model.prices, ModelPrice) or provider.find_model(model.id) is not model:
                    continue
                costs = []
                for day in (datetime(2024, 1, 2, tzinfo=UTC), datetime(2030, 1, 2, tzinfo=UTC)):
                    now[0] = day.timestamp()
                    costs.append(pricing.cost(model.id, provider.id, 1000, 100, 10, 0) or 0.0)
                    assert costs[-1] == pytest.approx(library(model.id, provider.id, 1000, 100, 10, 0, at=day))
                changed += costs[0] != costs[1]
        assert changed > 10

    def test_a_price_follows_the_time_of_day(self) -> None:
        provider, model = next(
            (provider, model)
            for provider in get_snapshot().providers
            for model in provider.models
            if isinstance(model.prices, list)
            and any(isinstance(choice.constraint, TimeOfDateConstraint) for choice in model.prices)
        )
        now = [0.0]
        pricing = Pricing(clock=lambda: now[0])
        for hour in range(24):
            at = datetime(2026, 6, 1, hour, 45, tzinfo=UTC)
            now[0] = at.timestamp()
            assert pricing.cost(model.id, provider.id, 1000, 100, 10, 0) == pytest.approx(
                library(model.id, provider.id, 1000, 100, 10, 0, at=at)
            )

    def test_a_free_model_costs_0_where_its_provider_is_named(self, pricing: Pricing) -> None:
        assert pricing.cost("gemma-3", "google", 10, 10, 0, 0) == 0

    def test_that_a_model_is_free_is_not_guessed(self, pricing: Pricing) -> None:
        assert pricing.cost("gemma-3", "", 10, 10, 0, 0) != 0

    def test_no_connection_is_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError("a connection")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        assert Pricing().cost("gpt-4o", "openai", 1, 1, 0, 0)

    def test_the_library_has_nothing_to_warn_of(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert Pricing().cost("gpt-4o-audio-preview", "openai", 1, 1, 0, 0)


class TestNames:
    @pytest.mark.parametrize(
        ("model", "provider", "same_as", "of"),
        [
            ("gpt-4o-mini-2024-07-18", "", "gpt-4o-mini", "openai"),
            ("gpt-5.2-20251211", "openai", "gpt-5.2", "openai"),
            ("GPT-4o ", "OpenAI", "gpt-4o", "openai"),
            ("gpt-4o", "azure.ai.openai", "gpt-4o", "azure"),
            ("gpt-4o", "az.ai.openai", "gpt-4o", "azure"),
            ("gpt-4o", "a gateway", "gpt-4o", "openai"),
            ("openai/gpt-4o", "", "gpt-4o", "openai"),
            ("openai/gpt-4o", "litellm", "gpt-4o", "openai"),
            ("openai/gpt-4o", "openrouter", "openai/gpt-4o", "openrouter"),
            ("azure/gpt-4o", "", "gpt-4o", "azure"),
            ("models/gemini-2.0-flash", "", "gemini-2.0-flash", "google"),
            ("gemini-2.0-flash", "gcp.gemini", "gemini-2.0-flash", "google"),
            ("publishers/google/models/gemini-2.5-flash", "gcp.vertex_ai", "gemini-2.5-flash", "google"),
            ("gemini/gemini-2.0-flash", "litellm", "gemini-2.0-flash", "google"),
            ("claude-sonnet-4-5-20250929", "anthropic", "claude-sonnet-4-5", "anthropic"),
            ("claude-sonnet-4-5@20250929", "AnthropicVertex", "claude-sonnet-4-5", "anthropic"),
            ("anthropic/claude-sonnet-4.5", "", "claude-sonnet-4-5", "anthropic"),
            (
                "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
                "",
                "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
                "aws",
            ),
            (
                "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
                "aws.bedrock",
                "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
                "aws",
            ),
            ("deepseek-chat", "openai", "deepseek-chat", "deepseek"),
            ("grok-4", "x_ai", "grok-4", "x-ai"),
            ("mistral-large-latest", "mistral_ai", "mistral-large-latest", "mistral"),
            ("llama-3.3-70b-versatile", "", "llama-3.3-70b-versatile", "groq"),
        ],
    )
    def test_a_model_is_known_by_the_names_telemetry_has_for_it(
        self, pricing: Pricing, model: str, provider: str, same_as: str, of: str
    ) -> None:
        cost = pricing.cost(model, provider, 1000, 500, 100, 0)
        assert cost == pytest.approx(library(same_as, of, 1000, 500, 100, 0))

    @pytest.mark.parametrize(
        ("model", "provider"),
        [
            ("my-finetune", ""),
            ("my-finetune", "openai"),
            ("unknown", ""),
            ("other", ""),
            ("", ""),
            ("gpt", "openai"),
            ("claude", "anthropic"),
            ("whisper-large-v3", "groq"),
            ("llama3.2", "ollama"),
            ("llama-3.3-70b-versatile", "vllm"),
            ("gpt-4o" + "x" * 10_000, "openai"),
            ("\ud800\0\n(", "\ud800["),
        ],
    )
    def test_an_unknown_model_has_no_cost(self, pricing: Pricing, model: str, provider: str) -> None:
        assert pricing.cost(model, provider, 10, 10, 0, 0) is None

    def test_after_thousands_of_made_up_names_the_known_ones_still_have_their_price(self) -> None:
        pricing = Pricing()
        price = pricing.cost("gpt-4o", "openai", 1, 1, 0, 0)
        for at in range(5_000):
            assert pricing.cost(f"model {at}", "vllm", 1, 1, 0, 0) is None
        assert pricing.cost("gpt-4o", "openai", 1, 1, 0, 0) == price
        assert pricing.cost("gpt-4o-mini", "openai", 1, 1, 0, 0) is None


def price_file(directory: Path, text: str) -> Path:
    file = directory / "prices.yml"
    file.write_text(text)
    return file


class TestPriceFile:
    def test_it_gives_a_price_to_an_unknown_model(self, tmp_path: Path) -> None:
        file = price_file(tmp_path, "models: {my-model: {input: 0.5, output: 1.5, cache_read: 0.05, cache_write: 0.6}}")
        pricing = Pricing(file)
        assert [
            pricing.cost("my-model", "", *tokens)
            for tokens in ((MILLION, 0, 0, 0), (0, MILLION, 0, 0), (0, 0, MILLION, 0), (0, 0, 0, MILLION))
        ] == pytest.approx([0.5, 1.5, 0.05, 0.6])

    def test_it_wins_over_the_library(self, tmp_path: Path) -> None:
        pricing = Pricing(price_file(tmp_path, "models: {gpt-4o: {input: 1, output: 1}}"))
        assert pricing.cost("GPT-4o", "openai", MILLION, 0, 0, 0) == pytest.approx(1)

    def test_what_it_does_not_name_is_the_librarys(self, tmp_path: Path) -> None:
        pricing = Pricing(price_file(tmp_path, "models: {gpt-4o: {input: 1, output: 1}}"))
        assert pricing.cost("gpt-4o-mini", "openai", 1000, 0, 0, 0) == pytest.approx(
            library("gpt-4o-mini", "openai", 1000, 0, 0, 0)
        )

    def test_cached_tokens_without_a_price_cost_what_input_costs(self, tmp_path: Path) -> None:
        pricing = Pricing(price_file(tmp_path, "models: {m: {input: 2, output: 4}}"))
        assert pricing.cost("m", "", 0, 0, MILLION, MILLION) == pytest.approx(4)

    def test_a_star_is_any_text_and_the_exact_name_wins(self, tmp_path: Path) -> None:
        pricing = Pricing(
            price_file(
                tmp_path,
                "models: {my-*: {input: 1, output: 1}, my-t*: {input: 5, output: 5}, my-one: {input: 9, output: 9}}",
            )
        )
        costs = [pricing.cost(name, "", MILLION, 0, 0, 0) for name in ("my-one", "my-two", "not-my-own")]
        assert costs == [pytest.approx(9), pytest.approx(1), None]

    def test_a_dot_in_a_name_is_a_dot(self, tmp_path: Path) -> None:
        pricing = Pricing(price_file(tmp_path, "models: {m1.5: {input: 1, output: 1}}"))
        assert pricing.cost("m1x5", "", 1, 1, 0, 0) is None

    def test_a_price_of_0_is_a_known_price(self, tmp_path: Path) -> None:
        pricing = Pricing(price_file(tmp_path, "models: {'llama*': {input: 0, output: 0}}"))
        assert pricing.cost("llama3.2", "ollama", 10, 10, 0, 0) == 0

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("models: {m: {input: true, output: 1}}", r"models\.m\.input: .*number.*True"),
            ("models: {m: {input: .nan, output: 1}}", r"models\.m\.input: .*finite.*nan"),
            ("models: {m: {input: .inf, output: 1}}", r"models\.m\.input: .*finite.*inf"),
            ("models: {m: {input: 1, output: -0.5}}", r"models\.m\.output: .*greater than or equal to 0.*-0\.5"),
            ("models: {m: {input: '1', output: 1}}", r"models\.m\.input: .*number"),
            ("models: {m: {input: 1}}", r"models\.m\.output: .*required"),
            ("models: {m: {input: 1, output: 1, cached: 1}}", r"models\.m\.cached: .*not permitted"),
            ("models: {m: {input: 1, output: 1, cache_read: no}}", r"models\.m\.cache_read: .*number.*False"),
            ("models: {4: {input: 1, output: 1}}", r"models\.4\.\[key\]: .*string"),
            ("prices: {}", r"models: .*required"),
            ("- 1", r"the file: .*"),
            ("", r"the file: .*"),
            ("models: {m: {", r"not YAML"),
        ],
    )
    def test_what_is_wrong_is_refused_with_the_file_and_the_key(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(PriceFileError, match=r"prices\.yml: " + message):
            Pricing(price_file(tmp_path, text))

    def test_a_file_that_is_not_there_is_refused_by_name(self, tmp_path: Path) -> None:
        with pytest.raises(PriceFileError, match=r"gone\.yml: can't read the price file: No such file"):
            Pricing(tmp_path / "gone.yml")
