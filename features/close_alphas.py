"""Known hypotheses that need nothing but closes.

Each function yields one family of `features.alphas.LIBRARY`: name, expression, hypothesis, source. Within a family the order
goes from the plainest to the most refined. Windows are bars of a trading day, 21 to the month.
"""

from __future__ import annotations

from collections.abc import Iterator

Row = tuple[str, str, str, str]

_RESIDUAL = "ts_resid(returns, market_returns, 126)"


def reversal() -> Iterator[Row]:
    lehmann, jegadeesh = "Lehmann 1990", "Jegadeesh 1990"
    for n in (1, 2, 3, 5, 10, 21):
        source = jegadeesh if n >= 10 else lehmann
        yield f"reversal_{n}", f"-pct_change(close, {n})", f"Losers of the last {n} bars rebound.", source
    for n in (2, 3, 5, 10, 21):
        yield (
            f"reversal_{n}_ranked",
            f"-ts_mean(rank(returns), {n})",
            f"Symbols that ranked low day after day over {n} bars rebound; ranks tame outliers.",
            lehmann,
        )
    for n in (2, 3, 5, 10, 21):
        yield (
            f"reversal_{n}_smoothed",
            f"-decay_linear(returns, {n})",
            f"Losers of {n} bars rebound, the latest losses most.",
            "Kakushadze 2016",
        )
    for n in (2, 3, 5, 10, 21):
        yield (
            f"reversal_vs_ewma_{n}",
            f"1 - close / ewma(close, {n})",
            f"A price below its exponential average of half-life {n} returns to it.",
            "Poterba and Summers 1988",
        )
    for n in (5, 14):
        yield f"reversal_rsi_{n}", f"-rsi(close, {n})", f"Oversold symbols, by RSI over {n} bars, rebound.", "Wilder 1978"
    for n in (1, 2, 3, 5, 10, 21):
        yield (
            f"reversal_{n}_vol_scaled",
            f"-ts_mean(returns, {n}) / ts_std(returns, 63)",
            f"A loss over {n} bars that is large for the symbol's own volatility is overreaction.",
            lehmann,
        )
    for n in (1, 2, 3, 5, 10, 21):
        yield (
            f"reversal_{n}_market_demeaned",
            f"-ts_mean(demean(returns), {n}) / ts_std(demean(returns), 63)",
            f"Losing against the market over {n} bars, in units of own idiosyncratic volatility, is liquidity and reverts.",
            "Avramov, Chordia and Goyal 2006",
        )
    for n in (1, 5, 21):
        yield (
            f"reversal_{n}_residual",
            f"-ts_mean({_RESIDUAL}, {n}) / ts_std({_RESIDUAL}, 63)",
            f"What the market did not explain over {n} bars reverts; the explained part does not.",
            "Blitz, Huij, Lansdorp and Verbeek 2013",
        )


def momentum() -> Iterator[Row]:
    classic = "Jegadeesh and Titman 1993"
    for months, bars in ((12, 252), (9, 189), (6, 126), (3, 63)):
        yield (
            f"momentum_{months}_1",
            f"delay(close, 21) / delay(close, {bars}) - 1",
            f"Winners of the last {months} months, without the last one, keep winning.",
            classic,
        )
    yield (
        "momentum_12_7",
        "delay(close, 126) / delay(close, 252) - 1",
        "Returns of seven to twelve months ago carry most of momentum.",
        "Novy-Marx 2012",
    )
    for weeks, bars in ((52, 252), (26, 126)):
        yield (
            f"high_{weeks}_weeks",
            f"close / ts_max(close, {bars})",
            f"Investors anchor on the {weeks}-week high and underreact near it.",
            "George and Hwang 2004",
        )
    yield (
        "high_recency",
        "-ts_argmax(close, 252)",
        "A recent 52-week high says more than an old one.",
        "Bhootra and Hur 2013",
    )
    yield (
        "momentum_ranked",
        "delay(ts_mean(rank(returns), 231), 21)",
        "Symbols that ranked high day after day keep winning; ranks tame outliers.",
        classic,
    )
    yield (
        "momentum_share_up",
        "delay(ts_mean(sign(returns), 231), 21)",
        "News that arrives in small steps is underreacted to: many small gains beat few large ones.",
        "Da, Gurun and Warachka 2014",
    )
    for months, bars in ((12, 231), (6, 105), (3, 42)):
        yield (
            f"momentum_{months}_1_vol_scaled",
            f"delay(ts_mean(returns, {bars}) / ts_std(returns, {bars}), 21)",
            f"Momentum over {months} months per unit of risk is steadier than raw momentum.",
            "Barroso and Santa-Clara 2015",
        )
    yield (
        "momentum_acceleration",
        "delay(close, 21) / delay(close, 126) - delay(close, 147) / delay(close, 252)",
        "Momentum that speeds up attracts more underreaction than momentum that fades.",
        "Gettleman and Marks 2006",
    )
    yield (
        "momentum_market_demeaned",
        "delay(ts_mean(demean(returns), 231) / ts_std(demean(returns), 231), 21)",
        "Beating the market steadily for a year persists.",
        "Grundy and Martin 2001",
    )
    for months, bars in ((12, 231), (6, 105)):
        yield (
            f"momentum_{months}_1_residual",
            f"delay(ts_mean({_RESIDUAL}, {bars}) / ts_std({_RESIDUAL}, {bars}), 21)",
            f"Momentum over {months} months in what the market does not explain is less exposed to reversals of the market.",
            "Blitz, Huij and Martens 2011",
        )


def trend() -> Iterator[Row]:
    averages = "Brock, Lakonishok and LeBaron 1992"
    for n in (21, 63, 126, 252):
        yield (
            f"trend_gap_{n}",
            f"close / ts_mean(close, {n}) - 1",
            f"A price above its mean of {n} bars keeps rising.",
            averages,
        )
    for fast, slow in ((5, 63), (21, 126), (63, 252)):
        yield (
            f"trend_cross_{fast}_{slow}",
            f"ts_mean(close, {fast}) / ts_mean(close, {slow}) - 1",
            f"A mean of {fast} bars above that of {slow} marks an uptrend that lasts.",
            averages,
        )
    for n in (63, 126, 252):
        yield (
            f"trend_breakout_{n}",
            f"(close - ts_min(close, {n})) / (ts_max(close, {n}) - ts_min(close, {n}))",
            f"A price near the top of its channel of {n} bars breaks out.",
            "Donchian 1960",
        )
    for n in (126, 252):
        yield f"trend_rank_{n}", f"ts_rank(close, {n})", f"A price above most of its last {n} values keeps rising.", averages
    for n in (126, 252):
        yield (
            f"trend_zscore_{n}",
            f"ts_zscore(log(close), {n})",
            f"A price stretched above its mean of {n} bars, in its own units, keeps rising.",
            averages,
        )
    yield (
        "trend_sign_252",
        "sign(pct_change(close, 252))",
        "What rose over a year rises further, however much it rose.",
        "Moskowitz, Ooi and Pedersen 2012",
    )
    yield (
        "trend_scaled_252",
        "pct_change(close, 252) / ts_std(returns, 63)",
        "What rose over a year rises further, per unit of current risk.",
        "Moskowitz, Ooi and Pedersen 2012",
    )
    for n in (63, 126, 252):
        yield (
            f"trend_slope_{n}",
            f"ts_slope(log(close), {n}) / ts_std(log_returns, {n})",
            f"A steep fitted trend over {n} bars, relative to daily noise, continues.",
            "Han, Zhou and Zhu 2016",
        )
    for n in (63, 252):
        yield (
            f"trend_straightness_{n}",
            f"ts_slope(log(close), {n}) / ts_std(log(close), {n})",
            f"A price that follows a straight rising line over {n} bars (correlation with time) stays on it.",
            "Han, Zhou and Zhu 2016",
        )
    for fast, slow in ((8, 24), (16, 48)):
        yield (
            f"trend_macd_{fast}_{slow}",
            f"(ewma(close, {fast}) - ewma(close, {slow})) / ts_std(close, 63)",
            f"Exponential averages of half-life {fast} over {slow}, per unit of price noise, follow trends with little lag.",
            "Baz, Granger, Harvey, Le Roux and Rattray 2015",
        )


def volatility() -> Iterator[Row]:
    low = "Blitz and van Vliet 2007"
    for n in (21, 63, 126, 252):
        yield f"low_volatility_{n}", f"-ts_std(returns, {n})", f"Calm symbols over {n} bars earn more than they should.", low
    yield (
        "low_absolute_return",
        "-ts_median(abs(returns), 63)",
        "Typical daily moves, untouched by outliers, measure the risk that is overpaid for.",
        low,
    )
    yield (
        "low_ewma_volatility",
        "-sqrt(ewma(returns ** 2, 21))",
        "Current risk, recent bars weighted most, is overpaid for.",
        low,
    )
    for n in (63, 126):
        yield (
            f"low_downside_{n}",
            f"-sqrt(ts_mean(min(returns, 0) ** 2, {n}))",
            f"Symbols with small losses over {n} bars hold up better.",
            "Ang, Chen and Xing 2006",
        )
    yield (
        "shallow_drawdown",
        "ts_min(close / ts_max(close, 63), 126)",
        "Symbols without deep recent drawdowns carry less hidden risk.",
        low,
    )
    for fast, slow in ((5, 63), (21, 252)):
        yield (
            f"volatility_falling_{fast}_{slow}",
            f"-ts_std(returns, {fast}) / ts_std(returns, {slow})",
            f"When the volatility of {fast} bars falls below that of {slow}, uncertainty resolves and prices recover.",
            "Ang, Hodrick, Xing and Zhang 2006",
        )
    for n in (21, 63):
        yield (
            f"low_idiosyncratic_{n}",
            f"-ts_std(demean(returns), {n})",
            f"High risk of its own over {n} bars attracts gamblers and disappoints.",
            "Ang, Hodrick, Xing and Zhang 2006",
        )
    yield (
        "low_residual_volatility",
        f"-ts_std({_RESIDUAL}, 63)",
        "Risk that the market does not explain is overpaid for.",
        "Ang, Hodrick, Xing and Zhang 2006",
    )
    yield (
        "low_volatility_of_volatility",
        "-ts_std(ts_std(returns, 21), 126) / ts_mean(ts_std(returns, 21), 126)",
        "Symbols whose risk is itself uncertain are disliked too late.",
        "Baltussen, van Bekkum and van der Grient 2018",
    )
    yield (
        "bad_over_good_volatility",
        "-(ts_mean(max(returns, 0) ** 2, 21) - ts_mean(min(returns, 0) ** 2, 21)) / ts_mean(returns ** 2, 21)",
        "Symbols whose recent variation came from gains are followed by lower returns.",
        "Bollerslev, Li and Zhao 2020",
    )


def moments() -> Iterator[Row]:
    lottery, skew = "Bali, Cakici and Whitelaw 2011", "Amaya, Christoffersen, Jacobs and Vasquez 2015"
    for n in (21, 63):
        yield (
            f"low_max_{n}",
            f"-ts_max(returns, {n})",
            f"The best day in {n} bars makes a lottery ticket, which is overpriced.",
            lottery,
        )
    yield "low_high_quantile", "-ts_quantile(returns, 63, 0.95)", "Frequent large gains make a lottery ticket.", lottery
    yield (
        "shallow_left_tail",
        "ts_quantile(returns, 252, 0.05)",
        "Left-tail risk persists and is underestimated: symbols with a deep left tail keep losing.",
        "Atilgan, Bali, Demirtas and Gunaydin 2020",
    )
    for n in (63, 126, 252):
        yield f"low_skew_{n}", f"-ts_skew(returns, {n})", f"Skewed returns over {n} bars are preferred and so overpriced.", skew
    for n in (63, 126):
        yield f"high_kurtosis_{n}", f"ts_kurt(returns, {n})", f"Fat tails over {n} bars are a risk that is paid for.", skew
    yield (
        "low_max_vol_scaled",
        "-ts_max(returns, 21) / ts_std(returns, 252)",
        "The best day relative to usual risk separates the lottery from plain volatility.",
        lottery,
    )
    yield (
        "low_quantile_asymmetry",
        "-(ts_quantile(returns, 126, 0.95) + ts_quantile(returns, 126, 0.05) - 2 * ts_median(returns, 126))"
        " / (ts_quantile(returns, 126, 0.95) - ts_quantile(returns, 126, 0.05))",
        "Skewness measured by quantiles, which single days cannot move, is overpriced.",
        "Ghysels, Plazzi and Valkanov 2016",
    )
    yield (
        "low_idiosyncratic_skew",
        f"-ts_skew({_RESIDUAL}, 126)",
        "Skewness of what the market does not explain is what gamblers look for.",
        "Boyer, Mitton and Vorkink 2010",
    )


def comovement() -> Iterator[Row]:
    beta = "Frazzini and Pedersen 2014"
    for n in (126, 252):
        yield (
            f"low_beta_{n}",
            f"-ts_beta(returns, market_returns, {n})",
            f"Investors who cannot borrow bid up high beta (over {n} bars).",
            beta,
        )
    for n in (126, 252):
        yield (
            f"low_correlation_{n}",
            f"-ts_corr(returns, market_returns, {n})",
            f"The part of beta that is correlation (over {n} bars) is mispriced by leverage constraints.",
            "Asness, Frazzini, Gormsen and Pedersen 2020",
        )
    yield (
        "correlation_falling",
        "ts_corr(returns, market_returns, 252) - ts_corr(returns, market_returns, 63)",
        "A symbol that decouples from the market has news of its own that is not priced yet.",
        "Asness, Frazzini, Gormsen and Pedersen 2020",
    )
    yield (
        "low_beta_three_bar",
        "-ts_corr(ts_sum(log_returns, 3), ts_sum(market_returns, 3), 504) * ts_std(returns, 252) / ts_std(market_returns, 252)",
        "Low beta from slow correlations of three-bar returns and faster volatilities.",
        beta,
    )
    yield (
        "downside_beta_premium",
        "ts_beta(min(returns, 0), min(market_returns, 0), 252)",
        "Falling with a falling market is a risk that is paid for.",
        "Ang, Chen and Xing 2006",
    )
    yield (
        "low_coskewness",
        "-ts_corr(demean(returns), market_returns ** 2, 126)",
        "Symbols that lose when the market moves wildly must offer more.",
        "Harvey and Siddique 2000",
    )
    yield (
        "price_delay",
        "ts_corr(returns, delay(market_returns, 1), 252)",
        "Symbols that react late to the market are neglected and earn a premium.",
        "Hou and Moskowitz 2005",
    )
    yield (
        "lagged_market_catch_up",
        "ts_beta(returns, delay(market_returns, 1), 126) * market_returns",
        "Symbols that follow the market a bar late will follow today's move tomorrow.",
        "Lo and MacKinlay 1990",
    )
    yield (
        "own_autocorrelation",
        "ts_corr(returns, delay(returns, 1), 126) * returns",
        "A symbol that used to continue (or revert) its last move does so again.",
        "Lo and MacKinlay 1990",
    )
