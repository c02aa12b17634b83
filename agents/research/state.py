"""What a checkpoint holds of a run: small, JSON-like values; arrays stay in the store and travel by id."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AnyMessage
from langgraph.graph.message import add_messages


class PlannerState(TypedDict, total=False):
    """State of the planner's graph.

    Attributes
    ----------
    messages : list of messages
        What the planner and its tools said; a rules planner drops what it has read, the tool calls are in the store.
    step : int
        Rounds of planning so far.
    tried : list of dict
        One summary a trial, in order.
    pending : list of str
        Ids of features that are proposed and not yet backtested.
    vectors : dict
        What the vector tools answered, by tool.
    recalled : dict
        What earlier runs knew.
    stop : str
        Why the search ended.
    judgement : dict
        The verdicts.
    """

    messages: Annotated[list[AnyMessage], add_messages]
    step: int
    tried: Annotated[list[dict[str, Any]], operator.add]
    pending: list[str]
    vectors: dict[str, Any]
    recalled: dict[str, Any]
    stop: str
    judgement: dict[str, Any]
