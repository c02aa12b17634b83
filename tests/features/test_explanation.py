import html
import json
from html.parser import HTMLParser

import numpy as np
import pytest

from core.errors import ExpressionError
from features import Explanation, explain, parse
from features.alphas import LIBRARY
from features.grammar import random_expression
from features.operators import OPERATORS
from tests.features.test_operators import CASES


def test_words_tree_and_facts_by_hand():
    found = explain("rank(ts_mean(returns, 20) / ts_std(returns, 60)) * sign(delta(volume, 5))")
    assert found.sentence == (
        "The rank among the symbols of ((the mean over 20 bars of returns) divided by (the standard deviation over 60 bars of "
        "returns)), times the sign of the change over 5 bars of volume."
    )
    assert found.tree.splitlines() == [
        "· * ·",
        "├─ rank(·)",
        "│  └─ · / ·",
        "│     ├─ ts_mean(·, 20)",
        "│     │  └─ returns",
        "│     └─ ts_std(·, 60)",
        "│        └─ returns",
        "└─ sign(·)",
        "   └─ delta(·, 5)",
        "      └─ volume",
    ]
    assert (found.lookback, found.size, found.depth, found.unit) == (60, 13, 5, "no unit")
    assert found.fields == ("close", "volume")
    assert [(node.level, node.lookback, node.unit) for node in found.nodes][:4] == [
        (0, 60, "no unit"),
        (1, 60, "no unit"),
        (2, 60, "no unit"),
        (3, 20, "no unit"),
    ]
    assert found.nodes[-1].canonical == "volume"
    assert found.nodes[-1].unit == "share"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("close", "Close."),
        ("-returns", "Minus returns."),
        ("close / open - 1", "(close divided by open) minus 1."),
        (
            "ts_mean(returns, 20) / ts_std(returns, 60)",
            "The mean over 20 bars of returns, divided by the standard deviation over 60 bars of returns.",
        ),
        (
            "where(volume > 0 and not (close == open), returns, 0)",
            "Returns where ((volume is above 0) and (close differs from open)), else 0.",
        ),
        ("where(not (volume == 0), 1, -1)", "1 where (volume differs from 0), else -1."),
        ("delay(close, 1)", "The value 1 bar ago of close."),
        ("ts_mean(close - open, 5)", "The mean over 5 bars of (close minus open)."),
        ("rank(demean(returns))", "The rank among the symbols of (returns less its mean over the symbols)."),
        ("demean(rank(returns))", "(the rank among the symbols of returns) less its mean over the symbols."),
        ("ts_corr(close, volume, 5)", "The correlation over 5 bars of close and volume."),
        ("ts_quantile(returns, 63, 0.95)", "The 0.95 quantile over 63 bars of returns."),
        ("log(close) ** 2", "(the logarithm of close) to the power of 2."),
    ],
)
def test_sentences_by_hand(text, sentence):
    assert explain(text).sentence == sentence


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_operator_has_words_with_all_its_arguments(name):
    found = explain(CASES[name][0], extra=("mood", "book"))
    root = parse(CASES[name][0], extra=("mood", "book")).root
    node = next(node for node in root.walk() if node.joins(name))
    words = next(line.words for line in found.nodes if line.canonical == node.canonical)
    for arg in node.args:
        for leaf in arg.walk():
            assert leaf.operator is not None or leaf.canonical in words


def test_different_expressions_get_different_words():
    texts = {parse(candidate.expression).canonical for candidate in LIBRARY}
    rng = np.random.default_rng(5)
    texts |= {random_expression(rng, ("close", "open", "high", "low", "volume")).canonical for _ in range(300)}
    assert len({explain(text).sentence for text in texts}) == len(texts)


def test_an_expression_and_its_features_can_be_explained():
    expression = parse("-mood", extra=("mood",))
    assert explain(expression).unit == "unknown"
    assert explain("-trend", features={"trend": "close / ts_mean(close, 5)"}).canonical == "-(close / ts_mean(close, 5))"
    with pytest.raises(ExpressionError, match="unknown field"):
        explain("-mood")


def test_an_explanation_can_be_written_as_json():
    found = explain("where(close > open, returns, 0)")
    again = json.loads(json.dumps(found.to_dict()))
    assert again["canonical"] == found.canonical == "where(open < close, returns, 0)"
    assert again["nodes"][0]["words"] == "returns where (open is below close), else 0"
    assert set(again) == set(Explanation.__dataclass_fields__)


def test_as_text_it_is_the_sentence_the_tree_and_the_facts():
    assert str(explain("delta(close, 1)")) == (
        "The change over 1 bar of close.\n\ndelta(·, 1)\n└─ close\n\n"
        "unit: price; lookback: 1 bar; size: 3 nodes on 2 levels; reads close"
    )


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_in_a_notebook_everything_is_escaped():
    page = explain("where(close < open, returns, 0)")._repr_html_()
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert "open" not in page.split("<")[0]
    assert html.escape("close < open") in page
    assert "· < ·" in "".join(tags.text)
    assert "script" not in page
