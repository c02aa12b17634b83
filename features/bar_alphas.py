"""Known hypotheses that need volume, or the open, high and low of a bar.

Each function yields one family of `features.alphas.LIBRARY`: name, expression, hypothesis, source. Within a family the order
goes from the plainest to the most refined. Windows are bars of a trading day, 21 to the month.
"""

from __future__ import annotations

from collections.abc import Iterator

from features.close_alphas import Row

_OVERNIGHT = "(open / delay(close, 1) - 1)"
_INTRADAY = "(close / open - 1)"
_RANGE = "log(high / low)"
_MIDDLE = "(log(high) + log(low)) / 2"
_DRIFTLESS = "(log(high / close) * log(high / open) + log(low / close) * log(low / open))"
_ILLIQUIDITY = "abs(returns) / dollar_volume"
_VOLUME_SHOCK = "(log(volume) - ts_mean(log(volume), 63))"


def volume() -> Iterator[Row]:
    premium, cgw = "Gervais, Kaniel and Mingelgrin 2001", "Campbell, Grossman and Wang 1993"
    yield "volume_shock", "volume / ts_mean(volume, 63)", "Unusual volume draws attention and buyers.", premium
    yield "volume_rank", "ts_rank(volume, 63)", "Volume that is high for the symbol draws attention and buyers.", premium
    yield "volume_shock_week", f"ts_mean({_VOLUME_SHOCK}, 5)", "A week of unusual volume draws attention and buyers.", premium
    yield (
        "signed_volume",
        "ts_sum(sign(returns) * volume, 21) / ts_sum(volume, 21)",
        "Volume on up bars is accumulation.",
        "Granville 1963",
    )
    for n in (10, 63):
        yield (
            f"low_price_volume_correlation_{n}",
            f"-ts_corr(close, volume, {n})",
            f"A price that rose on rising volume over {n} bars has exhausted its buyers.",
            "Kakushadze 2016, alpha 6",
        )
    yield (
        "low_rank_price_volume_correlation",
        "-ts_cov(rank(close / ts_mean(close, 21)), rank(volume / ts_mean(volume, 21)), 5)",
        "Ranks of relative price and relative volume that rise together mark exhausted buying.",
        "Kakushadze 2016, alpha 13",
    )
    for n in (1, 5):
        yield (
            f"reversal_{n}_on_volume",
            f"-ts_sum(returns, {n}) * ts_mean(volume, {n}) / ts_mean(volume, 63)",
            f"Moves over {n} bars on high volume come from liquidity needs and revert.",
            cgw,
        )
    yield (
        "llorente_continuation",
        f"ts_beta(returns, delay(returns * {_VOLUME_SHOCK}, 1), 252) * returns * {_VOLUME_SHOCK}",
        "How a symbol's high-volume moves used to continue (speculation) or revert (hedging) tells what today's does.",
        "Llorente, Michaely, Saar and Wang 2002",
    )
    yield (
        "fading_volume",
        "-log(ts_mean(volume, 63) / ts_mean(volume, 252))",
        "Symbols that are traded less than they used to be are neglected, and recover.",
        "Lee and Swaminathan 2000",
    )


def liquidity() -> Iterator[Row]:
    yield (
        "small_dollar_volume",
        "-log(ts_mean(dollar_volume, 63))",
        "Little traded symbols pay for illiquidity.",
        "Datar, Naik and Radcliffe 1998",
    )
    for n in (21, 252):
        yield (
            f"amihud_{n}",
            f"log(ts_mean({_ILLIQUIDITY}, {n}))",
            f"Symbols whose price moves most per traded dollar over {n} bars pay for illiquidity.",
            "Amihud 2002",
        )
    yield (
        "steady_dollar_volume",
        "-ts_std(dollar_volume, 126) / ts_mean(dollar_volume, 126)",
        "Symbols with unsteady trading earn less.",
        "Chordia, Subrahmanyam and Anshuman 2001",
    )
    yield (
        "liquidity_shock",
        f"log(ts_mean({_ILLIQUIDITY}, 252)) - log(ts_mean({_ILLIQUIDITY}, 5))",
        "Symbols that became easier to trade than they were in the last year are repriced late.",
        "Bali, Peng, Shen and Tang 2014",
    )
    # Corwin and Schultz's alpha is (1 + sqrt(2)) * (sqrt(beta) - sqrt(gamma)), and the spread 2 * tanh(alpha / 2); moves over
    # night are left in, negative spreads of two bars count as zero.
    yield (
        "corwin_schultz_spread_21",
        f"ts_mean(max(2 * tanh(1.2071068 * (sqrt(ts_sum({_RANGE} ** 2, 2)) - log(ts_max(high, 2) / ts_min(low, 2)))), 0), 21)",
        "Ranges of two bars that grow less than volatility makes them reveal a wide spread, which is paid for.",
        "Corwin and Schultz 2012; Amihud and Mendelson 1986",
    )
    yield (
        "abdi_ranaldo_spread_21",
        f"ts_mean(2 * sqrt(max(delay(log(close) - {_MIDDLE}, 1) * (delay(log(close), 1) - {_MIDDLE}), 0)), 21)",
        "Closes that lie apart from the middles of this and the next range reveal a wide spread, which is paid for.",
        "Abdi and Ranaldo 2017; Amihud and Mendelson 1986",
    )


def ranges() -> Iterator[Row]:
    tug = "Lou, Polk and Skouras 2019"
    yield (
        "close_near_low",
        "-(close - low) / (high - low)",
        "A close near the bar's low is selling pressure that reverts.",
        "Connors and Alvarez 2009",
    )
    yield (
        "below_vwap",
        "1 - close / vwap",
        "A close below the bar's average price is selling pressure that reverts.",
        "Kakushadze 2016",
    )
    yield (
        "close_near_low_week",
        "-ts_mean(where(high > low, (close - low) / (high - low), 0.5), 5)",
        "A week of closes near the low is selling pressure that reverts.",
        "Connors and Alvarez 2009",
    )
    for n in (21, 63):
        yield (
            f"low_range_volatility_{n}",
            f"-sqrt(ts_mean({_RANGE} ** 2, {n}))",
            f"Calm symbols, measured by ranges over {n} bars, earn more than they should.",
            "Parkinson 1980",
        )
    yield (
        "low_garman_klass_volatility_21",
        f"-sqrt(ts_mean({_RANGE} ** 2 / 2 - 0.3862944 * log(close / open) ** 2, 21))",
        "Calm symbols, measured by ranges with the gain of the day taken out, earn more than they should.",
        "Garman and Klass 1980",
    )
    yield (
        "low_rogers_satchell_volatility_21",
        f"-sqrt(ts_mean({_DRIFTLESS}, 21))",
        "Calm symbols, measured by ranges that a trend does not widen, earn more than they should.",
        "Rogers and Satchell 1991",
    )
    yield (
        "low_yang_zhang_volatility_21",
        "-sqrt(ts_var(log(open / delay(close, 1)), 21) + 0.1393443 * ts_var(log(close / open), 21)"
        f" + 0.8606557 * ts_mean({_DRIFTLESS}, 21))",
        "Calm symbols, gaps at the open counted and trends not, earn more than they should.",
        "Yang and Zhang 2000",
    )
    yield (
        "low_true_range",
        "-atr(high, low, close, 21) / close",
        "Calm symbols, gaps counted, earn more than they should.",
        "Wilder 1978",
    )
    yield (
        "range_breakout",
        "(close - ts_min(low, 63)) / (ts_max(high, 63) - ts_min(low, 63))",
        "A close near the top of its channel of highs and lows breaks out.",
        "Donchian 1960",
    )
    yield "overnight_gap_reversal", f"-{_OVERNIGHT}", "Gaps at the open overshoot.", "Berkman, Koch, Tuttle and Zhang 2012"
    for n in (1, 5):
        yield f"intraday_reversal_{n}", f"-ts_mean({_INTRADAY}, {n})", f"Moves within the day over {n} bars revert.", tug
    yield "overnight_momentum", f"ts_mean({_OVERNIGHT}, 21)", "Overnight buyers keep buying overnight.", tug
    yield (
        "overnight_minus_intraday",
        f"ts_mean({_OVERNIGHT}, 63) - ts_mean({_INTRADAY}, 63)",
        "Symbols that gain overnight and lose by day show persistent demand against persistent arbitrage.",
        tug,
    )
    yield (
        "money_flow",
        "ts_sum(where(high > low, (2 * close - high - low) / (high - low), 0) * volume, 21) / ts_sum(volume, 21)",
        "Volume on bars that close near their high is accumulation.",
        "Chaikin 1982",
    )
