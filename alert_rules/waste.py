"""M6: tokens spent on calls made again and on failed tool calls."""

from alert_rules.promql import SLOW, hours, limit, sigmas_above
from alert_rules.rules import Alert, Group, Recording, Severity

_TOKENS = "agent_purpose:tokens:increase1h"
_RATIO = "agent:token_waste:ratio"
_CALLS = "agent:iterations:increase"


def _window(window: str) -> tuple[Recording, Recording]:
    tokens = _TOKENS if window == "1h" else hours(_TOKENS, window)
    calls = "agent:iterations:increase1h"
    wasted = tokens.replace(_TOKENS, f'{_TOKENS}{{purpose=~"retry|recovery"}}')
    return (
        Recording(_RATIO, f"sum by (agent) ({wasted}) / (sum by (agent) ({tokens}) > 0)", {"window": window}),
        Recording(
            _CALLS,
            f"last_over_time({calls}[20m])" if window == "1h" else hours(calls, window),
            {"window": window},
        ),
    )


GROUP = Group(
    "agent-waste",
    (
        Recording(_TOKENS, "sum by (agent, purpose) (increase(agent_tokens_total[1h]))"),
        *_window("1h"),
        *_window("1d"),
        Alert(
            name="AgentTokenWasteHigh",
            requirement="M6",
            severity=Severity.DASHBOARD,
            cause="waste",
            expr=f"""
            max by (agent) (
                {_RATIO}
              and
                {_CALLS} >= on (agent) group_left () {limit("token_waste_min_count")}
              and
                # too many, and not by chance; calls differ in size, so half of them count
                {sigmas_above(_RATIO, limit("token_waste"), f"{_CALLS} / 2", expected_on="agent")} > 2
              unless on (agent, window) (
                  {_RATIO}{{window="1d"}}
                unless on (agent)
                  {_RATIO}{{window="1h"}} > on (agent) {limit("token_waste")}
              )
            )
            """,
            keep_firing_for="1h",
            summary="{{ $labels.agent }}: {{ $value | humanizePercentage }} of the tokens go into retries and recovery",
            description="""
            More than 30 % of the tokens were spent on calls made again after a failure or on turns after a failed tool
            call: over the last hour where calls are many, over a day where they are few.
            """,
        ),
    ),
    SLOW,
)
