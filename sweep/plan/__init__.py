"""Public interface of the planner: `from sweep.plan import make_plan`, imported lazily, since that takes seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweep.plan.planner import Identities, Identity, Plan, PlanError, PlannedTrial, make_plan

__all__ = ["Identities", "Identity", "Plan", "PlanError", "PlannedTrial", "make_plan"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sweep.plan import planner

    return getattr(planner, name)
