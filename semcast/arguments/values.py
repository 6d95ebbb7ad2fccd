"""What a value on the command line may be: a function each, from its text to the value, for argparse's `type`."""

import argparse
import math
import re

from ..header import RUNGS, SEED_MAX


def number(kind, low, high):
    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' if kind is int else ''}number") from None
        if not low <= value <= high:  # refuses NaN too
            raise argparse.ArgumentTypeError(f"{text} must lie between {low} and {high}")
        return value

    return parse


snr, snr3k = number(float, -30, 60), number(float, -40, math.inf)
factor, quality = number(float, 0.5, 1), number(float, 0, 1)
steps, seed = number(int, 1, 1000), number(int, 0, SEED_MAX)
uses, size = number(int, 1, 10**9), number(int, 16, 2048)
seconds, listening, lead = number(float, 0, 3600), number(float, 1, 86_400), number(float, 0, 60)
file_rate, centre = number(int, 4000, 20_000_000), number(float, -10_000_000, 10_000_000)
side, count, port = number(int, 64, 8192), number(int, 1, 100_000), number(int, 0, 65535)


def span(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= RUNGS:
        raise argparse.ArgumentTypeError(f"{text!r} is no run of rungs, like 1-{RUNGS} or 9-16")
    return first, last
