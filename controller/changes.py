"""What a change of the state changed, in words."""

from collections.abc import Iterator, Mapping
from typing import Any


def differences(before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    """What changed, a line for each value: `support.config.variants.stable.model: a → b`."""
    yield from _differences("", before, after)


def _differences(key: str, before: object, after: object) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in {**before, **after}:
            if key.endswith(".targeting"):
                continue
            yield from _differences(f"{key}.{name}".lstrip("."), before.get(name), after.get(name))
        if key.endswith(".targeting"):
            yield f"{key}: {_share(before)} → {_share(after)}"
    elif isinstance(after, Mapping) and before is None:
        yield f"{key}: new"
    elif isinstance(before, Mapping) and after is None:
        yield f"{key}: gone"
    else:
        yield f"{key}: {_shown(before)} → {_shown(after)}"


def _share(targeting: Mapping[str, Any]) -> str:
    return f"{targeting['if'][0]['<'][1] / 1000:g} % of users" if targeting else "nobody"


def _shown(value: object) -> str:
    return "-" if value is None else str(value)
