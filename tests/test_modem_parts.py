"""The parts of the modem: the header's code, the layout, the samples, the estimate of the channel, by their laws."""

import heapq

import numpy as np
import pytest

from semcast.errors import InputError
from semcast.modem import code
from semcast.modem.baseband import baseband
from semcast.modem.estimate import estimate
from semcast.modem.layout import Layout, block_ends, lay_out, lay_out_between, pilot_signs, places
from semcast.modem.profiles import PREAMBLE, PROFILES, RATE_HZ, SYMBOL
from semcast.modem.reception import in_order, surplus
from semcast.modem.transmit import PAYLOAD_GAIN, SELF_NOISE_DB, band_pass, carriers, clip, envelope, modulate
from semcast.randomness import seeded


def gaussian(generator, *shape):
    return generator.standard_normal((*shape, 2)) @ [1, 1j] / np.sqrt(2)


# The code


def test_code_has_the_free_distance_of_the_table():
    weight = lambda register: sum((register & g).bit_count() % 2 for g in code.GENERATORS)
    queue, done = [(weight(1), 1)], set()
    while (node := heapq.heappop(queue))[1] != 0:  # Dijkstra's shortest way from state 0 back to it
        distance, state = node
        if state in done:
            continue
        done.add(state)
        for register in (state << 1, state << 1 | 1):
            heapq.heappush(queue, (distance + weight(register), register % code.STATES))
    assert node[0] == 29


def coded_bits(data):
    """The code word [4, bits] by its definition: parities of the last 11 bits, around the circle."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).tolist()
    tap = lambda g, lag: g >> lag & 1
    return np.array(
        [[sum(tap(g, lag) * bits[t - lag] for lag in range(11)) % 2 for t in range(len(bits))] for g in code.GENERATORS]
    )


@pytest.mark.parametrize("part", [0, 1])
def test_soft_bits_have_the_signs_of_the_code_word(part):
    data = seeded("header").bytes(13)
    h = gaussian(seeded("h"), 135)
    llr = code.soft_bits(13, part, h * code.encode(data, 135, part), h, np.full(135, 0.5))
    word = 1 - 2 * coded_bits(data)
    seen = llr != 0
    assert seen.sum() == 270 and (np.sign(llr) == word)[seen].all()


def test_soft_bits_are_log_likelihood_ratios():
    data, h, noise_var = seeded("header").bytes(13), 0.7 - 0.4j, 0.3
    y = h * code.encode(data, 208, 0) + 0.3 * gaussian(seeded("n"), 208)
    llr = code.soft_bits(13, 0, y, np.full(208, h), np.full(208, noise_var))
    squared = lambda bit: np.abs(y - h * (1 - 2 * bit) * np.sqrt(0.5)) ** 2  # the imaginary part is the same for both
    expected = np.abs(squared(1) - squared(0)) / noise_var  # of the bits in the real parts, in another order
    assert all(np.isclose(np.abs(llr), value, rtol=1e-9).any() for value in expected)


def test_decoder_hardly_ever_finds_a_less_likely_word_than_the_one_sent():
    """The most likely word is the sent one or a likelier one, so anything else is the decoder's own mistake."""
    generator, lost, mistakes = seeded("words"), 0, 0
    for _ in range(40):
        sent = generator.bytes(13)
        word = 1 - 2.0 * coded_bits(sent)
        llr = word + 1.4 * generator.standard_normal(word.shape)  # Eb/N0 0.1 dB
        found = code.decode(llr)
        lost += found != sent
        mistakes += np.sum((1 - 2.0 * coded_bits(found)) * llr) < np.sum(word * llr) - 1e-6
    assert lost <= 12 and mistakes <= 1


@pytest.mark.parametrize("parts, esn0_db", [((0,), 2.5), ((1,), 2.5), ((0, 1), -2.0)])
def test_headers_survive_noise(parts, esn0_db):
    generator, noise_var, lost = seeded("headers", str(parts)), 10 ** (-esn0_db / 10), 0
    for _ in range(25):
        data, llr = generator.bytes(13), 0
        for part in parts:
            y = code.encode(data, 135, part) + np.sqrt(noise_var) * gaussian(generator, 135)
            llr = llr + code.soft_bits(13, part, y, np.ones(135), np.full(135, noise_var))
        lost += code.decode(llr) != data
    assert lost == 0


def test_a_header_of_zeros_has_no_peak():
    symbols = code.encode(bytes(13), 135, 0)
    assert np.abs(np.mean(symbols)) < 0.2  # 1 without the scrambler


# The layout


@pytest.mark.parametrize("name, samples", [("fast", 8704), ("narrow", 14272)])
def test_one_picture_takes_the_time_it_should(name, samples):
    layout = lay_out(PROFILES[name], 1152)
    assert layout.length == samples <= {"fast": 1.1, "narrow": 1.8}[name] * RATE_HZ


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("payload", [1, 2, 7, 26, 48, 300])
def test_symbols_fill_the_time_between_preamble_and_postamble(name, payload):
    layout = Layout(PROFILES[name], payload)
    at = np.sort(np.concatenate([layout.data_at, layout.pilots_at]))
    assert (at == PREAMBLE + SYMBOL * np.arange(layout.symbols)).all()
    assert layout.postamble_at == at[-1] + SYMBOL
    assert np.diff(layout.pilots_at).max(initial=0) <= SYMBOL * (PROFILES[name].data_per_pilot + 1)
    assert lay_out_between(layout.profile, layout.symbols) == layout


def test_no_layout_ends_with_a_pilot():
    profile = PROFILES["fast"]
    lengths = {Layout(profile, payload).symbols for payload in range(1, 50)}
    assert all((lay_out_between(profile, n) is not None) == (n in lengths) for n in range(1, 60))


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("count", [16, 45, 1152, 6001])
def test_places_hold_every_symbol_and_the_first_ones_twice(name, count):
    layout = lay_out(PROFILES[name], count)
    index = places(layout, count)
    copies = np.bincount(index.ravel(), minlength=count)
    assert copies.min() >= 1 and np.ptp(copies) <= 1 and (np.diff(copies) <= 0).all()


def test_any_part_of_x_is_spread_within_a_second():
    layout = lay_out(PROFILES["fast"], 9000)
    index = places(layout, 9000)
    for first in range(0, 9000 - 90, 450):
        rows, columns = np.nonzero((index >= first) & (index < first + 90))
        assert np.unique(columns).size > 30 and np.unique(rows).size > 20
        assert np.ptp(layout.data_at[rows]) < 2.5 * RATE_HZ  # two blocks, and the pilots between
    ends = block_ends(layout)
    for first, last in zip(ends[:-1], ends[1:]):  # progressive: the n-th block has the n-th part of x
        inside = index[first:last]
        assert inside.max() - inside.min() < (last - first) * 45


def test_pilots_make_no_line_in_the_spectrum():
    signs = pilot_signs(256)
    assert set(signs) == {-1.0, 1.0} and signs[0] == 1
    assert np.max(np.abs(np.fft.fft(signs)) ** 2) < 2.5 * 256  # Rudin and Shapiro: at most twice the mean; and the last
    assert all(pilot_signs(count)[-1] == 1 for count in range(1, 40))


# The samples


def picture(name, count=1152):
    generator = seeded("picture", name)
    x = gaussian(generator, count)
    return x / np.sqrt(np.mean(np.abs(x) ** 2)), generator.bytes(13)


@pytest.mark.parametrize("name, most_hz", [("fast", 2400), ("narrow", 1250)])
def test_bandwidth_and_peak(name, most_hz):
    x, header = picture(name)
    samples = modulate(x, header, PROFILES[name], lead_s=0)
    assert samples.dtype == np.float32 and np.abs(samples).max() == pytest.approx(0.9)
    power = np.abs(np.fft.rfft(samples)) ** 2
    low, high = np.interp([0.005, 0.995], np.cumsum(power) / power.sum(), np.arange(power.size))
    assert (high - low) * RATE_HZ / samples.size < most_hz
    spectrum = np.fft.fft(samples)
    spectrum[samples.size // 2 :] = 0
    size = np.abs(np.fft.ifft(spectrum)) ** 2
    assert 10 * np.log10(np.quantile(size, 0.9999) / size.mean()) < 5.5


@pytest.mark.parametrize("name", PROFILES)
def test_clipping_costs_what_the_receiver_reckons_with(name):
    profile = PROFILES[name]
    x, header = picture(name, 6000)
    layout, part = lay_out(profile, 6000), profile.header_symbols
    sent = carriers(layout, x, header)
    a = envelope(layout, sent)
    for _ in range(2):
        a = band_pass(clip(a, 3.0), profile)
    at = layout.data_at[part : layout.data - part, None] + 32 + np.arange(160)
    seen = np.fft.fft(a[at])[:, profile.bins] * np.sqrt(profile.carriers) / 160
    x = sent[part : layout.data - part]
    gain = np.vdot(x, seen).real / np.vdot(x, x).real
    distortion = np.mean(np.abs(seen - gain * x) ** 2)
    assert gain == pytest.approx(PAYLOAD_GAIN, rel=0.02)
    assert 10 * np.log10(gain**2 / distortion) == pytest.approx(SELF_NOISE_DB, abs=0.7)


def test_lead_is_silence():
    x, header = picture("fast", 100)
    short, long = (modulate(x, header, PROFILES["fast"], lead_s=s) for s in (0.1, 0.5))
    assert len(long) - len(short) == 2 * 3200
    assert np.abs(long[:3000]).max() < 1e-2 and np.abs(long[-3000:]).max() < 1e-2


@pytest.mark.parametrize("count, size", [(15, 13), (50_001, 13), (100, 12)])
def test_modulate_refuses_what_it_cannot_send(count, size):
    with pytest.raises(InputError, match="the modem takes"):
        modulate(np.ones(count, complex), bytes(size), PROFILES["fast"])


# The baseband


def test_baseband_is_the_analytic_signal_shifted():
    n = np.arange(40_000)
    samples = np.hanning(n.size) * seeded("noise").standard_normal(n.size)
    spectrum = np.fft.fft(samples)
    spectrum[n.size // 2 :] = 0
    analytic = 2 * np.fft.ifft(spectrum)
    expected = np.fft.fft((analytic * np.exp(-2j * np.pi * 1550 / RATE_HZ * n))[::2])
    z = baseband(samples, -100, 20_100)
    frequency_hz = np.abs(np.fft.fftfreq(20_000, 1 / 4000))
    band, outside = frequency_hz < 1240, frequency_hz > 1410
    seen = np.fft.fft(z[100:-100])
    assert np.linalg.norm((seen - expected)[band]) < 1e-5 * np.linalg.norm(expected[band])
    assert np.linalg.norm(seen[outside]) < 1e-3 * np.linalg.norm(expected[outside])
    assert np.abs(z[:100]).max() < 1e-2 * np.abs(z).max()  # before the recording


def test_baseband_removes_tones_and_leaves_noise():
    generator, n = seeded("tones"), np.arange(80_000)
    noise = generator.standard_normal(n.size, np.float32)
    tones = sum(np.cos(2 * np.pi * hz / RATE_HZ * n) for hz in (700.3, 1500.0, 2200.9)).astype(np.float32)
    kept, rest = baseband(noise, 8000, 32_000), baseband(noise + tones, 8000, 32_000)
    assert np.mean(np.abs(rest) ** 2) == pytest.approx(np.mean(np.abs(kept) ** 2), rel=0.03)
    assert np.mean(np.abs(rest - kept) ** 2) < 0.03 * np.mean(np.abs(kept) ** 2)  # three tones of 10 Hz between them


def test_baseband_in_parts_is_the_same():
    samples = seeded("parts").standard_normal(60_000, np.float32)
    whole = baseband(samples, -500, 30_500)
    assert np.allclose(baseband(samples, 7001, 19_003), whole[7501:19_503], atol=1e-6)


# The estimate


@pytest.mark.parametrize("delays, least, most", [([0.0], -30, -15), ([0.0, 8.0], -30, -13)])
def test_estimate_says_how_wrong_it_is(delays, least, most):
    """A static channel seen 14 times at 10 dB: the error is below the noise's, and known."""
    profile, generator = PROFILES["fast"], seeded("estimate", str(delays))
    seconds = np.sort(generator.uniform(0, 1.1, 14))
    wrong, told, noise = [], [], []
    for _ in range(12):
        a = gaussian(generator, len(delays))
        h = np.exp(-2j * np.pi / 80 * np.outer(profile.bins, delays)) @ (a / np.linalg.norm(a))
        gains = h + np.sqrt(0.1) * gaussian(generator, 14, 45)
        e = estimate(profile, seconds, gains, np.array([0.2, 0.7]))
        wrong.append(np.mean(np.abs(e.h - h) ** 2))
        told.append(e.error_var.mean())
        noise.append(e.noise_var.mean())
    assert least < 10 * np.log10(np.mean(wrong) / 1) < most
    assert 0.4 < np.mean(told) / np.mean(wrong) < 2
    assert np.mean(noise) == pytest.approx(0.1, rel=0.05)


def test_estimate_learns_the_doppler_spread_and_the_noise_of_a_carrier():
    profile, generator = PROFILES["fast"], seeded("doppler")
    seconds = 0.144 * np.arange(60)
    correlation = np.exp(-2 * (np.pi * 0.5 * (seconds[:, None] - seconds)) ** 2)  # sigma 0.5 Hz: a spread of 1 Hz
    root = np.linalg.cholesky(correlation + 1e-9 * np.eye(60))
    taps = root @ gaussian(generator, 60, 2) / np.sqrt(2)
    h = taps @ np.exp(-2j * np.pi / 80 * np.outer([0, 8], profile.bins))
    deviation = np.sqrt(np.where(np.arange(45) == 20, 1.0, 0.05))
    e = estimate(profile, seconds, h + deviation * gaussian(generator, 60, 45), seconds[:-1] + 0.072)
    assert 0.7 <= e.doppler_hz <= 1.42
    assert e.noise_var[20] == pytest.approx(1, rel=0.4)
    assert np.median(e.noise_var) == pytest.approx(0.05, rel=0.15)
    middle = (h[1:] + h[:-1]) / 2
    assert np.mean(np.abs(e.h - middle) ** 2) < 0.03


def test_noise_is_told_from_a_channel_that_changes_with_every_symbol():
    """Nine paths that fade fast take up a fifth of what 45 carriers show, so the rest is not all the noise."""
    profile, generator = PROFILES["fast"], seeded("fast fading")
    basis = np.exp(-2j * np.pi / 80 * np.outer(np.arange(0, 17, 2), profile.bins)) / 3
    noise = []
    for _ in range(6):
        gains = gaussian(generator, 14, 9) @ basis + np.sqrt(0.01) * gaussian(generator, 14, 45)
        noise.append(np.mean(estimate(profile, 0.3 * np.arange(14), gains, np.zeros(1)).noise_var))
    assert np.mean(noise) == pytest.approx(0.01, rel=0.1)


# The order of x


def test_copies_are_combined_as_maximum_ratio_combining_does():
    generator = seeded("copies")
    h, noise_var = gaussian(generator, 3), np.array([0.5, 2.0, 0.25])
    y = h * (0.3 - 0.8j) + np.sqrt(noise_var) * gaussian(generator, 3)
    got_y, got_h, got_noise = in_order(np.array([0, 1, 0]), 2, y, h, noise_var)
    copies = [0, 2]
    best = np.sum(h[copies].conj() * y[copies] / noise_var[copies])
    gain = np.sum(np.abs(h[copies]) ** 2 / noise_var[copies])
    assert got_y[0] / got_h[0] == pytest.approx(best / gain, rel=1e-5)
    assert abs(got_h[0]) ** 2 / got_noise[0] == pytest.approx(gain, rel=1e-5)
    assert got_y[1] / got_h[1] == pytest.approx(y[1] / h[1], rel=1e-5)
    assert got_noise[1] == pytest.approx(noise_var[1]) and abs(got_h[1]) == pytest.approx(abs(h[1]))


def test_a_symbol_that_was_not_heard_is_erased():
    y, h, noise_var = in_order(np.array([1, 0, 1]), 2, np.ones(3), np.ones(3), np.array([np.inf, np.inf, 1.0]))
    assert (y[0], h[0], noise_var[0]) == (0, 0, np.inf)
    assert noise_var[1] == 1


def test_a_crash_of_static_is_noticed_and_strong_symbols_are_not_taken_for_one():
    generator = seeded("static")
    h, noise_var = np.ones((30, 45), complex), np.full((30, 45), 0.1)
    y = gaussian(generator, 30, 45) + np.sqrt(0.1) * gaussian(generator, 30, 45)
    assert not surplus(y, h, noise_var, 1).any()
    assert not surplus(2 * y, h, noise_var, 1).any()  # a part of x with more power than the mean
    y[7] += 2 * gaussian(generator, 45)
    more = surplus(y, h, noise_var, 1)
    assert np.flatnonzero(more).tolist() == [7]
    assert more[7, 0] == pytest.approx(np.mean(np.abs(y[7]) ** 2) - 1.1, rel=0.05)
