"""Tokens → USD, by the user's price file and the prices that `genai-prices` brings along.

No network: the prices are those of the installed `genai-prices`; its updater is not used.

The library finds a model in 1-3 ms and computes a price in tens of µs, in Decimal. Here a name is found once, by an
index of the library's own matching rules, and the library is asked once what a token of each kind costs; from then on
a price is a few multiplications of floats.
"""

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple

import yaml
from genai_prices import Usage
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ClauseEquals, ClauseOr, MatchLogic, ModelInfo, ModelPrice, Provider, TieredPrices
from pydantic import BaseModel, ConfigDict, Field, ValidationError

_LONGEST_NAME = 200
# Names are hostile input, and to look for a new one takes 0.35 ms: past so many of them, new ones have no price.
_MOST_NAMES = 5000

# Providers whose name in telemetry is none that genai-prices knows, by how it begins: OpenTelemetry's
# gen_ai.provider.name and the older gen_ai.system. "azure.ai.openai" would otherwise be taken for OpenAI.
_ALIASES = {
    "az.": "azure",
    "azure": "azure",
    "gcp.": "google",
    "gen_ai": "google",
    "x_ai": "x-ai",
    "together": "together",
}

# Servers that people run themselves. What a host elsewhere asks for the same model is not what it costs here.
_OWN_SERVERS = (
    "ollama",
    "vllm",
    "lmstudio",
    "lm_studio",
    "llama.cpp",
    "llama_cpp",
    "llamafile",
    "localai",
    "sglang",
    "tgi",
)

# Who is asked first about a model that its maker doesn't sell, when the provider is not told.
_HOSTS = ("aws", "azure", "groq", "together", "fireworks", "openrouter")

_COMPACT_DATE = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class PriceFileError(ValueError):
    """The price file can't be used; the text names the file, the key and what is wrong."""


_Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _FilePrice(BaseModel):
    """USD per million tokens. Cached tokens without a price of their own cost what uncached input costs."""

    model_config = ConfigDict(strict=True, extra="forbid")
    input: _Usd
    output: _Usd
    cache_read: _Usd | None = None
    cache_write: _Usd | None = None


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    models: dict[str, _FilePrice]


class _Rates(NamedTuple):
    """USD per token, for requests of more than `above` input tokens (cached ones included)."""

    above: int
    input: float
    output: float
    cache_read: float
    cache_write: float


class _Price(NamedTuple):
    tiers: tuple[_Rates, ...]
    """The highest `above` first; the last one is above -1. The tier holds for all tokens of the request."""
    request: float
    """USD per request."""


class _Found:
    """A name's price. Where it depends on date or time of day it is worked out again each minute."""

    __slots__ = ("minute", "model", "price")

    def __init__(self, price: _Price | None, model: ModelInfo | None = None) -> None:
        self.price = price
        self.model = model
        self.minute = -1


class Pricing:
    """Prices of LLM calls.

    `price_file` is YAML, USD per million tokens; it wins over genai-prices, the exact name over a pattern, an earlier
    pattern over a later one (`*` is any text, upper and lower case are the same):

        models:
          my-model: {input: 0.5, output: 1.5, cache_read: 0.05, cache_write: 0.6}
          "local-*": {input: 0, output: 0}

    Raises PriceFileError.
    """

    def __init__(self, price_file: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._own = _read(price_file) if price_file else []
        self._names: dict[tuple[str, str], _Found] = {}
        _sellers()  # takes some 0.3 s: now, rather than during the first request

    def cost(
        self, model: str, provider: str, input: int, output: int, cache_read: int, cache_write: int
    ) -> float | None:
        """USD of one call now; None if no price is known for the model, never 0 for that.

        `input` is what was not cached: the four counts add up to all tokens. `provider` may be empty, or any name that
        instrumentations use ("openai", "aws.bedrock", "AnthropicVertex"). It is asked first; then whoever made the
        model; then other hosts of it, unless the provider is a server of the user's own ("ollama", "vllm"). That a
        model is free is believed of the provider that was named, and of the price file, and never guessed.

        As genai-prices does: cached tokens without a price of their own cost what uncached input costs; a tier's price
        holds for all tokens of the call; tokens of a kind that the model doesn't sell (output of an embedding) cost 0.
        """
        found = self._names.get((model, provider))
        if found is None:
            if len(self._names) >= _MOST_NAMES or len(model) > _LONGEST_NAME or len(provider) > _LONGEST_NAME:
                return None
            found = self._names[model, provider] = self._find(model, provider)
        if found.model is not None:
            minute = int(self._clock() // 60)
            if minute != found.minute:
                found.minute = minute
                found.price = _price(found.model.get_prices(datetime.fromtimestamp(minute * 60, UTC)))
        price = found.price
        if price is None:
            return None
        total = input + cache_read + cache_write
        for rates in price.tiers:
            if total > rates[0]:
                break
        _, of_input, of_output, of_read, of_write = rates
        return input * of_input + output * of_output + cache_read * of_read + cache_write * of_write + price.request

    def _find(self, model: str, provider: str) -> _Found:
        name = model.strip().lower()
        for pattern, price in self._own:
            if pattern.fullmatch(name):
                return _Found(price)
        info = _model(name, provider.strip().lower())
        if info is None:
            return _Found(None)
        if isinstance(info.prices, ModelPrice):
            return _Found(_price(info.prices))
        return _Found(None, info)


class _Seller:
    """A provider of genai-prices, and an index of how it matches names: the first of its models that matches wins.

    Nine of ten rules are "equals", so those are a dict; the library's own rules decide the rest.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._equals: dict[str, int] = {}
        self._rules: list[tuple[int, MatchLogic]] = []
        for at, model in enumerate(provider.models):
            for rule in _alternatives(model.match):
                if isinstance(rule, ClauseEquals):
                    self._equals.setdefault(rule.equals.lower(), at)
                else:
                    self._rules.append((at, rule))

    def find(self, name: str) -> ModelInfo | None:
        first = self._equals.get(name, len(self.provider.models))
        for at, rule in self._rules:
            if at >= first:
                break
            if rule.is_match(name):
                first = at
                break
        return self.provider.models[first] if first < len(self.provider.models) else None


@cache
def _sellers() -> dict[str, _Seller]:
    sellers = {provider.id: _Seller(provider) for provider in get_snapshot().providers}
    return {id_: sellers[id_] for id_ in (*_HOSTS, *sellers) if id_ in sellers}


def _model(name: str, provider: str) -> ModelInfo | None:
    if provider.startswith(_OWN_SERVERS):
        return None
    names = list(_spellings(name))
    named = [(seller, spelling) for seller in _called(provider) for spelling in names]
    maker, slash, rest = name.partition("/")
    if slash:
        named += [(seller, spelling) for seller in _called(maker) for spelling in _spellings(rest)]
    for seller, spelling in named:
        if info := seller.find(spelling):
            return info
    makers = [seller for seller in _sellers().values() if any(map(_rule(seller.provider.model_match), names))]
    for seller in (*makers, *_sellers().values()):
        for spelling in names:
            info = seller.find(spelling)
            if info and _is_paid(info):
                return info
    return None


def _called(provider: str) -> list[_Seller]:
    """The sellers that go by this name, and whose models they offer besides their own."""
    if not provider:
        return []
    sellers = _sellers()
    known = next((name for start, name in _ALIASES.items() if provider.startswith(start)), provider)
    found = [sellers[known]] if known in sellers else []
    if not found:
        found = [seller for seller in sellers.values() if _rule(seller.provider.provider_match)(known)]
    others = [sellers[id_] for seller in found for id_ in seller.provider.fallback_model_providers or ()]
    return found + others


def _rule(rule: MatchLogic | None) -> Callable[[str], bool]:
    return rule.is_match if rule else lambda name: False


def _is_paid(info: ModelInfo) -> bool:
    prices = [info.prices] if isinstance(info.prices, ModelPrice) else [price.prices for price in info.prices]
    return any(price.input_mtok or price.output_mtok for price in prices)


def _alternatives(rule: MatchLogic) -> Iterator[MatchLogic]:
    if isinstance(rule, ClauseOr):
        for part in rule.or_:
            yield from _alternatives(part)
    else:
        yield rule


def _spellings(name: str) -> Iterator[str]:
    """The name as sent, and without what stands around it: a resource path, an ARN, dashes missing in the date."""
    yield name
    bare = name
    if "models/" in name or name.startswith("arn:"):
        bare = name.rsplit("/", 1)[-1]
        yield bare
    dashed = _COMPACT_DATE.sub(r"-\1-\2-\3", bare)
    if dashed != bare:
        yield dashed


_compiled: dict[int, tuple[ModelPrice, _Price | None]] = {}


def _price(prices: ModelPrice) -> _Price | None:
    """What one token of each kind costs, asked of the library; None if the model isn't sold by tokens."""
    if id(prices) not in _compiled:
        _compiled[id(prices)] = (prices, _compile(prices))
    return _compiled[id(prices)][1]


def _compile(prices: ModelPrice) -> _Price | None:
    sold_by = {key for key, price in vars(prices).items() if price is not None}
    if sold_by and not sold_by & {"input_mtok", "output_mtok"}:
        return None  # Sold by the hour or page. No price at all is how the library says free.

    def usd(**tokens: int) -> Decimal:
        return prices.calc_price(Usage(**tokens))["total_price"]

    request = usd(input_tokens=0, output_tokens=0)
    starts = {tier.start for price in vars(prices).values() if isinstance(price, TieredPrices) for tier in price.tiers}
    tiers = []
    for above in sorted({-1, *starts}, reverse=True):
        # One token more than the threshold is a request of that tier.
        size = max(above + 1, 1)
        base = usd(input_tokens=size, output_tokens=0) - request
        tiers.append(
            _Rates(
                above,
                input=float(base / size),
                output=float(usd(input_tokens=size, output_tokens=1) - request - base),
                cache_read=float((usd(input_tokens=size, output_tokens=0, cache_read_tokens=size) - request) / size),
                cache_write=float((usd(input_tokens=size, output_tokens=0, cache_write_tokens=size) - request) / size),
            )
        )
    return _Price(tuple(tiers), float(request))


def _read(file: Path) -> list[tuple[re.Pattern[str], _Price]]:
    """The prices of the file, the exact names first."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        models = _File.model_validate(content).models
    except OSError as error:
        raise PriceFileError(f"{file}: can't read the price file: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PriceFileError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise PriceFileError(
            f"{file}: {key}: {first['msg'][:1].lower()}{first['msg'][1:]}, not {first['input']!r}"
            " (prices are USD per million tokens: models: {my-model: {input: 0.5, output: 1.5}})"
        ) from error
    exact_first = sorted(models.items(), key=lambda item: "*" in item[0])
    return [(_pattern(name), _of_file(price)) for name, price in exact_first]


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in name.strip().lower().split("*")), re.DOTALL)


def _of_file(price: _FilePrice) -> _Price:
    cache_read = price.input if price.cache_read is None else price.cache_read
    cache_write = price.input if price.cache_write is None else price.cache_write
    rates = (price.input, price.output, cache_read, cache_write)
    return _Price((_Rates(-1, *(usd / 1e6 for usd in rates)),), 0.0)
