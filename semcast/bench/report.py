"""The report of a run: DIR/report.html, a page of plots, tables and pictures that needs no other file.

The tables are also written for papers and further work: tables.md, tables.tex and summary.csv (see `summary.py`).
"""

import base64
import html
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import write_bytes
from ..metrics.segmenter import mean_iou
from .harness import FEATURES, ROWS, original_path, picture_path, read_features, read_rows
from .measures import METRICS
from .summary import (
    ALL,
    MEASURES,
    PICTURES_MIN,
    SETS,
    TIMES,
    Summary,
    as_csv,
    as_text,
    distances,
    order,
    segmented,
    setting,
    summarise,
    tables,
    times,
)
from .systems import SYSTEMS, family

SHOWN_SIDE = 320  # the longer side of pictures in the report, in pixels
DASHES = {"fixed": "2 4", "capacity": "9 4", "finite": "9 4 2 4", "2steps": "9 4", "1step": "2 4"}
# Of families; each is used once more, darker, when there are many.
COLOURS = "#c0392b #1f77b4 #2e8b57 #8e44ad #e08a00 #5d6d7e #00a3a3 #8b5a2b #e0479b #7aa21c".split()


def report(out: Path) -> Path:
    """Write DIR/report.html, summary.csv, tables.md and tables.tex from DIR/rows.jsonl."""
    rows = read_rows(out / ROWS) if (out / ROWS).exists() else []
    if not rows:
        raise InputError(f"{out} holds no rows of a bench; make some with `semcast bench --out {out}`")
    summary = summarise(rows) | distances(rows, read_features(out / FEATURES)) | segmented(rows) | times(rows)
    write_bytes(out / "summary.csv", as_csv(summary).encode())
    for name, kind in (("tables.md", "markdown"), ("tables.tex", "latex")):
        text = "\n\n".join(as_text(*table, kind) for table in tables(summary)) + "\n"
        write_bytes(out / name, text.encode())
    write_bytes(out / "report.html", as_html(rows, summary, out).encode())
    return out / "report.html"


# HTML

STYLE = """body{font:16px/1.5 system-ui,sans-serif;color:#222;max-width:1180px;margin:2em auto;padding:0 1em}
h1{font-size:1.9em;margin-bottom:.2em}h2{margin-top:2em;border-bottom:2px solid #ddd}h3{margin-bottom:.3em}
table{border-collapse:collapse;font-size:14px;margin:.5em 0 1.5em}\
th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #e5e5e5}
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #888}tr:hover td{background:#f6f6f0}
.sheet{display:flex;flex-wrap:wrap;gap:8px 6px}figure{margin:0;width:220px;font-size:13px}figure img{width:220px;display:block}
.note{color:#666;font-size:14px}
.plots{display:flex;flex-wrap:wrap;gap:1em}details{margin:1em 0}pre{font-size:13px;white-space:pre-wrap}"""


def as_html(rows: list[dict], summary: Summary, out: Path) -> str:
    text, colour = html.escape, colours({row["system"] for row in rows})
    parts = ["<h1>semcast bench</h1>", f"<p class=note>{text(overview(rows))}</p>"]
    for where in sorted({setting(row) for row in rows}):
        here = [row for row in rows if setting(row) == where]
        systems = sorted({row["system"] for row in here}, key=order)
        parts += [f"<h2>{text(where)}</h2>", uses_line(here), "<div class=plots>"]
        for metric in (*MEASURES, "lost"):
            series = {
                s: sorted((k[2], *v[:3]) for k, v in summary.items() if k[:2] == (where, s) and k[3] == metric)
                for s in systems
            }
            if any(mean for points in series.values() for _, mean, *_ in points):
                parts.append(plot({s: points for s, points in series.items() if points}, metric, colour))
        parts += ["</div>", legend_note(), time_plots(summary, where, systems, colour), sheet(here, systems, out)]
        for title, head, lines in tables({key: value for key, value in summary.items() if key[0] == where}):
            parts += [f"<h3>{text(title.removesuffix(where).rstrip('. '))}</h3>", table(head, lines)]
    parts += rate_plots(rows, summary, colour)
    parts += ["<h2>Systems</h2>", table(["system", "what it is", "version"], about(rows))]
    parts += [
        "<h2>Is the channel what it says?</h2>",
        table(["channel", "Es/N0 asked, dB", "measured, dB", "symbols"], measured(rows)),
    ]
    names = {metric: ALL[metric][0] for metric in ALL} | {"segments": SETS["miou"][0]}
    missing = {f"{names[m]}: {why}" for row in rows for m, why in row["missing"].items()}
    missing |= {
        f"{ALL[m][0]}: needs features of {n} pictures"
        for m, n in PICTURES_MIN.items()
        if m not in {key[3] for key in summary}
    }
    if missing:
        parts.append("<p class=note>Not measured. " + text("; ".join(sorted(missing))) + "</p>")
    if originals := {row["image_sha256"]: row["segments_original"] for row in rows if row.get("segments_original")}:
        parts.append(f"<p class=note>mIoU of the originals: {mean_iou(np.array([*originals.values()])):.3f}</p>")
    kept = "\n".join(sorted({json.dumps(row["versions"]) for row in rows}))
    parts.append(f"<details><summary>Versions</summary><pre>{text(kept)}</pre></details>")
    head = f'<meta charset="utf-8"><title>semcast bench</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def time_plots(summary: Summary, where: str, systems: list[str], colour: Mapping[str, str]) -> str:
    """Plots of quality against time, one per SNR, with a point for each system that has both."""
    parts, metric = [], "lpips" if any(key[3] == "lpips" for key in summary) else "psnr_db"
    for snr in sorted({key[2] for key in summary if key[0] == where}):
        series = {}
        for system in systems:
            cost = [summary[key][0] for name in TIMES if (key := (where, system, snr, name)) in summary]
            quality = summary.get((where, system, snr, metric))
            if len(cost) == len(TIMES) and quality:
                series[system] = [(max(1.0, sum(cost)), *quality[:3])]
        if len(series) > 1:
            parts.append(plot(series, metric, colour, f"time of sender and receiver at {snr:g} dB, ms", log=True))
    if not parts:
        return ""
    text = (
        "Time: one thread of processor time, medians. A worker's first call of a sender or receiver, which loads its "
        "networks, is made once more, and only the second counts. A codec's sender searches for the encoding that "
        "fills the bytes."
    )
    return f"<h3>Time against quality</h3><div class=plots>{''.join(parts)}</div><p class=note>{text}</p>"


def rate_plots(rows: list[dict], summary: Summary, colour: Mapping[str, str]) -> list[str]:
    """Plots of quality against rate, for settings that differ only in their channel uses."""
    rates = defaultdict(lambda: defaultdict(list))  # setting without the uses -> setting -> bandwidth ratio of each row
    for row in rows:
        rates[setting(row | {"uses_rule": ""})][setting(row)].append(row["uses"] / (3 * row["height"] * row["width"]))
    parts = []
    for common, settings in rates.items():
        if len(settings) < 2:
            continue
        parts.append(f"<h2>Rate against quality. {html.escape(common.rpartition(';')[0])}</h2><div class=plots>")
        mean = {where: float(np.mean(found)) for where, found in settings.items()}
        systems = sorted({key[1] for key in summary if key[0] in settings} - {*over(rows)}, key=order)
        for snr in sorted({key[2] for key in summary if key[0] in settings}):
            for metric in METRICS:
                found = {
                    s: [(mean[w], *summary[w, s, snr, metric][:3]) for w in settings if (w, s, snr, metric) in summary]
                    for s in systems
                }
                series = {system: sorted(points) for system, points in found.items() if len(points) > 1}
                across = f"channel uses over numbers of the picture, at {snr:g} dB"
                if series:
                    parts.append(plot(series, metric, colour, across, log=True, ratios=True))
        parts.append("</div>")
    return parts


def overview(rows: list[dict]) -> str:
    pictures, draws = len({row["image_sha256"] for row in rows}), len({row["draw"] for row in rows})
    systems = len({row["system"] for row in rows})
    several = lambda count, word: f"{count} {word}{'s' * (count > 1)}"
    counted = f"{several(systems, 'system')}, {several(pictures, 'picture')}, {several(draws, 'draw')}"
    return (
        f"{several(len(rows), 'transmission')}: {counted} of the channel. "
        "Every system gets the same channel uses (those as published take their own) at the same power; sender and "
        "receiver are separate processes that share only the symbols and the side information counted below. Lost "
        "pictures are shown as their mean colour "
        "and stay in the averages. Intervals: 95 %, bootstrap over pictures. PROTOCOL.md says the rest."
    )


def uses_line(rows: list[dict]) -> str:
    uses = sorted({row["uses"] for row in rows})
    ratios = [row["uses"] / (3 * row["height"] * row["width"]) for row in rows]
    span = f"{uses[0]}" if len(uses) == 1 else f"{uses[0]} to {uses[-1]}"
    own = {system: np.mean([r["payload_uses"] for r in rows if r["system"] == system]) for system in over(rows)}
    others = "".join(f" As published, {html.escape(system)} takes {mean:.0f}." for system, mean in own.items())
    return f"<p>{span} complex channel uses a picture, 1/{1 / max(ratios):.0f} of its numbers.{others}</p>"


def over(rows: list[dict]) -> list[str]:
    """Systems as published, which take more uses than the others get."""
    return sorted({row["system"] for row in rows if row["payload_uses"] > row["uses"]}, key=order)


def legend_note() -> str:
    return (
        "<p class=note>Solid: can be built. Dashed and dash-dotted: ideal codes that reach Shannon's capacity or the "
        "finite-length bound. Dotted: one fixed scheme.</p>"
    )


def table(head: list[str], lines: list[list[str]]) -> str:
    row = lambda cells, tag: "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"
    return f"<table><thead>{row(head, 'th')}</thead><tbody>{''.join(row(line, 'td') for line in lines)}</tbody></table>"


def about(rows: list[dict]) -> list[list[str]]:
    versions = {row["system"]: row["system_version"] for row in rows}
    return [
        [name, SYSTEMS[name].about if name in SYSTEMS else "", versions[name]] for name in sorted(versions, key=order)
    ]


def measured(rows: list[dict]) -> list[list[str]]:
    """The measured Es/N0 of each channel and SNR: signal and noise power are summed over rows, weighted by symbols."""
    groups = defaultdict(list)
    for row in rows:
        if row["es_n0_db"] is not None:
            groups[row["channel"], row["snr_db"]].append((row["payload_uses"], row["power"], row["es_n0_db"]))
    lines = []
    for (channel, snr_db), found in sorted(groups.items()):
        signal = sum(k * power for k, power, _ in found)
        noise = sum(k * power / 10 ** (db / 10) for k, power, db in found)
        lines.append(
            [channel, f"{snr_db:g}", f"{10 * math.log10(signal / noise):.3f}", str(sum(k for k, _, _ in found))]
        )
    return lines


def sheet(rows: list[dict], systems: list[str], out: Path) -> str:
    """The pictures that were kept, as each system received them at equal uses, after the original."""
    parts = []
    for sha256 in dict.fromkeys(row["image_sha256"] for row in rows):
        here = {
            (row["snr_db"], row["system"]): row for row in rows if row["image_sha256"] == sha256 and row["draw"] == 0
        }
        kept = {key: picture_path(out, row) for key, row in here.items()}
        kept = {key: path for key, path in kept.items() if path.exists()}
        for snr in sorted({snr for snr, _ in kept}):
            name = html.escape(next(row["image"] for row in here.values()))
            sent = original_path(out, sha256)  # missing in folders of earlier versions
            figures = [figure(sent, "original", "the original")] if sent.exists() else []
            for system in systems:
                if (snr, system) in kept:
                    lost = ", lost" if here[snr, system]["lost"] else ""
                    figures.append(figure(kept[snr, system], system + lost, f"{system} at {snr:g} dB{lost}"))
            parts.append(f"<h3>{name}, {snr:g} dB</h3><div class=sheet>{''.join(figures)}</div>")
    return "".join(parts)


def figure(path: Path, caption: str, about: str) -> str:
    """A picture file above its caption; `about` describes it for those who cannot see it."""
    image = f'<img alt="{html.escape(about)}" src="{data_uri(path)}">'
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def data_uri(path: Path) -> str:
    with Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


# Plots


def colours(systems: Iterable[str]) -> dict[str, str]:
    """A colour for each system of a report, the same in all its plots: a hue for a family, paler for each member."""
    families = defaultdict(list)
    for name in sorted(set(systems), key=order):
        families[family(name), name.partition("@")[2]].append(name)
    found = {}
    for i, members in enumerate(families.values()):
        hue = COLOURS[i % len(COLOURS)]
        base = mixed(hue, 0, 0.4 if i >= len(COLOURS) else 0)
        found |= {name: mixed(base, 255, 0.5 * j / len(members)) for j, name in enumerate(members)}
    return found


def mixed(colour: str, level: int, share: float) -> str:
    """ "#rrggbb" with a share of a grey of this level."""
    return "#" + "".join(f"{round((1 - share) * int(colour[i : i + 2], 16) + share * level):02x}" for i in (1, 3, 5))


def plot(
    series: dict[str, list[tuple[float, float, float, float]]],
    metric: str,
    colour: Mapping[str, str],
    across: str = "Es/N0, dB",
    log=False,
    ratios=False,
) -> str:
    """Draw an SVG with dashes by the kind of link.

    Args:
        series: {system: [(x, mean, low, high)]}.
        colour: of each system, see `colours`.
        across: what x is.
        log: whether the x axis is logarithmic.
        ratios: whether it has ticks at the values, as 1/n.
    """
    label, unit, digits, more = ALL[metric]
    width, height, left, top, right, bottom = 560, 380, 58, 30, 150, 44
    xs = [snr for points in series.values() for snr, *_ in points]
    ys = [y for points in series.values() for _, *values in points for y in values]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    scale = math.log10 if log else float
    ticks = {
        x: f"1/{1 / x:.0f}" if ratios else f"{x:g}"
        for x in (decades(x0, x1) if log and not ratios else sorted(set(xs)))
    }
    x0, x1 = scale(min(x0, *ticks)), scale(max(x1, *ticks))
    x0, x1 = (x0, x1) if x1 > x0 else (x0 - 1, x1 + 1)
    step = nice(max(y1 - y0, 10.0**-digits) / 5)
    y0, y1 = math.floor(y0 / step) * step, math.ceil(y1 / step - 1e-9) * step
    y1 = y1 if y1 > y0 else y0 + step
    px = lambda x: left + (scale(x) - x0) / (x1 - x0) * (width - left - right)
    py = lambda y: height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom)
    title = f"{label}{f', {unit}' if unit else ''} ({'more' if more else 'less'} is better)"
    shape = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
    svg = [f'<svg {shape} font-family="sans-serif" font-size="12" role="img" aria-label="{title}">']
    svg.append(f'<text x="{left}" y="18" font-size="14" font-weight="bold">{title}</text>')
    for i in range(round((y1 - y0) / step) + 1):
        y = y0 + i * step
        svg.append(f'<line x1="{left}" x2="{width - right}" y1="{py(y):.1f}" y2="{py(y):.1f}" stroke="#e4e4e4"/>')
        text = f"{y:.{max(0, -math.floor(math.log10(step)))}f}"
        svg.append(f'<text x="{left - 6}" y="{py(y) + 4:.1f}" text-anchor="end">{text}</text>')
    for x, text in ticks.items():
        svg.append(f'<text x="{px(x):.1f}" y="{height - bottom + 18}" text-anchor="middle">{text}</text>')
    svg.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle">{html.escape(across)}</text>'
    )
    for i, (name, points) in enumerate(series.items()):
        dash = DASHES.get(name.split("@")[0].rpartition("-")[2], "none")
        thick = 3 if family(name) == "semcast" else 1.7
        line = f'stroke="{colour[name]}" stroke-width="{thick}" fill="none" stroke-dasharray="{dash}"'
        svg.append(f'<polyline {line} points="{" ".join(f"{px(x):.1f},{py(mean):.1f}" for x, mean, *_ in points)}"/>')
        for x, mean, low, high in points:
            tip = f"{html.escape(name)}, {x:.3g}: {mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
            ends = f'x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{py(low):.1f}" y2="{py(high):.1f}"'
            svg.append(f'<line {ends} stroke="{colour[name]}" opacity="0.5"/>')
            svg.append(
                f'<circle cx="{px(x):.1f}" cy="{py(mean):.1f}" r="3" fill="{colour[name]}"><title>{tip}</title></circle>'
            )
        y = top + 8 + i * min(16, (height - top - bottom) / len(series))
        svg.append(f'<line {line} x1="{width - right + 10}" x2="{width - right + 36}" y1="{y:.1f}" y2="{y:.1f}"/>')
        svg.append(f'<text x="{width - right + 42}" y="{y + 4:.1f}" font-size="11">{html.escape(name)}</text>')
    return "".join(svg) + "</svg>"


def nice(step: float) -> float:
    """The next number not below `step` that is 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= step * (1 - 1e-9))


def decades(low: float, high: float) -> list[float]:
    """Powers of ten from one not above `low` to one not below `high`; at least two."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**n for n in range(first, max(last, first + 1) + 1)]
