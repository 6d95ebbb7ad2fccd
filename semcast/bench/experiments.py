"""The experiments behind the published tables: runs of the bench, as data.

`benchmarks/measure.py` measures them and keeps the rows in benchmarks/results/NAME.json, from which
`benchmarks/tables.py` makes tables. A system "semcast@NAME" is semcast with another model, whose folder is given by
`measure.py --model NAME=DIR`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

GRID_DB = (-5.0, 0.0, 1.0, 5.0, 10.0, 15.0, 20.0)
NO_NOISE_DB = 60.0  # stands for a channel without noise
FIXED_CLIFF_DB = (6.0, 7.0, 8.0, 8.5, 9.0, 9.5)  # around the SNR below which the scheme for 10 dB fails
CODECS = ("jpeg2000", "hevc", "vvc", "avif")
STREETS = ("semcast", "semcast-digital", "downscale", "deepjscc", "jpeg2000-ldpc", "hevc-ldpc", "vvc-ldpc")
PEERS_REPAIRED = ("img2img", "gesco", "gesco-labels", "diffsc", "casc")
PEERS_PUBLISHED = ("img2img-published", "diffsc-published", "casc-published")
PAINTERS = ("gesco", "gesco-labels")  # the same map gives the same picture
SLOW_PEER = "gesco-published"  # 1000 steps: minutes a picture


@dataclass(frozen=True, kw_only=True)
class Run:
    """Systems measured on the same pictures, channel, SNRs and draws."""

    systems: tuple[str, ...]
    snrs: tuple[float, ...]
    draws: int = 1
    headline: tuple[float, ...] = ()  # SNRs at which LPIPS-VGG, DISTS and the classifier run too
    channel: str = "awgn"
    options: Mapping[str, object] = field(default_factory=dict)
    uses: str = "same"
    copies: int = 1
    snr_error_db: float = 0.0
    limit: int | None = None  # fewer pictures than the experiment has, evenly spread


@dataclass(frozen=True, kw_only=True)
class Experiment:
    about: str
    runs: tuple[Run, ...]
    pictures: str = "kodak"  # the set: "kodak", "streets", or "photo", the bundled one
    size: int | None = 512  # side of the centre crop; None keeps whole pictures
    limit: int | None = None  # at most this many pictures, evenly spread
    names: tuple[str, ...] = ()  # only these pictures


LADDER_USES = ("1152", "4096", "8192", "16384", "32768")  # for 512x512 pixels: 1/683 to 1/24
PREFIX_USES = (*(144 * n for n in (1, 2, 4, 6, 8)), 3200, 5248, 7296, 9344, 17536, 25728, 42112)  # after 12 of 24 rungs
LADDER_RIVALS = ("linear", "avif-ldpc", *(f"{codec}-capacity" for codec in CODECS))
EVERY_CODEC = tuple(f"{codec}-{link}" for codec in CODECS for link in ("ldpc", "fixed", "capacity", "finite"))
TDL_C, ERASED = {"estimation": "ls"}, {"rate": 0.2}

EXPERIMENTS = {
    "grid": Experiment(
        about="every system at equal channel uses over the whole SNR grid",
        runs=(
            Run(systems=("semcast", "downscale"), snrs=GRID_DB, draws=3, headline=(1.0, 5.0, 10.0, 20.0)),
            Run(systems=("deepjscc", *EVERY_CODEC), snrs=GRID_DB, draws=3, headline=(1.0, 5.0, 10.0)),
            Run(systems=("semcast-digital",), snrs=(1.0, 5.0, 10.0), headline=(1.0, 5.0, 10.0)),
        ),
    ),
    "steps": Experiment(
        about="the same weights in more diffusion steps",
        runs=(
            Run(
                systems=("semcast-1step", "semcast-2steps", "semcast-4steps", "semcast-10steps"),
                snrs=(10.0,),
                headline=(10.0,),
            ),
        ),
        limit=12,
    ),
    "predictability": Experiment(
        about="25 transmissions of one photo",
        runs=(Run(systems=("semcast",), snrs=(1.0, 10.0, 20.0), draws=25),),
        pictures="photo",
        size=None,
    ),
    "robust": Experiment(
        about="one model on all channels, told more or less about the noise",
        runs=(
            Run(systems=("semcast",), snrs=(1.0, 4.0, 10.0)),
            Run(systems=("semcast",), snrs=(1.0,), copies=2),
            Run(systems=("semcast",), snrs=(10.0,), snr_error_db=6.0),
            Run(systems=("semcast",), snrs=(10.0,), snr_error_db=-6.0),
            Run(systems=("semcast",), snrs=(10.0,), channel="rayleigh"),
            *(
                Run(
                    systems=("semcast", "semcast-mean-noise", "semcast-one-noise"),
                    snrs=(10.0,),
                    channel=channel,
                    options=options,
                )
                for channel, options in (("tdl-c", TDL_C), ("erasure", ERASED))
            ),
        ),
    ),
    "blind": Experiment(
        about="a receiver that is never told the noise, and was trained so: runs/blind.sh",
        runs=tuple(
            Run(systems=("semcast@blind",), snrs=(10.0,), draws=2, channel=channel, options=options)
            for channel, options in (("awgn", {}), ("tdl-c", TDL_C), ("erasure", ERASED))
        ),
    ),
    "crossing": Experiment(
        about="analog against digital, and what believing in a wrong SNR costs each",
        runs=(
            Run(systems=("semcast", "semcast-digital", "semcast-digital-fixed"), snrs=GRID_DB),
            Run(systems=("semcast-digital-fixed",), snrs=FIXED_CLIFF_DB),
            Run(systems=("mean-colour",), snrs=(10.0,)),
            *(Run(systems=("semcast", "semcast-digital"), snrs=GRID_DB, snr_error_db=error) for error in (-6.0, 6.0)),
            *(
                Run(systems=("semcast", "semcast-digital"), snrs=(10.0,), snr_error_db=error)
                for error in (-4.0, -2.0, -1.0, 1.0, 2.0, 4.0)
            ),
        ),
        limit=6,
    ),
    "factor": Experiment(
        about="`small` with larger and smaller Z",
        runs=tuple(
            Run(systems=("semcast",), snrs=(1.0, 10.0, 20.0), headline=(1.0, 10.0, 20.0), uses=f"1/{ratio}")
            for ratio in (384, 683, 1536)
        ),
        limit=6,
    ),
    "rate": Experiment(
        about="more channel uses: the ratios that DeepJSCC has networks for",
        runs=tuple(
            Run(
                systems=("semcast", "deepjscc", "downscale", "jpeg2000-ldpc", "hevc-ldpc", "avif-ldpc"),
                snrs=(1.0, 10.0),
                headline=(10.0,),
                uses=f"1/{ratio}",
            )
            for ratio in (683, 96, 12)
        ),
        names=("kodim01.png", "kodim05.png", "kodim09.png"),
    ),
    "ladder": Experiment(
        about="rate against quality: one stream of rungs beside codecs and linear analog",
        runs=tuple(
            Run(
                systems=("semcast-ladder", "semcast-mixed", *LADDER_RIVALS),
                snrs=(1.0, 10.0),
                headline=(1.0, 10.0),
                uses=uses,
            )
            for uses in LADDER_USES
        ),
        limit=4,
    ),
    "prefixes": Experiment(
        about="the stream cut off after any rung, and half of it lost at random",
        runs=(
            *(Run(systems=("semcast-ladder",), snrs=(1.0, 5.0, 10.0, 20.0), uses=f"{uses}") for uses in PREFIX_USES),
            Run(systems=("semcast-ladder",), snrs=(10.0,), uses=f"{PREFIX_USES[-1] // 2}"),
            Run(
                systems=("semcast-ladder",),
                snrs=(10.0,),
                uses=f"{PREFIX_USES[-1]}",
                channel="erasure",
                options={"rate": 0.5},
            ),
        ),
        limit=4,
    ),
    "camvid": Experiment(
        about="CamVid's test frames, whole, with the mIoU of a segmenter",
        runs=(
            Run(
                systems=(*STREETS, "avif-capacity", "vvc-capacity"),
                snrs=(1.0, 5.0, 10.0),
                headline=(1.0, 5.0, 10.0),
            ),
        ),
        pictures="streets",
        size=None,
        limit=16,
    ),
    "peers": Experiment(
        about="the four learned rivals, repaired and as published, on street scenes: runs/peers.sh",
        runs=(
            Run(
                systems=("semcast", *PEERS_REPAIRED, *PEERS_PUBLISHED),
                snrs=(1.0, 5.0, 10.0),
                headline=(1.0, 5.0, 10.0),
            ),
            Run(systems=(SLOW_PEER,), snrs=(10.0,), headline=(10.0,), limit=2),
        ),
        pictures="streets",
        size=None,
        limit=10,
    ),
    "peers_predictability": Experiment(
        about="25 transmissions of one frame by each of them, 5 where only a lost map makes a difference",
        runs=(
            Run(
                systems=("semcast", *(peer for peer in PEERS_REPAIRED if peer not in PAINTERS), *PEERS_PUBLISHED),
                snrs=(1.0, 10.0, 20.0),
                draws=25,
            ),
            Run(systems=PAINTERS, snrs=(1.0, 10.0, 20.0), draws=5),
        ),
        pictures="streets",
        size=None,
        limit=1,
    ),
    "jpegxl": Experiment(
        about="a rival that is no part of semcast, on the photos of `ladder`: examples/rivals, in PYTHONPATH",
        runs=tuple(
            Run(systems=("jpegxl:JPEGXL",), snrs=(1.0, 10.0), headline=(1.0, 10.0), uses=uses)
            for uses in ("4096", "8192", "32768")
        ),
        limit=4,
    ),
    "street": Experiment(
        about="`small` fine-tuned on streets, on streets: runs/small_street.sh",
        runs=(
            Run(
                systems=("semcast@start", "semcast@street", "semcast@mixed"),
                snrs=(1.0, 10.0, 20.0),
                headline=(1.0, 10.0, 20.0),
            ),
        ),
        pictures="streets",
        size=None,
        limit=12,
    ),
    "street_photos": Experiment(
        about="the same on photos: runs/small_street.sh",
        runs=(
            Run(
                systems=("semcast@start", "semcast@street", "semcast@mixed"),
                snrs=(1.0, 10.0, 20.0),
                headline=(1.0, 10.0, 20.0),
            ),
        ),
        limit=12,
    ),
    "ablation": Experiment(
        about="what noise in training is worth: runs/ablation.sh",
        runs=(
            Run(
                systems=("semcast@noisy", "semcast@clean", "semcast@tuned"), snrs=(1.0, 5.0, 20.0, NO_NOISE_DB), draws=2
            ),
        ),
        limit=12,
    ),
    "ablation_fewstep": Experiment(
        about="the same with a few-step phase in both arms: runs/ablation_fewstep.sh",
        runs=(Run(systems=("semcast@noisy", "semcast@clean"), snrs=(1.0, 5.0, 10.0, 20.0, NO_NOISE_DB)),),
    ),
}
# These are measured again when `small` changes.
OF_THE_MODEL = (
    "grid",
    "steps",
    "predictability",
    "robust",
    "crossing",
    "factor",
    "rate",
    "ladder",
    "prefixes",
    "camvid",
    "peers",
    "peers_predictability",
)
