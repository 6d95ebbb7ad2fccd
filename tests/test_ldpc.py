"""Coded bits over QAM: payloads arrive whole or are reported lost, at the error rates published for the same 5G code.

Also capacity and the normal approximation, which bound what any code can carry.
"""

import json
import math
import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from test_channel import gaussian, mean_near, seeded

from semcast.channels.base import Received
from semcast.channels.catalogue import find_channel
from semcast.errors import InputError
from semcast.modulation import ldpc
from semcast.modulation import mcs as schemes
from semcast.modulation.capacity import capacity, dispersion, effective_snr_db, normal_approximation, required_snr_db
from semcast.modulation.ldpc import code, crc24, decode, deliver, demap, encode, qam
from semcast.modulation.mcs import BITS, TABLE, Mcs, choose, crossing_db, plan, threshold_db

QPSK_HALF = Mcs("qpsk", Fraction(1, 2))


def payloads(count: int, size: int, seed: int = 0) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(size) for _ in range(count)]


# Capacity


def test_capacity():
    assert capacity(0) == 1
    # Bits per use and bytes in 1152 and 4608 uses at 1, 5, 10, 20 dB, calculated by hand: log2(1 + 10^(snr / 10)).
    for snr_db, bits, small, large in (
        (1, 1.176, 169, 677),
        (5, 2.057, 296, 1185),
        (10, 3.459, 498, 1993),
        (20, 6.658, 959, 3835),
    ):
        assert capacity(snr_db) == pytest.approx(bits, abs=5e-4)
        assert round(1152 * capacity(snr_db) / 8) == small and round(4608 * capacity(snr_db) / 8) == large


@pytest.mark.parametrize("snr_db", [-5.0, 5.0, 15.0])
def test_dispersion_is_the_variance_of_the_information_density(snr_db):
    """For |x|^2 = snr, n ~ CN(0, 1): i(x; y) = log2(1 + snr) + (|y|^2 / (1 + snr) - |n|^2) log2(e)."""
    snr = 10 ** (snr_db / 10)
    n = torch.view_as_complex(
        torch.randn(400_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ) / math.sqrt(2)
    density = capacity(snr_db) + ((math.sqrt(snr) + n).abs() ** 2 / (1 + snr) - n.abs() ** 2) * math.log2(math.e)
    assert mean_near(density, capacity(snr_db))
    assert mean_near((density - capacity(snr_db)) ** 2, dispersion(snr_db))


def test_normal_approximation():
    # Real AWGN at 0 dB has V = 3/8 log2(e)^2 per use (Polyanskiy 2010, equation 293); a complex use is two.
    assert dispersion(0) == pytest.approx(2 * 3 / 8 * math.log2(math.e) ** 2)
    # By hand at 0 dB, 1000 uses, error 1e-3 (Q^-1 = 3.0902): 1000 - sqrt(1561) * 3.0902 + log2(2000) / 2 = 883.4
    assert normal_approximation(1000, 0, 1e-3) == pytest.approx(883.4, abs=0.1)
    assert normal_approximation(100, 3, 0.5) == pytest.approx(100 * capacity(3) + math.log2(200) / 2)
    for snr_db, bits_a_pixel in (
        (-5, 0.0016),
        (0, 0.0041),
        (1, 0.0049),
        (5, 0.0088),
        (10, 0.0149),
        (15, 0.0218),
        (20, 0.0290),
    ):
        assert normal_approximation(4608, snr_db, 1e-3) / 2**20 == pytest.approx(bits_a_pixel, abs=1e-4)
    assert required_snr_db(normal_approximation(1152, 7.0, 0.01), 1152, 0.01) == pytest.approx(7.0, abs=2e-3)


def test_effective_snr():
    x = gaussian(2, 4000).numpy()
    assert effective_snr_db(find_channel("awgn")(x, 7.0, seeded(0, 1))).tolist() == pytest.approx([7.0, 7.0], abs=1e-4)
    lost = find_channel("erasure")(x, 10.0, seeded(0, 1), rate=0.5)
    share = np.isfinite(lost.noise_var).mean(axis=1)
    assert np.allclose(effective_snr_db(lost), 10 * np.log10(11**share - 1), atol=1e-3)  # (1 - rate) C
    assert effective_snr_db(Received(x, np.ones_like(x), np.full((2, 1), math.inf))).tolist() == [-math.inf] * 2


# Payloads arrive whole or are reported lost


def test_crc_is_that_of_5g():
    from sionna.phy.fec.crc import CRCEncoder

    for data in (b"\x00", b"semcast", *payloads(3, 40)):
        bits = torch.from_numpy(np.unpackbits(np.frombuffer(data, np.uint8))).float()
        parity = CRCEncoder("CRC24A", k=len(bits), device="cpu")(bits[None])[0, -24:]
        assert crc24(data) == int("".join(str(int(b)) for b in parity), 2)


def test_every_payload_size_survives():
    size = plan(96, QPSK_HALF).payload_bytes
    assert size == (96 - 24) // 8
    sent = [data for n in range(size + 1) for data in payloads(1, n, seed=n)]
    assert deliver(sent, 96, QPSK_HALF, 30.0, seeded(*range(len(sent)))) == sent
    with pytest.raises(InputError, match=f"a payload has {size + 1} bytes; 96 channel uses carry {size} with qpsk 1/2"):
        encode([bytes(size + 1)], 96, QPSK_HALF)


@pytest.mark.parametrize("k", [24, 97, 1152, 1153, 4608, 9973])
@pytest.mark.parametrize("mcs", [TABLE[0], TABLE[7], TABLE[-1]], ids=str)
def test_full_payloads_survive_in_exactly_k_uses_whatever_the_number_of_code_blocks(k, mcs):
    try:
        size, info_bits, uses = plan(k, mcs)
    except InputError:
        return
    assert sum(uses) == k and max(uses) - min(uses) <= 1 and info_bits <= (3840 if mcs == TABLE[0] else 8448)
    assert 8 * size + 24 <= len(uses) * info_bits < 8 * size + 32  # fewer than 8 bits are left over
    sent = [*payloads(1, size, seed=k), b"\xff" * size]
    x = encode(sent, k, mcs)
    assert x.shape == (2, k) and x.dtype == np.complex64
    assert np.mean(np.abs(x) ** 2) == pytest.approx(1, abs=5 / math.sqrt(2 * k))
    assert decode(find_channel("awgn")(x, 40.0, seeded(0, 1)), mcs) == sent


def test_payloads_carry_all_that_fits():
    assert {str(mcs): plan(1152, mcs).payload_bytes for mcs in TABLE} == {
        **{"qpsk 1/5": 54, "qpsk 1/3": 93, "qpsk 1/2": 141, "qpsk 2/3": 189, "qpsk 3/4": 213},
        **{"16qam 1/2": 285, "16qam 2/3": 381, "16qam 3/4": 429, "16qam 5/6": 477},
        **{"64qam 2/3": 573, "64qam 3/4": 645, "64qam 5/6": 717},
        **{"256qam 2/3": 765, "256qam 3/4": 861, "256qam 5/6": 957, "256qam 8/9": 1021},
    }  # floor((1152 m rate - 24) / 8)
    with pytest.raises(InputError, match="8 channel uses are too few for qpsk 1/5: they carry no byte beside its CRC"):
        plan(8, TABLE[0])


@pytest.mark.parametrize("fill", [b"\0", b"\xff", None])
def test_a_lost_payload_is_reported_and_never_guessed(fill):
    size = plan(200, QPSK_HALF).payload_bytes
    sent = [fill * size] * 20 if fill else payloads(20, size)
    assert deliver(sent, 200, QPSK_HALF, -10.0, seeded(*range(20))) == [None] * 20
    x = encode(sent, 200, QPSK_HALF)
    nothing = Received(np.zeros_like(x), np.ones_like(x), np.full((20, 1), math.inf))
    assert decode(nothing, QPSK_HALF) == [None] * 20  # a decoder without input puts out zeros


@pytest.mark.slow
@pytest.mark.parametrize("k, mcs, snr_db", [(300, QPSK_HALF, 1.3), (4000, Mcs("64qam", Fraction(3, 4)), 15.1)])
def test_decoding_in_rounds_loses_the_same_payloads_as_decoding_at_once(monkeypatch, k, mcs, snr_db):
    sent = payloads(24, plan(k, mcs).payload_bytes)
    received = find_channel("awgn")(encode(sent, k, mcs), snr_db, seeded(*range(24)))
    arrived = decode(received, mcs)
    monkeypatch.setattr(ldpc, "ROUNDS", (sum(ldpc.ROUNDS),))
    assert sum(ldpc.ROUNDS) == 20 and decode(received, mcs) == arrived
    assert 0 < arrived.count(None) < 24 and all(ours in (None, theirs) for ours, theirs in zip(arrived, sent))


def test_payloads_arrive_or_are_lost_on_every_channel():
    size = plan(1152, QPSK_HALF).payload_bytes
    sent = payloads(3, size)
    for channel in (
        "rayleigh-fast",
        "rician",
        "erasure",
        "burst-erasure",
        "packet-erasure",
        "impulsive",
        "middleton",
        "clipping",
        "tdl-a",
    ):
        arrived = deliver(sent, 1152, QPSK_HALF, 12.0, seeded(*range(3)), channel)
        assert [a for a in arrived if a is not None] and all(a in (None, s) for a, s in zip(arrived, sent)), channel


def test_whether_a_payload_arrives_does_not_depend_on_its_batch():
    sent = payloads(6, plan(1152, QPSK_HALF).payload_bytes)
    together = deliver(sent, 1152, QPSK_HALF, 1.25, seeded(*range(6)))
    assert [deliver([s], 1152, QPSK_HALF, 1.25, seeded(i))[0] for i, s in enumerate(sent)] == together


# The code is as good as published


@pytest.mark.parametrize("modulation", BITS)
def test_demapper_agrees_with_sionna(modulation):
    from sionna.phy.mapping import Demapper

    y, noise_var = gaussian(2, 60), torch.rand(2, 60, generator=torch.Generator().manual_seed(1)) + 0.05
    expected = Demapper("app", "qam", BITS[modulation], device="cpu")(y, noise_var)
    assert torch.allclose(demap(y, noise_var, modulation), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(demap(y, torch.full((2, 60), math.inf), modulation), torch.zeros_like(expected))
    bits = torch.randint(0, 2, (2, 60 * BITS[modulation]), generator=torch.Generator().manual_seed(2)).float()
    assert torch.equal((demap(qam(modulation)(bits), torch.full((2, 60), 0.01), modulation) > 0).float(), bits)


# Sionna 2.2, 1024 information bits in 2048, QPSK, 20 iterations: Es/N0 dB, share of lost blocks, of how many
PUBLISHED = [(1.0, 0.435, 200), (1.25, 0.135, 600), (1.5, 0.04, 200)]


@pytest.mark.parametrize("snr_db, published, of", PUBLISHED)
def test_block_error_rate_is_the_published_one(snr_db, published, of):
    assert plan(1024, QPSK_HALF)[1:] == (1024, (1024,))
    sent = payloads(120, plan(1024, QPSK_HALF).payload_bytes)
    lost = sum(a is None for a in deliver(sent, 1024, QPSK_HALF, snr_db, seeded(*range(120)))) / 120
    assert abs(lost - published) < 4 * math.sqrt(published * (1 - published) * (1 / 120 + 1 / of))


def test_a_second_decoder_agrees():
    """Belief propagation of the package `ldpc` on the same parity-check matrix and the same noise."""
    package = pytest.importorskip("ldpc")
    encoder, _ = code(1024, 1024, "qpsk")
    count, size = 60, plan(1024, QPSK_HALF).payload_bytes
    sent = payloads(count, size)
    received = find_channel("awgn")(encode(sent, 1024, QPSK_HALF), 1.25, seeded(*range(count)))
    ours = decode(received, QPSK_HALF)
    noise_var = torch.from_numpy(received.noise_var).expand(-1, 1024)
    llr = demap(torch.from_numpy(received.y), noise_var, "qpsk").double().numpy()
    llr = llr[:, encoder.out_int_inv.long().numpy()]  # undo the bit interleaver
    without_filler = np.r_[0 : encoder.k, encoder.k_ldpc : encoder.n_ldpc]
    on_air = without_filler[2 * encoder.z :][: encoder.n]  # the first 2 Z are punctured
    full = np.zeros((count, encoder.n_ldpc))
    full[:, encoder.k : encoder.k_ldpc] = -30.0  # filler bits are 0
    full[:, on_air] = llr
    decoder = package.BpDecoder(encoder.pcm, error_rate=0.1, max_iter=20, bp_method="product_sum")
    theirs = []
    for row in full:
        guess = (row > 0).astype(np.uint8)
        decoder.update_channel_probs(1 / (1 + np.exp(np.abs(row))))
        guess ^= decoder.decode((encoder.pcm @ guess % 2).astype(np.uint8))
        block = (np.packbits(guess[: 8 * size + 24]) ^ ldpc.scrambler(size + 3)).tobytes()
        theirs.append(block[:size] if crc24(block[:size]) == int.from_bytes(block[size:], "big") else None)
    assert all(b in (None, s) for b, s in zip(theirs, sent))
    assert 1 <= theirs.count(None) <= 20
    assert sum((a is None) != (b is None) for a, b in zip(ours, theirs)) <= 3  # the two stop differently


# Link adaptation


def test_thresholds_rise_with_the_payload_and_lie_0_5_to_3_db_above_the_bound():
    at = [threshold_db(1152, mcs) for mcs in TABLE]
    assert at == sorted(at)
    for mcs, snr_db in zip(TABLE, at):
        gap = snr_db - schemes.bound_db(1152, mcs, 0.01)
        assert 0.5 < gap < 3, mcs  # 5G's LDPC and QAM against Gaussian symbols and the best code of this length


def test_every_scheme_has_a_measured_curve_down_to_one_percent():
    for mcs in TABLE:
        points = schemes.measured(mcs)[1152]
        shares = [lost / blocks for _, blocks, lost in points]
        assert min(shares) <= 0.01 and max(shares) > 0.3
        assert points[0][0] - 0.5 < threshold_db(1152, mcs) <= points[-1][0] + 0.25


def test_the_threshold_of_a_length_that_was_not_measured_errs_on_the_safe_side(monkeypatch):
    measured_db = threshold_db(4608, QPSK_HALF)
    curves = {1152: schemes.measured(QPSK_HALF)[1152]}
    monkeypatch.setattr(schemes, "measured", lambda mcs: curves)
    predicted_db = threshold_db.__wrapped__(4608, QPSK_HALF)
    assert -0.05 < predicted_db - measured_db < 0.2


def test_choose_carries_more_over_a_better_channel():
    for k in (72, 288, 1152, 2000, 4608):
        sizes = [plan(k, mcs).payload_bytes if (mcs := choose(k, snr_db)) else 0 for snr_db in range(-10, 31)]
        assert sizes[0] == 0 and sizes == sorted(sizes) and sizes[-1] == plan(k, TABLE[-1]).payload_bytes
        for snr_db, size in zip(range(-10, 31), sizes):
            assert 8 * size < normal_approximation(k, snr_db, 0.01)
    assert choose(1152, 10.0) == Mcs("16qam", Fraction(2, 3)) and choose(1152, -5.0) is None and choose(4, 60.0) is None


def test_one_percent_is_lost_at_the_threshold():
    """16-QAM 1/2 at its threshold: 1 % of 60 blocks are lost, so more than 4 are with a probability of 0.0003."""
    mcs = Mcs("16qam", Fraction(1, 2))
    sent = payloads(60, plan(1152, mcs).payload_bytes, seed=5)
    arrived = deliver(sent, 1152, mcs, threshold_db(1152, mcs), seeded(*range(1000, 1060)))
    assert sum(a is None for a in arrived) <= 4


def test_crossing_db_of_a_known_curve():
    points = [
        (snr_db, 10_000, round(10_000 / (1 + math.exp(8 * (snr_db - 3)))))
        for snr_db in (2.5, 2.75, 3.0, 3.25, 3.5, 3.75)
    ]
    assert crossing_db(points, 0.01) == pytest.approx(3 + math.log(99) / 8, abs=0.01)


def test_the_curves_record_how_they_were_measured():
    record = json.loads(schemes.CURVES.read_text())
    assert record["commit"] and record["machine"]["torch"]
    assert all(0 <= row["lost"] <= row["blocks"] and row["blocks"] >= 50 for row in record["rows"])
