"""Tables of README.md, MODEL_CARD.md, docs/results.md and docs/peers.md, computed from benchmarks/results/*.json.

python benchmarks/tables.py            print them
python benchmarks/tables.py --write    put them between the markers <!-- table NAME --> and <!-- end NAME -->

What is in them: *_tables.py beside this file.
"""

import argparse
import re
from pathlib import Path

import bench_tables
import ladder_tables
import peer_tables
import radio_tables
import receiver_tables
import results
from ablation_tables import ablation, ablation_fewstep
from bench_tables import bench_plot
from cost_tables import packet_gain, phy_speed, sizes, speed
from crossing_tables import PLOT, crossing, crossing_plot, outage
from quality_tables import knowledge, predictability, quality, robust, steps
from scripts import summary

ROOT = Path(__file__).parent.parent
PLOTS = {metric: ROOT / "docs" / f"bench_{metric}.svg" for metric in ("lpips", "dists", "psnr_db")}
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "semcast" / "weights" / "small" / "MODEL_CARD.md",
    ROOT / "docs" / "results.md",
    ROOT / "docs" / "peers.md",
)


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("--write", action="store_true")
    args = p.parse_args()
    for name, table in tables().items():
        if not args.write:
            print(f"## {name}\n\n{table}\n")
    if args.write:
        for path in DOCUMENTS:
            path.write_text(filled(path.read_text()))
        for metric, path in PLOTS.items():
            if (results.RESULTS / "grid.json").exists():
                path.write_text(bench_plot(metric))
        if (results.RESULTS / "ladder.json").exists():
            for snr_db in ladder_tables.SNRS_DB:
                path = ROOT / "docs" / f"ladder_{snr_db:g}db.svg"
                path.write_text(ladder_tables.ladder_plot("lpips", snr_db))
        if (results.RESULTS / "crossing.json").exists():
            crossing_plot(PLOT)


def tables() -> dict[str, str]:
    makers = [
        quality,
        predictability,
        speed,
        robust,
        knowledge,
        crossing,
        outage,
        packet_gain,
        phy_speed,
        ablation,
        ablation_fewstep,
        steps,
    ]
    makers += [sizes, *bench_tables.TABLES, *ladder_tables.TABLES, *radio_tables.TABLES, *receiver_tables.TABLES]
    makers += peer_tables.TABLES
    return {make.__name__: made(make) for make in makers}


def made(make) -> str:
    try:
        return make()
    except FileNotFoundError as missing:
        return f"Not measured yet: `{Path(missing.filename).name}` is missing."


def filled(text: str) -> str:
    """The document with every marked table made anew."""
    for name, table in tables().items():
        pattern = rf"(<!-- table {name} -->\n).*?(<!-- end {name} -->)"
        text = re.sub(pattern, lambda m, table=table: m[1] + table + "\n" + m[2], text, flags=re.S)
    return text


if __name__ == "__main__":
    main()
