"""Writes what statsmodels makes of a series: `pip install statsmodels`, then `python3 reference.py >
reference.txt`. The tests hold the daemon's models against it."""

import math
import random

import numpy as np
from statsmodels.tsa.api import STL, ExponentialSmoothing, SimpleExpSmoothing
from statsmodels.tsa.arima.estimators.hannan_rissanen import hannan_rissanen
from statsmodels.tsa.statespace.sarimax import SARIMAX

DAY, STEPS = 24, 12


def series():
    """Two and a half weeks of hours, with a day's and a week's season, a trend and noise."""
    draw, noise, values = random.Random(7), 0.0, []
    for hour in range(420):
        noise = 0.6 * noise + draw.gauss(0, 2)
        season = 10 * math.sin(hour * math.tau / DAY) + 4 * math.sin(hour * math.tau / (7 * DAY))
        values.append(round(40 + hour / 100 + season + noise, 3))
    return np.array(values)


def noise():
    """What was before and the last shock in it, and nothing else."""
    draw, values, shock = random.Random(8), [0.0, 0.0], 0.0
    for _ in range(420):
        before, shock = shock, draw.gauss(0, 1)
        values.append(round(1.2 * values[-1] - 0.4 * values[-2] + shock + 0.5 * before, 3))
    return np.array(values) + 20


def show(name, values):
    print(name, *(f"{value:.9g}" for value in values))


def odd(least):
    return math.ceil(least) + (math.ceil(least) + 1) % 2


def stl(values, period, window):
    trend, low = odd(1.5 * period / (1 - 1.5 / window)), odd(period + 1)
    jumps = {"trend_jump": math.ceil(trend / 10), "low_pass_jump": math.ceil(low / 10)}
    model = STL(values, period=period, seasonal=window, trend=trend, low_pass=low, **jumps)
    return model.fit(inner_iter=2, outer_iter=0).seasonal


def mstl(values):
    seasons = {DAY: np.zeros(len(values)), 7 * DAY: np.zeros(len(values))}
    rest = values.copy()
    for _ in range(2):
        for number, period in enumerate(seasons):
            rest = rest + seasons[period]
            seasons[period] = stl(rest, period, 11 + 4 * number)
            rest = rest - seasons[period]
    return sum(seasons.values())


y = series()
show("series", y)
simple = SimpleExpSmoothing(y, initialization_method="known", initial_level=y[0])
show("ewma", simple.fit(smoothing_level=0.3, optimized=False).forecast(STEPS))
trend = {"trend": "add", "damped_trend": True, "initialization_method": "known", "initial_trend": 0}
given = {"smoothing_level": 0.3, "smoothing_trend": 0.1, "damping_trend": 0.9, "optimized": False}
model = ExponentialSmoothing(y, initial_level=y[0], **trend)
show("trend", model.fit(**given).forecast(STEPS))
level = y[:DAY].mean()
season = {"seasonal": "add", "seasonal_periods": DAY, "initial_seasonal": y[:DAY] - level}
model = ExponentialSmoothing(y, initial_level=level, **season, **trend)
show("holt-winters", model.fit(smoothing_seasonal=0.2, **given).forecast(STEPS))
show("stl", stl(y, DAY, 11))
show("mstl", mstl(y))
y = noise()
show("noise", y)
for name, order in [("arima", (2, 1, 1)), ("arma", (2, 0, 1))]:
    z = np.diff(y) if order[1] else y - y.mean()
    found, _ = hannan_rissanen(z, 2, 1, initial_ar_order=12, demean=False, unbiased=False)
    params = [*found.ar_params, *found.ma_params]
    show(f"{name}.weights", params)
    mean = 0 if order[1] else y.mean()
    said = SARIMAX(y - mean, order=order).smooth([*params, 1]).forecast(STEPS)
    show(f"{name}.ahead", said + mean)
