"""On-call for LLM agents, inside the agent's process: see docs/runtime.md."""

from agent_oncall.breaker import BreakerOpen, BudgetExceeded, Cut, Limits
from agent_oncall.runtime import Config, Runtime
from agent_oncall.task import Iteration, Task, ToolCall, current_task
from agent_oncall.tracing import Stamps

__all__ = [
    "BreakerOpen",
    "BudgetExceeded",
    "Config",
    "Cut",
    "Iteration",
    "Limits",
    "Runtime",
    "Stamps",
    "Task",
    "ToolCall",
    "current_task",
]
