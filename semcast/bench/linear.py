"""The system `linear`: the picture's strongest DCT coefficients as analog symbols, a linear code of SoftCast's kind.

Sender and receiver are linear in the picture: a DCT of the whole picture, one amplitude a coefficient, two coefficients
a complex symbol, the MMSE estimate, the inverse DCT. What the receiver does not get is zero. Which coefficients are sent
and at what power follows from the picture's spectrum, a few variances that travel as side information. The power is
optimal for coefficients of these variances on AWGN of the SNR that the sender is told. Coefficients too weak to be
worth power are left out; those sent go round until all symbols are used, which is worth the same on AWGN and makes
diversity of fading.

The DCT is that of the whole picture, because for photos it beats blocks: by theory, with the true variances of every
band, on six Kodak photos of 512x512 pixels at 1, 10 and 20 dB, the DCT of 16x16 blocks and the KLT of 16x16 blocks of
other photos both lose 0.6 to 3.4 dB to it, most at the fewest symbols.

Sources: Jakubczak & Katabi 2011, "A cross-layer design for scalable mobile video" (SoftCast); Lee & Petersen 1976,
"Optimal linear coding for vector channels" (the power). Unlike SoftCast, this chooses single coefficients instead of
chunks, from variances interpolated between those sent, and has no Hadamard transform against the loss of packets.

Arrays: coefficients [3, rows, columns] are of colours turned by `COLOURS`, lowest frequencies first.
"""

import math

import numpy as np

from ..channels.base import Received
from ..images import to_pixels
from .base import Side, float16, float16_bits

FORMAT = 1  # to be counted up when the code changes what is sent or received; `version` has the constants below
COLOURS = ((1, 1, 1), (1, 0, -1), (1, -2, 1))  # brightness and two differences: nearly the KLT of photos' colours
BANDS = (12, 6, 6)  # variances sent along an axis, for each of the three; 0.1 dB better than (8, 4, 4), for 480 bits
STEP = 1.0  # of log2 of a variance; 0.02 dB better than 1.5; a half is worth no more, and takes more bits
DIGIT_BITS = 4  # of a variance
REACH = 4.0  # how far frequencies are looked at, in sides of the square that holds as many as there are numbers to send
LEAST = 16  # frequencies looked at along an axis
SNR_UNIT, SNR_LEAST = 4, -20.0  # the SNR that the sender is told travels in 8 bits: in 1/4 dB, from -20 dB


def version() -> str:
    constants = COLOURS, BANDS, STEP, DIGIT_BITS, REACH, LEAST, SNR_UNIT, SNR_LEAST
    return f"linear {FORMAT} {constants}"


def send(pixels: np.ndarray, uses: int, snr_db: float) -> tuple[np.ndarray, Side]:
    """uint8 [H, W, 3] -> (x [1, uses] with mean |x|^2 = 1, side information)."""
    height, width = pixels.shape[:2]
    colour = np.rint(pixels.reshape(-1, 3).mean(axis=0)).astype(int)
    rows, columns = reach(height, width, uses)
    image = np.moveaxis(pixels - colour, -1, 0).astype(np.float32) / np.float32(255)  # exactly 0 for a single colour
    turned = np.tensordot(turn(), image, 1)
    coefficients = dct(height)[:rows] @ turned @ dct(width)[:columns].T
    digits = describe(coefficients, height, width)
    snr = min(max(round((snr_db - SNR_LEAST) * SNR_UNIT), 0), 255)
    variance = variances(digits, height, width, rows, columns)
    chosen, deviation, amplitude, which = plan(variance, uses, snr)
    numbers = (amplitude * coefficients.ravel()[chosen] / deviation)[which]  # float64 [2 uses]
    scale = math.sqrt(np.square(numbers).sum() / uses)  # the level of the spectrum, which the digits do not tell
    x = numbers.view(np.complex128) / scale if scale else np.ones(uses)  # a picture of one colour
    side = {
        "height": (height, 16),
        "width": (width, 16),
        **{name: (value, 8) for name, value in zip(("red", "green", "blue"), colour.tolist())},
        "snr": (snr, 8),
        "scale": (float16_bits(scale), 16),
        "spectrum": (pack(digits), DIGIT_BITS * len(digits)),
    }
    return x[None].astype(np.complex64), side


def receive(received: Received, side: Side) -> np.ndarray:
    """What arrived, and the side information -> uint8 [H, W, 3]."""
    height, width, *colour = (side[name][0] for name in ("height", "width", "red", "green", "blue"))
    uses = received.y.shape[1]
    rows, columns = reach(height, width, uses)
    variance = variances(unpack(*side["spectrum"]), height, width, rows, columns)
    chosen, deviation, amplitude, which = plan(variance, uses, side["snr"][0])
    coefficients = np.zeros(3 * rows * columns, np.float32)
    scale = float16(side["scale"][0])
    coefficients[chosen] = scale * deviation * estimate(received, amplitude, which)
    turned = dct(height)[:rows].T @ coefficients.reshape(3, rows, columns) @ dct(width)[:columns]
    image = np.tensordot(turn().T, turned, 1) + np.reshape(colour, (3, 1, 1)) / 255
    return to_pixels(image[None])


def estimate(received: Received, amplitude: np.ndarray, which: np.ndarray) -> np.ndarray:
    """MMSE estimate [n] of numbers of unit variance; number which[j] was sent as part j [2 k], times amplitude[which[j]].

    Parts are real, imaginary, real, ...; each has half the noise of its symbol. A lost symbol, of infinite noise, says
    nothing.
    """
    y, h, noise_var = (np.broadcast_to(part, received.y.shape)[0] for part in received)
    certainty = 2 / np.maximum(noise_var.astype(np.float64), 1e-12)  # [k]
    matched = (np.where(certainty > 0, h.conj() * y, 0) * certainty).astype(np.complex128).view(np.float64)  # [2 k]
    certainty = np.repeat(np.abs(h) ** 2 * certainty, 2)
    heard = np.bincount(which, amplitude[which] * matched)
    return heard / (1 + np.bincount(which, amplitude[which] ** 2 * certainty))


def plan(variance: np.ndarray, uses: int, snr: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What is sent where, which sender and receiver both work out.

    Args:
        variance: of the coefficients, [3, rows, columns], up to a common factor.
        snr: as in the side information.
    Returns:
        chosen [n], indices of the coefficients sent, strongest first; their standard deviations [n]; the amplitudes [n]
        of coefficients of unit variance; and which [2 uses], the one that each part of a symbol carries.
    """
    flat = variance.ravel()
    chosen = np.argsort(-flat, kind="stable")[: 2 * uses]
    deviation = np.sqrt(flat[chosen])
    power = allot(deviation, uses, 0.5 * 10 ** -((snr / SNR_UNIT + SNR_LEAST) / 10))
    n = len(power)
    which = np.arange(2 * uses) % n
    return chosen[:n], deviation[:n], np.sqrt(power / np.bincount(which)), which


def allot(deviation: np.ndarray, total: float, noise_var: float) -> np.ndarray:
    """Divide a power among numbers so that the sum of the squared errors of their MMSE estimates is least.

    The error of a number of variance v, sent with power p, is v noise_var / (p + noise_var). The least sum has
    p = max(g sqrt(v) - noise_var, 0) (Lee & Petersen 1976).

    Args:
        deviation: standard deviations sqrt(v), falling, [N].
        noise_var: of each number.
    Returns:
        p [n], sum `total`, of the first n <= N; the others get none.
    """
    level = (total + noise_var * np.arange(1, len(deviation) + 1)) / np.cumsum(
        deviation
    )  # g, if the first 1, 2 ... share
    n = np.flatnonzero(level * deviation > noise_var)[-1] + 1
    return level[n - 1] * deviation[:n] - noise_var


# The spectrum: variances of bands, relative to a law of photos; between the middles of bands, it is interpolated.


def describe(coefficients: np.ndarray, height: int, width: int) -> list[int]:
    """[3, rows, columns] -> digits of DIGIT_BITS: log2 of the bands' variances, less the law's and the median's."""
    expected, parts = law(height, width, *coefficients.shape[1:]), []
    for plane, bands in zip(coefficients, BANDS):
        rows, columns = (averages(edges(count, bands)) for count in plane.shape)
        excess = np.log2(rows @ np.square(plane) @ columns.T + 1e-12) - rows @ expected @ columns.T
        parts.append(excess.ravel() / STEP)
    middle = 1 << DIGIT_BITS - 1
    digits = np.rint(np.concatenate(parts) - np.median(parts[0])).astype(int) + middle
    return digits.clip(0, 2 * middle - 1).tolist()


def variances(digits: list[int], height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """What `describe` gave -> variances [3, rows, columns], up to a common factor."""
    expected, found, start = law(height, width, rows, columns), [], 0
    for bands in BANDS:
        down, across = hats(edges(rows, bands)), hats(edges(columns, bands))
        count = down.shape[1] * across.shape[1]
        excess = STEP * np.reshape(digits[start : start + count], (down.shape[1], across.shape[1]))
        found.append(expected + down @ excess @ across.T)
        start += count
    return np.exp2(np.stack(found))


def law(height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """log2 of the variances [rows, columns] that fall with the square of the frequency, as in photos."""
    down, across = (side * np.arange(count) for side, count in ((1 / height, rows), (1 / width, columns)))
    return -2 * np.log2(1 + math.sqrt(height * width) * np.hypot(down[:, None], across))


def reach(height: int, width: int, uses: int) -> tuple[int, int]:
    """How many frequencies are looked at along each axis; higher ones are not sent."""
    share = REACH * math.sqrt(2 * uses / (height * width))
    return min(height, max(LEAST, math.ceil(share * height))), min(width, max(LEAST, math.ceil(share * width)))


def edges(count: int, bands: int) -> np.ndarray:
    """The first frequency of each band, and `count`: the mean by itself, then bands of equal ratios, fewer if short."""
    return np.unique(np.rint(np.append(0, np.geomspace(1, count, bands))).astype(int))


def averages(edges: np.ndarray) -> np.ndarray:
    """Weights [bands, count] that take the mean over each band."""
    frequency = np.arange(edges[-1])
    inside = (frequency >= edges[:-1, None]) & (frequency < edges[1:, None])
    return inside / np.diff(edges)[:, None]


def hats(edges: np.ndarray) -> np.ndarray:
    """Weights [count, bands] of linear interpolation over log(1 + frequency) between the middles of bands."""
    at = np.log2(1 + np.arange(edges[-1]))
    middles = averages(edges) @ at
    return np.stack([np.interp(at, middles, one) for one in np.eye(len(middles))], axis=1)


def pack(digits: list[int]) -> int:
    return sum(digit << DIGIT_BITS * i for i, digit in enumerate(digits))


def unpack(value: int, bits: int) -> list[int]:
    return [value >> at & (1 << DIGIT_BITS) - 1 for at in range(0, bits, DIGIT_BITS)]


# Orthonormal transforms


def turn() -> np.ndarray:
    """Red, green, blue -> the colours that are sent, [3, 3]."""
    colours = np.array(COLOURS, float)
    return (colours / np.sqrt(np.square(colours).sum(axis=1, keepdims=True))).astype(np.float32)


def dct(count: int) -> np.ndarray:
    """DCT-II [count, count], one frequency a row; float32 halves the time."""
    at = np.arange(count)
    waves = math.sqrt(2 / count) * np.cos(math.pi / count * np.outer(at, at + 0.5))
    waves[0] = math.sqrt(1 / count)
    return waves.astype(np.float32)
