"""Model names: which of them always mean the same weights, and whether the one that answered is the one asked for."""

import re

# The provider moves these to other weights whenever it likes: no setting makes a pin of them.
_ALIASES = frozenset({"latest", "newest", "current", "recommended", "default", "auto"})
# These are changed or withdrawn at short notice; only who uses them can say that one stands still.
_UNFINISHED = frozenset({"preview", "experimental", "exp", "beta", "alpha", "nightly", "snapshot", "rc"})

_MONTH = r"(?:0[1-9]|1[0-2])"
_DAY = r"(?:0[1-9]|[12]\d|3[01])"
_YEAR = r"20[2-9]\d"
_PIN = re.compile(
    rf"""
    (?<![A-Za-z0-9])(?:
        {_YEAR}-?{_MONTH}-?{_DAY}     # gpt-4o-2024-08-06, claude-sonnet-4-5-20250929
      | {_MONTH}-{_YEAR}              # command-r-08-2024
      | {_MONTH}{_DAY}                # gpt-4-0613
      | 2\d{_MONTH}                   # mistral-large-2411
      | 0\d\d                         # gemini-1.5-pro-002
      | v\d+:\d+                      # amazon.nova-pro-v1:0
      | sha256:[0-9a-f]{{12,64}}      # a digest, of an Ollama model say
      | (?<=@)[0-9a-f]{{7,40}}        # a commit, of a Hugging Face model say
    )(?![A-Za-z0-9])
    """,
    re.VERBOSE,
)
_VENDOR = re.compile(r"^(?:[a-z]+\.)+")
_HOSTING = re.compile(r"-v\d+(?::\d+)?(?=@|$)")


class UnpinnedModel(ValueError):
    """The name is an alias, or nothing in it shows that it stands for one version."""


def check_pin(model: str, *, pinned: bool = False) -> None:
    """Raises UnpinnedModel unless the name stands for one version of the model.

    A date or a version in the name is taken for proof. `pinned` is the user's own word for a name without one (a
    deployment's, say) or for a preview; for an alias such as `latest` it does not help.
    """
    if not model.strip() or model != model.strip():
        raise UnpinnedModel(f"model {model!r}: a model's name without spaces around it is needed")
    words = frozenset(re.split(r"[^a-z0-9]+", model.lower()))
    if alias := sorted(words & _ALIASES):
        raise UnpinnedModel(
            f"model {model!r}: {alias[0]!r} is an alias, what it stands for changes; name the dated version"
        )
    if pinned:
        return
    if unfinished := sorted(words & _UNFINISHED):
        raise UnpinnedModel(
            f"model {model!r}: a version called {unfinished[0]!r} may change or go; name a released one, or set "
            "pinned: true if you know that this one stands still"
        )
    if not _PIN.search(model):
        raise UnpinnedModel(
            f"model {model!r}: no date or version in the name, so it may be an alias; name the dated version, or set "
            "pinned: true if you know that it stands still"
        )


def answers(model: str, answered_by: str) -> bool:
    """Whether a response that names `answered_by` came from the model that was asked for.

    A gateway's path, a cloud's vendor prefix and version suffix say nothing of the weights. A name without a version
    is answered by any dated version of it.
    """
    asked, answered = _plain(model), _plain(answered_by)
    if asked == answered:
        return True
    rest = answered.removeprefix(f"{asked}-")
    return rest != answered and not _PIN.search(asked) and _PIN.fullmatch(rest) is not None


def _plain(model: str) -> str:
    name = model.strip().lower()
    if not name.startswith("ft:"):
        name = name.rsplit("/", 1)[-1]
    return _HOSTING.sub("", _VENDOR.sub("", name)).replace("@", "-")
