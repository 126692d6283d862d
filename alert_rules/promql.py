"""Pieces of PromQL that several rules share."""


def limit(name: str) -> str:
    """The limit of this name for each agent seen: the agent's own, else the one of `agent="*"`. Labels: agent."""
    return (
        f'(agent:limit{{name="{name}",agent!="*"}} '
        f'or on (agent) agent:seen * on () group_left () agent:limit{{name="{name}",agent="*"}})'
    )
