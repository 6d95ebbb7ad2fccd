"""Tables of what a receiver can tell and ask (`confidence.json`, `asking.json`), for `tables.py`."""

import asking as bench
from results import read
from semcast.modulation.reply import AGAIN_BELOW_DB


def confidence() -> str:
    """How well the expected errors of cells order the true ones, and how large they are beside them."""
    record = read("confidence.json")
    lines = [
        "| pictures | channel | Es/N0 | cells | Spearman | within a picture | AUC of the worst tenth | calibration error "
        "| true, expected error |",
        "|---" * 9 + "|",
    ]
    lines += [
        f"| {row['pictures']} | {row['channel']} | {row['snr_db']:g} dB | {row['cells']} | {row['spearman']:.2f} "
        f"| {row['spearman_within']:.2f} | {row['auc']:.2f} | {row['ece']:.2f} "
        f"| {row['error_mean']:.1f}, {row['expected_mean']:.1f} |"
        for row in record["rows"]
    ]
    return "\n".join([*lines, "", f"`{record['command']}`"])


def asking() -> str:
    """Where sending the same again is better than going on, and how often the rule that ships is right."""
    record = read("asking.json")
    rows = record["rows"]
    lines = [
        "| rungs that have arrived | Es/N0 | cases | LPIPS-Alex | after the same again | after more | again is better |",
        "|---" * 7 + "|",
    ]
    lasts = [*list(AGAIN_BELOW_DB)[1:], bench.RUNGS]
    names = {
        first: f"{first} to {end - 1}" if first < end - 1 else f"{first}" for first, end in zip(AGAIN_BELOW_DB, lasts)
    }
    lines += [
        f"| {names[row['last_rung_from']]} | {row['snr_db'][0]:g} to {row['snr_db'][1]:g} dB | {row['cases']} "
        f"| {row['lpips']:.3f} | {row['again_lpips']:.3f} | {row['more_lpips']:.3f} | {row['again_is_better']:.0%} |"
        for row in bench.table(rows)
    ]
    shipped, _, others = bench.verdicts(rows)
    rule = (
        f"The rule that ships takes the better way in {shipped['right']:.1%} of {len(rows)} cases and loses "
        f"{shipped['lpips_lost']:.4f} LPIPS on average; fitted to the other pictures each time, in {others['right']:.1%}."
    )
    return "\n".join([*lines, "", f"{rule} `{record['command']}`"])


TABLES = (confidence, asking)
