"""How much of a picture to send: the rungs that --rungs, --uses, --seconds or --quality ask for."""

from typing import TYPE_CHECKING

from ..errors import InputError
from ..header import BASE, PACKET_UNIT, Header, round_factor
from .common import notice

if TYPE_CHECKING:
    import numpy as np

    from ..link import Link

TRIAL_SEED = 0  # of the noise that --quality tries


def is_asked(args) -> bool:
    return any(getattr(args, name, None) is not None for name in ("rungs", "uses", "seconds", "quality"))


def check_rate(args) -> None:
    """What can be refused before any work."""
    if is_asked(args) and args.mode == "digital":
        raise InputError("a packet always holds the whole base; --bytes or --snr sets its size")
    if args.mode == "mixed" and args.uses is None:
        raise InputError("--mode mixed needs --uses N: what the base leaves of N channel uses is the packet's")


def choose_rungs(args, link: "Link", image: "np.ndarray", snr_db: float | None) -> tuple[int, int]:
    """The first and the last rung to send of a picture [1, 3, H, W].

    Raises:
        InputError: the channel uses are too few, or no number of rungs reaches the quality.
    """
    from ..modulation.ladder import rungs_within
    from ..transmitter import top_rung

    top = top_rung(link.engine.config)
    if args.mode == "mixed":
        return BASE
    if args.rungs:
        return args.rungs
    factor = round_factor(args.factor or link.engine.config.factor)
    header = Header(link.engine.encoder_id, image.shape[-2], image.shape[-1], factor, 1.0)
    if uses := asked_uses(args, header):
        return rungs_within(uses, header, top=top)
    if args.quality is not None:
        assert snr_db is not None
        return 1, least_rungs(args, link, image, snr_db, top)
    return BASE


def choose_packet(args, link: "Link", image: "np.ndarray") -> int:
    """The channel uses of the packet that follows the base of a picture [1, 3, H, W] in mode mixed; 0 in other modes."""
    from ..transmitter import packet_within

    if args.mode != "mixed":
        return 0
    factor = round_factor(args.factor or link.engine.config.factor)
    base = Header(link.engine.encoder_id, image.shape[-2], image.shape[-1], factor, 1.0)
    packet = packet_within(args.uses, base)
    if not packet:
        least = f"the base alone takes {base.channel_uses}; a packet takes {PACKET_UNIT} more at the least"
        raise InputError(f"--uses {args.uses}: {least}")
    return packet


def tell_packet(asked: int, header: Header, snr_db: float) -> None:
    """Say so if a packet was asked for and none was sent."""
    if asked and not header.packet_uses:
        notice("no picture fits into %d channel uses at %g dB; only the base is sent", asked, snr_db)


def asked_uses(args, header: Header) -> int | None:
    """The channel uses that --uses or --seconds ask for; None without them."""
    return uses_within(args, header) if getattr(args, "seconds", None) is not None else args.uses


def uses_within(args, header: Header) -> int:
    """The channel uses of a signal that lasts as long as --seconds says."""
    from ..modem.layout import duration_s, symbols_within
    from ..modem.transmit import SYMBOLS_MAX
    from .radio import profile_of

    profile, least = profile_of(args), header.rung_uses[0]
    uses = min(symbols_within(profile, args.seconds), SYMBOLS_MAX)
    if uses < least:
        needed = duration_s(profile, least)
        raise InputError(
            f"--seconds {args.seconds:g} is too short: {needed:.2f} s, profile {profile.name}, hold a rung"
        )
    return uses


def least_rungs(args, link: "Link", image: "np.ndarray", snr_db: float, top: int, low: int = 0) -> int:
    """The last of the rungs that --quality needs, by bisection, for quality rises with every rung; `low` are too few."""
    high, found = top + 1, 0.0  # `high` is enough, or one above the last rung
    while high - low > 1:
        last = (low + high) // 2
        reached = quality_at(args, link, image, snr_db, last)
        if reached >= args.quality:
            high, found = last, reached
        elif last == top:
            raise InputError(
                f"all {top} rungs reach {reached:.3f} at {snr_db:g} dB, less than --quality {args.quality:g}"
            )
        else:
            low = last
    notice("rungs 1-%d reach %.3f at %g dB", high, found, snr_db)
    return high


def quality_at(args, link: "Link", image: "np.ndarray", snr_db: float, last: int) -> float:
    """MS-SSIM of a picture from rungs 1 to `last`, or SSIM where the picture is too small for it."""
    from ..metrics.measure import measure

    values = measure(image, link(image, snr_db, seed=TRIAL_SEED, factor=args.factor, rungs=(1, last)).image, {})
    reached = values["ms_ssim"] if values["ms_ssim"] is not None else values["ssim"]
    assert reached is not None
    return reached
