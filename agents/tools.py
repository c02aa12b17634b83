"""The planner's tools: what an agent may do to the world, and nothing else.

Every tool acts through the `researcher` role (no sealed bar, no change of a trial), does its work once for each tool call
id whatever crashes in between, and answers with a short JSON object. Wrong input is answered with what is allowed
(:class:`ToolRetry`); a failure of the database or of this code is not a tool's answer and ends the run, to be resumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from langchain_core.tools import BaseTool, InjectedToolCallId, tool
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.prebuilt.tool_node import ToolInvocationError

from agents.research.evaluation import evaluate_feature
from agents.research.session import ResearchSession
from agents.research.vectors import latest_analogues, refresh_vectors
from core.errors import DataError, ToolError, ToolRetry
from core.store.records import Feature, FeatureKind
from features.computable import is_plugin_text
from features.fields import available_fields

_MAX_NAME = 80

Step = Annotated[int, InjectedState("step")]
CallId = Annotated[str, InjectedToolCallId]


def build_tools(session: ResearchSession) -> list[BaseTool]:
    """Build the tools of one run."""

    @tool
    def propose_new_feature(
        expression: Annotated[
            str,
            "Causal expression over the bars and promoted features by name, such as `rank(-ts_sum(returns, 5))`, "
            "or `plugin:NAME`. High values must mean: expected to outperform.",
        ],
        name: Annotated[str, "Short name of the idea."],
        family: Annotated[str, "Family of hypotheses: reversal, momentum, volatility, ..."],
        hypothesis: Annotated[str, "One sentence: why this should predict returns."],
        step: Step,
        tool_call_id: CallId,
        parents: Annotated[list[str] | None, "Ids of the features that this one varies, if any."] = None,
    ) -> str:
        """Register a feature before it is tested. The same expression, however written, is the same feature."""
        arguments = {"expression": expression, "name": name, "family": family, "hypothesis": hypothesis}

        def work() -> Mapping[str, Any]:
            return _propose(session, parents=parents or [], **arguments)

        asked = {**arguments, "parents": parents} if parents else arguments
        return session.run_tool("propose_new_feature", step=step, tool_call_id=tool_call_id, arguments=asked, work=work)

    @tool
    def run_backtest(
        feature_id: Annotated[str, "Id that propose_new_feature answered."],
        step: Step,
        tool_call_id: CallId,
    ) -> str:
        """Backtest a proposed feature walk-forward with costs. Each call is a trial in the ledger and raises the bar."""

        def work() -> Mapping[str, Any]:
            return _backtest(session, feature_id)

        return session.run_tool(
            "run_backtest", step=step, tool_call_id=tool_call_id, arguments={"feature_id": feature_id}, work=work
        )

    @tool
    def refresh_vector_store(
        step: Step,
        tool_call_id: CallId,
        window: Annotated[int, "Bars in a window, 107 to 256; the trained encoder takes 128, others fall back on PCA."] = 128,
        stride: Annotated[int, "Bars between the ends of two windows, 1 to 126."] = 21,
    ) -> str:
        """Encode the windows of the data set anew and store them as vectors with their regime and what followed."""
        arguments = {"window": window, "stride": stride}

        def work() -> Mapping[str, Any]:
            if not 107 <= window <= 256 or not 1 <= stride <= 126:
                raise ToolRetry(f"`window` must be in 107..256 and `stride` in 1..126, were {window} and {stride}.")
            return refresh_vectors(session, tool_call_id=tool_call_id, window=window, stride=stride)

        return session.run_tool("refresh_vector_store", step=step, tool_call_id=tool_call_id, arguments=arguments, work=work)

    @tool
    def prune_vectors(
        step: Step,
        tool_call_id: CallId,
        max_age_days: Annotated[int, "Windows that end longer than this before the newest one are old."] = 5_475,
        min_t_stat: Annotated[float, "Windows whose outcome was smaller than this many standard deviations are weak."] = 1.0,
        dry_run: Annotated[bool, "True only counts what would be archived."] = True,
    ) -> str:
        """Archive vectors that are both old and weak, or outside the universe. The last windows of a regime always stay."""
        arguments = {"max_age_days": max_age_days, "min_t_stat": min_t_stat, "dry_run": dry_run}

        def work() -> Mapping[str, Any]:
            if not 0 <= max_age_days <= 36_500 or not 0 <= min_t_stat <= 100:
                raise ToolRetry(
                    f"`max_age_days` must be in 0..36500 and `min_t_stat` in 0..100, were {max_age_days} and {min_t_stat}."
                )
            return session.store.researcher.prune_vectors(
                session.dataset,
                max_age_days=max_age_days,
                min_t_stat=min_t_stat,
                regime_diversity=25,
                asset_universe=session.dataset.symbols,
                dry_run=dry_run,
            )

        return session.run_tool("prune_vectors", step=step, tool_call_id=tool_call_id, arguments=arguments, work=work)

    @tool
    def score_signal_cluster(
        symbol: Annotated[str, "Symbol whose latest window is looked up."],
        step: Step,
        tool_call_id: CallId,
        count: Annotated[int, "How many neighbours, 5 to 200."] = 50,
    ) -> str:
        """Find the past windows most like the latest one of a symbol and tell what followed them. Descriptive, not evidence."""

        def work() -> Mapping[str, Any]:
            if symbol not in session.panel.symbols:
                raise ToolRetry(f"unknown symbol {symbol!r}; there are {', '.join(session.panel.symbols)}.")
            if not 5 <= count <= 200:
                raise ToolRetry(f"`count` must be in 5..200, was {count}.")
            return latest_analogues(session, symbol, count=count)

        arguments = {"symbol": symbol, "count": count}
        return session.run_tool("score_signal_cluster", step=step, tool_call_id=tool_call_id, arguments=arguments, work=work)

    return [propose_new_feature, run_backtest, refresh_vector_store, prune_vectors, score_signal_cluster]


def build_tool_node(tools: list[BaseTool]) -> ToolNode:
    """Build the node that runs the tools; only a tool's own words reach the planner, every other error ends the run."""
    return ToolNode(tools, name="act", handle_tool_errors=_answer_tool_error)


def _answer_tool_error(error: Exception) -> str:
    if isinstance(error, ToolError | ToolInvocationError):
        return str(error)
    raise error


def _propose(
    session: ResearchSession, *, expression: str, name: str, family: str, hypothesis: str, parents: list[str]
) -> Mapping[str, Any]:
    try:
        ancestors = [UUID(parent) for parent in parents]
    except ValueError:
        raise ToolRetry(f"`parents` must be ids that propose_new_feature answered, were {', '.join(parents)}.") from None
    try:
        found = session.resolve(expression)
        found.check_inputs(session.panel)
    except DataError as error:
        what = "plugin" if is_plugin_text(expression) else "expression"
        raise ToolRetry(f"the {what} cannot be accepted: {error}") from error
    missing = sorted(found.columns - set(session.panel.fields))
    if missing:
        raise ToolRetry(
            f"{session.dataset.name} has no {', '.join(missing)}; it has {', '.join(available_fields(session.panel.fields))}."
        )
    if found.lookback is not None and found.lookback >= session.panel.n_bars // 2:
        raise ToolRetry(
            f"the expression looks {found.lookback} bars back; at most half of the {session.panel.n_bars} bars are allowed."
        )
    if not name.strip():
        raise ToolRetry("`name` must not be empty.")
    feature = session.store.researcher.propose_feature(
        {
            "name": name.strip()[:_MAX_NAME],
            "kind": FeatureKind.PLUGIN if found.is_plugin else FeatureKind.EXPRESSION,
            "expression": found.canonical,
            "expression_sha256": found.sha256,
            "lookback": found.lookback,
            "family": family.strip()[:_MAX_NAME],
            "hypothesis": hypothesis.strip(),
            "parents": [str(ancestor) for ancestor in ancestors],
            "run_id": str(session.run_id),
        }
    )
    return {
        "feature_id": str(feature.feature_id),
        "name": feature.name,
        "expression": feature.expression,
        "lookback": feature.lookback,
        "status": feature.status,
        "already_known": feature.run_id != session.run_id,
    }


def _backtest(session: ResearchSession, feature_id: str) -> Mapping[str, Any]:
    try:
        wanted = UUID(feature_id)
    except ValueError:
        raise ToolRetry(f"`feature_id` must be an id that propose_new_feature answered, was {feature_id!r}.") from None
    found: list[Feature] = session.store.researcher.list_features({"feature_id": wanted})
    if not found:
        raise ToolRetry(f"there is no feature {feature_id}: propose it first.")
    others = session.store.researcher.gateway.select(
        "trials", columns=("trial_id",), where={"run_id": session.run_id, "feature_id": ("neq", wanted)}
    )
    if len(others) >= session.budget.trials:  # a feature that has its trial is answered again, after a crash too
        raise ToolRetry(f"the budget of {session.budget.trials} trials is used up: stop and let the results be judged.")
    return asdict(evaluate_feature(session, found[0]))
