"""Medians and how sure they are."""

import math
import random
import statistics

median = statistics.median


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def interval(values, repeats=4000):
    """The 95 % interval of the median, by resampling; None for fewer than five."""
    if len(values) < 5:
        return None
    chance = random.Random(1)  # The same report from the same samples.
    medians = sorted(median(chance.choices(values, k=len(values))) for _ in range(repeats))
    return medians[repeats // 40], medians[-repeats // 40]


def slope(points):
    """What one more x costs (least squares)."""
    xs, ys = zip(*points)
    return statistics.linear_regression(xs, ys).slope


def exponent(points):
    """The power of x that y grows with: 1 is linear, less is better."""
    return slope([(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0])
