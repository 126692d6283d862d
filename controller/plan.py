"""The stages of a rollout: how many users each has, and which harm has to be disproved before the next.

A plan is written into the state file as one text, since metadata there holds scalars only, so that the command line and
the controller judge a rollout by the same plan.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from controller.verdict import Guard

_STAGE = re.compile(r"(?P<percent>[\d.]+)(?::(?P<drop>[\d.]+):(?P<factor>[\d.]+))?")


class BadPlan(ValueError):
    """The text names what is wrong with the plan."""


@dataclass(frozen=True, slots=True)
class Stage:
    """`percent` of the users have the canary; `guard` is what has to be disproved before the next stage."""

    percent: float
    guard: Guard

    @property
    def name(self) -> str:
        """The stage's name in the state file and in the label `stage`."""
        return f"{self.percent:g}"


# A judgement: each stage puts more users at risk, so less harm may still be possible when it begins.
_GUARDS = (
    (5.0, Guard(0.20, 1.50)),
    (10.0, Guard(0.15, 1.30)),
    (25.0, Guard(0.10, 1.20)),
    (100.0, Guard(0.075, 1.15)),
)


def usual_guard(percent: float) -> Guard:
    """The guard of a stage that none was given for: that of the next larger stage of the default plan."""
    return next(guard for largest, guard in _GUARDS if percent <= largest)


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages below 100 %, smallest first. After the last one the canary becomes stable.

    A stage is held for `hold_hours` at least; whether to promote is asked every `look_hours` from then on.
    """

    stages: tuple[Stage, ...]
    hold_hours: float = 24.0
    look_hours: float = 24.0

    @classmethod
    def parse(cls, text: str, *, hold_hours: float = 24.0, look_hours: float = 24.0) -> Self:
        """`5,10,25,50`, or with guards `5:0.2:1.5,50:0.1:1.2` (percent:success drop:cost factor). BadPlan if not."""
        stages = []
        for part in text.split(","):
            match = _STAGE.fullmatch(part.strip())
            try:
                if not match:
                    raise ValueError
                percent = float(match["percent"])
                guard = (
                    usual_guard(percent)
                    if match["drop"] is None
                    else Guard(float(match["drop"]), float(match["factor"]))
                )
            except (ValueError, StopIteration):
                raise BadPlan(
                    f"stage {part.strip()!r}: a stage is PERCENT, or PERCENT:DROP:FACTOR such as 5:0.2:1.5"
                ) from None
            if percent == 100:
                continue  # where every plan ends
            if not 0 < percent < 100:
                raise BadPlan(f"stage {part.strip()!r}: the percentage has to be over 0 and at most 100")
            if not (0 < guard.success_drop < 1 and guard.cost_factor > 1):
                raise BadPlan(f"stage {part.strip()!r}: the drop is from 0 to 1, the factor above 1")
            stages.append(Stage(percent, guard))
        if not stages:
            raise BadPlan("a plan needs a stage below 100 %")
        if any(a.percent >= b.percent for a, b in pairwise(stages)):
            raise BadPlan(f"stages {text!r}: each has to be larger than the one before")
        if not hold_hours > 0 or not look_hours > 0:
            raise BadPlan("the hours to hold a stage, and between two looks, have to be over 0")
        return cls(tuple(stages), hold_hours, look_hours)

    def __str__(self) -> str:
        return ",".join(f"{s.name}:{s.guard.success_drop:g}:{s.guard.cost_factor:g}" for s in self.stages)

    def at(self, name: str) -> Stage | None:
        """The stage of that name; None for 0 and for one that isn't in the plan."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def after(self, percent: float) -> Stage | None:
        """The first stage larger than `percent`; None if that is 100 %."""
        return next((stage for stage in self.stages if stage.percent > percent), None)

    def before(self, percent: float) -> Stage | None:
        """The last stage smaller than `percent`; None if that is 0 %."""
        return next((stage for stage in reversed(self.stages) if stage.percent < percent), None)

    def last_look(self, hours: float) -> float | None:
        """When, in hours since the stage began, it was last asked whether to promote; None before the first time."""
        if hours < self.hold_hours:
            return None
        return self.hold_hours + (hours - self.hold_hours) // self.look_hours * self.look_hours


DEFAULT = Plan.parse("5,10,25,50")
