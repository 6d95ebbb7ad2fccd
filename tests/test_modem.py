"""The modem from end to end: over simulated radio paths, joined late, cut off, crowded, mistuned."""

import tracemalloc

import numpy as np
import pytest

import modem as bench
from semcast.channels.base import equalise
from semcast.channels.combining import combine
from semcast.modem.detect import find_bursts
from semcast.modem.layout import lay_out
from semcast.modem.profiles import PREAMBLE, PROFILES, RATE_HZ, SYMBOL
from semcast.modem.receive import find
from semcast.randomness import seeded
from semcast.signals import air

FAST, NARROW = PROFILES["fast"], PROFILES["narrow"]
LEAD = round(bench.LEAD_S * RATE_HZ)


def over(sent, snr3k_db, generator, path="awgn", **effects):
    return air.propagate(sent.samples, RATE_HZ, path, snr3k_db=snr3k_db, generator=generator, **effects)


def only(receptions, sent):
    """The one reception there should be."""
    (reception,) = receptions
    assert reception.header == sent.header and reception.y.shape == sent.x.shape
    return reception


# What it loses


@pytest.mark.parametrize("profile", [FAST, NARROW], ids=lambda p: p.name)
@pytest.mark.parametrize("path, most_db", [("awgn", 1.2), ("watterson-poor", 1.5)])
def test_loss_beside_a_receiver_that_knows_the_channel(profile, path, most_db):
    row = bench.loss(profile, path, 10.0, 5)
    assert row["lost"] == 0
    assert 0 < row["loss_db"] < most_db
    assert row["told_db"] == pytest.approx(row["modem_db"], abs=0.4)


def test_16_bits_cost_nothing():
    exact, rounded = (bench.stress(FAST, name, 2)["modem_db"] for name in ("nothing", "16 bits"))
    assert rounded > exact - 0.05


@pytest.mark.parametrize("profile", [FAST, NARROW], ids=lambda p: p.name)
def test_a_clean_cable_leaves_only_the_clipping(profile):
    generator = seeded("cable")
    sent = bench.send(profile, 700, generator)
    reception = only(find(sent.samples, bench.n_symbols), sent)
    measured_db, told_db = bench.error_db(sent.x, reception)
    assert measured_db == pytest.approx(17.7, abs=0.7) and told_db == pytest.approx(measured_db, abs=0.7)
    assert reception.start == pytest.approx(LEAD, abs=2)
    assert (reception.report.header_from, reception.profile) == ("front", profile.name)
    assert reception.report.snr_db > 30


# What it finds


@pytest.mark.parametrize("profile", [FAST, NARROW], ids=lambda p: p.name)
@pytest.mark.parametrize("path, snr3k_db", bench.DETECTION)
def test_transmissions_are_found(profile, path, snr3k_db):
    assert bench.detection(profile, path, snr3k_db, 10)["read"] >= 0.9


@pytest.mark.parametrize("profile", [FAST, NARROW], ids=lambda p: p.name)
def test_headers_are_read_below_the_payloads_useful_snr(profile):
    row = bench.header(profile, -3.0, 8)
    assert row["read"] >= 0.75 and row["from"]["both"] > row["from"]["front"]


@pytest.mark.parametrize("kind", ["noise", "speech and music"])
def test_nothing_is_found_where_nothing_is(kind):
    row = bench.false_alarms(kind, 120 if kind == "noise" else 30)
    assert row["alarms"] == 0 and (kind != "noise" or row["times_real_time"] > 100)


def test_silence_and_empty_recordings_hold_nothing():
    for count in (0, 1, 1000, 100_000):
        assert find(np.zeros(count, np.float32), bench.n_symbols) == []


def test_a_long_recording_is_searched_in_parts():
    """A transmission across the border of two parts, and one at 90 s."""
    generator = seeded("parts")
    a, b = (bench.send(profile, 200, generator) for profile in (FAST, NARROW))
    samples = 0.1 * generator.standard_normal(RATE_HZ * 100).astype(np.float32)
    at = [RATE_HZ * 60 - 3000, RATE_HZ * 90]
    for start, sent in zip(at, (a, b)):
        samples[start : start + len(sent.samples)] += sent.samples
    found = find(samples, bench.n_symbols)
    assert [r.header for r in found] == [a.header, b.header]
    assert [r.start for r in found] == pytest.approx([start + LEAD for start in at], abs=2)


def test_a_long_recording_takes_little_memory():
    samples = seeded("memory").standard_normal(RATE_HZ * 300, np.float32)
    tracemalloc.start()
    find(samples, bench.n_symbols)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 2**20


# What goes wrong on the air


@pytest.mark.parametrize("name", [n for n in bench.STRESS if n not in ("nothing", "16 bits", "16 bits, 8 dB too loud")])
def test_radios_and_sound_cards_may_be_off(name):
    row = bench.stress(FAST, name, 1)
    assert row["lost"] == 0
    assert row["modem_db"] > 9.4 and row["told_db"] == pytest.approx(row["modem_db"], abs=0.4)


def test_an_overdriven_sound_card_is_survived():
    row = bench.stress(NARROW, "16 bits, 8 dB too loud", 1)
    assert row["lost"] == 0 and row["modem_db"] > 7


def test_report_says_what_the_air_did():
    generator = seeded("report")
    sent = bench.send(FAST, 8000, generator)
    effects = {"offset_hz": 73.0, "clock_ppm": 60.0, "level_db": -20.0}
    report = only(find(over(sent, 8.0, generator, "watterson-poor", **effects), bench.n_symbols), sent).report
    assert report.offset_hz == pytest.approx(73.0, abs=1)
    assert report.clock_ppm == pytest.approx(60, abs=10)
    assert report.delay_spread_ms == pytest.approx(2, abs=0.3)
    assert 0.7 <= report.doppler_spread_hz <= 1.5
    assert report.snr3k_db == pytest.approx(8, abs=2.5)  # it fades
    assert report.snr_db - report.snr3k_db == pytest.approx(1.25, abs=0.01)
    assert -40 < report.level_dbfs < -24


def test_25_seconds_with_a_clock_and_an_oscillator_that_run():
    row = bench.long_transmission(FAST, "awgn")
    assert row["seconds"] > 25 and row["modem_db"] > row["genie_db"] - 1.0


@pytest.mark.parametrize("cut", [0, 30_000])
def test_an_oscillator_that_drifts_by_5_hz(cut):
    """More than pilots 168 ms apart can tell; joined late, it is counted from the end."""
    generator = seeded("drift")
    sent = bench.send(NARROW, 10_000, generator)
    y = over(sent, bench.snr3k_db(NARROW, sent, 10.0), generator, drift_hz_per_min=25.0)
    reception = only(find(y[cut:], bench.n_symbols), sent)
    assert bench.error_db(sent.x, reception)[0] > 9.2


def test_a_crash_of_static_is_weighed_down():
    generator = seeded("crash")
    sent = bench.send(FAST, 1152, generator)
    y = over(sent, 10.0, generator)
    at = LEAD + PREAMBLE + 20 * SYMBOL
    y[at : at + 2 * SYMBOL] += 1.5 * generator.standard_normal(2 * SYMBOL)
    measured_db, told_db = bench.error_db(sent.x, only(find(y, bench.n_symbols), sent))
    assert measured_db > 7.2 and told_db == pytest.approx(measured_db, abs=0.6)


# Parts of a transmission


@pytest.mark.parametrize("profile", [FAST, NARROW], ids=lambda p: p.name)
def test_joined_late(profile):
    generator = seeded("late")
    sent = bench.send(profile, 4000, generator)
    y = over(sent, 8.0, generator)
    half = len(y) // 2
    reception = only(find(y[half:], bench.n_symbols), sent)
    heard = np.isfinite(reception.noise_var)
    assert reception.report.header_from == "end"
    assert reception.start == pytest.approx(LEAD - half, abs=4)
    assert heard[-1000:].all() and not heard[50:1000].any() and 0.4 < heard.mean() < 0.6
    assert heard[:45].any()  # the first symbols fill the last places again
    assert not reception.y[~heard].any() and not reception.h[~heard].any()
    assert bench.error_db(sent.x, reception)[0] > 8.2


@pytest.mark.parametrize("symbols", [1, 2, 3, 4, 5, 6])
def test_joined_late_whatever_follows_the_last_pilot(symbols):
    generator = seeded("rest")
    sent = bench.send(FAST, 45 * (50 + symbols), generator)
    cut = LEAD + PREAMBLE + 9 * SYMBOL
    assert only(find(over(sent, 8.0, generator)[cut:], bench.n_symbols), sent).report.header_from == "end"


def test_cut_off():
    generator = seeded("early")
    sent = bench.send(FAST, 4000, generator)
    reception = only(find(over(sent, 8.0, generator)[: len(sent.samples) // 2], bench.n_symbols), sent)
    heard = np.isfinite(reception.noise_var)
    assert heard[:1000].all() and not heard[-1000:].any()
    assert bench.error_db(sent.x, reception)[0] > 8.2


def without_headers(sent, profile):
    """The samples with noise in place of both parts of the header."""
    samples, layout = sent.samples.copy(), lay_out(profile, len(sent.x))
    for rows in layout.header_parts:
        at = LEAD + layout.data_at[rows]
        samples[at[0] : at[-1] + SYMBOL] = 0.3 * seeded("over").standard_normal(at[-1] + SYMBOL - at[0])
    return sent._replace(samples=samples)


def test_header_of_the_caller():
    generator = seeded("known")
    sent = bench.send(FAST, 500, generator)
    y = over(without_headers(sent, FAST), 8.0, generator)
    (unread,) = find(y, bench.n_symbols)
    assert (unread.header, unread.y.size, unread.report.header_from) == (None, 0, "")
    assert unread.start == pytest.approx(LEAD, abs=2)
    whole = only(find(y, bench.n_symbols, header=sent.header), sent)
    late = only(find(y[LEAD + 2000 :], bench.n_symbols, header=sent.header), sent)
    for reception in (whole, late):
        assert reception.report.header_from == "caller"
        assert bench.error_db(sent.x, reception)[0] > 8.2


def test_header_that_is_damaged_in_front_is_read_at_the_end():
    generator = seeded("damaged")
    sent = bench.send(NARROW, 500, generator)
    y = over(sent, 5.0, generator)
    at = LEAD + PREAMBLE
    y[at : at + 5 * SYMBOL] = 0.2 * generator.standard_normal(5 * SYMBOL)
    assert only(find(y, bench.n_symbols), sent).report.header_from in ("both", "end")


# Several transmissions, several recordings


def test_several_transmissions_are_told_apart():
    generator = seeded("several")
    sent = [bench.send(profile, uses, generator) for profile, uses in ((FAST, 60), (NARROW, 100), (FAST, 16))]
    y = np.concatenate([over(one, snr, generator) for one, snr in zip(sent, (6.0, 3.0, 9.0))])
    found = find(y, bench.n_symbols)
    assert [(r.header, r.profile) for r in found] == [
        (one.header, p) for one, p in zip(sent, ("fast", "narrow", "fast"))
    ]
    starts = LEAD + np.cumsum([0] + [len(one.samples) for one in sent[:2]])
    assert [r.start for r in found] == pytest.approx(starts, abs=3)


def test_few_symbols_are_sent_several_times():
    generator = seeded("few")
    sent = bench.send(FAST, 16, generator)
    y = over(sent, bench.snr3k_db(FAST, sent, 8.0), generator)
    assert bench.error_db(sent.x, only(find(y, bench.n_symbols), sent))[0] > 8.6 + 1.5  # 45 places for 16 symbols


def test_receptions_of_two_receivers_are_combined():
    generator = seeded("two")
    sent = bench.send(FAST, 1152, generator)
    at = bench.snr3k_db(FAST, sent, 4.0)
    received = [only(find(over(sent, at, generator, level_db=db), bench.n_symbols), sent).received for db in (0, -9)]
    error_db = lambda r: -10 * np.log10(np.mean(np.abs(equalise(r)[0] - sent.x) ** 2))
    one_db, both_db = error_db(received[0]), error_db(combine(received))
    assert 1.6 < both_db - one_db < 2.6  # 2.3 dB without the clipping, which does not average out


def test_a_late_and_an_early_receiver_have_it_all():
    generator = seeded("halves")
    sent = bench.send(FAST, 3000, generator)
    half = len(sent.samples) // 2
    heard = over(sent, 8.0, generator)[: half + 2000], over(sent, 8.0, generator)[half - 2000 :]
    parts = [only(find(part, bench.n_symbols), sent).received for part in heard]
    assert np.isfinite(combine(parts).noise_var).all()
    assert not np.isfinite(parts[0].noise_var).all()


def test_bursts_are_found_where_they_are():
    generator = seeded("bursts")
    sent = bench.send(NARROW, 300, generator)
    pre, post = find_bursts(over(sent, 0.0, generator, offset_hz=-95.0))
    layout = lay_out(NARROW, 300)
    assert (pre.kind, post.kind) == ("pre", "post")
    assert [2 * pre.at, 2 * post.at] == pytest.approx([LEAD, LEAD + layout.postamble_at], abs=4)
    assert [pre.offset_hz, post.offset_hz] == pytest.approx([-95, -95], abs=1)
