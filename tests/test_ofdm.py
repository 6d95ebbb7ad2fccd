"""OFDM over TDL and CDL: the fading has 3GPP's statistics, and the receiver is given the true error variance.

Tolerances are five standard errors over independent pictures unless a comment says otherwise.
"""

import json
import math
import subprocess
import sys

import pytest
import torch
from PIL import Image
from scipy.special import j0
from test_channel import gaussian, mean_near, seeded, unit_power
from tiny import photo

from semcast.channels.catalogue import CHANNELS, find_channel
from semcast.channels.ofdm import (
    PILOTS,
    draw_gains,
    frequency_modes,
    interpolate,
    line_weights,
    lmmse,
    make_grid,
    paths,
    time_correlation,
)
from semcast.errors import InputError, brings

OFDM = [name for name in CHANNELS if name[:3] in ("tdl", "cdl")]
GRID = make_grid(1152, 2)


def gains(profile: str, pictures: int, speed_mps: float = 3.0, delay_spread_ns: float = 100.0) -> torch.Tensor:
    """[pictures, 14, 96]."""
    return draw_gains(paths(profile, delay_spread_ns, 3.5, speed_mps), GRID, seeded(*range(pictures)))


@pytest.mark.parametrize("profile", OFDM)
def test_every_profile_has_unit_power_and_keeps_the_convention(profile):
    pictures = 200 if profile[0] == "t" else 60
    assert mean_near(gains(profile, pictures).abs().square().mean(dim=(1, 2)), 1)
    x, state = gaussian(3, 100), torch.get_rng_state()
    before = x.clone()
    y, h, noise_var = together = find_channel(profile)(x, torch.tensor([0.0, 10.0, 20.0]), seeded(0, 1, 2))
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(x, before)
    assert y.shape == noise_var.shape == x.shape and torch.equal(h, torch.ones(3, 1, dtype=x.dtype))
    alone = find_channel(profile)(x[1:2], 10.0, seeded(1))
    assert all(torch.allclose(a, b[1:2], rtol=1e-4, atol=1e-5) for a, b in zip(alone, together))
    assert (together.noise_var > 0).all()


@pytest.mark.parametrize("speed_mps", [30.0, 120.0])
def test_doppler_autocorrelation_is_j0(speed_mps):
    h = gains("tdl-a", 400, speed_mps)
    for lag in (1, 4, 9):
        correlation = (h[:, lag:] * h[:, :-lag].conj()).mean(dim=(1, 2))
        expected = j0(2 * math.pi * speed_mps / 299_792_458 * 3.5e9 * lag * (1 + 7 / 96) / 30e3)
        assert mean_near(correlation.real, expected) and mean_near(correlation.imag, 0)
        assert time_correlation("tdl-a", GRID, 3.5, speed_mps)[0, lag].real.item() == pytest.approx(expected, abs=1e-5)


def test_the_channel_of_a_standing_receiver_is_constant():
    h = gains("tdl-c", 3, speed_mps=0.0)
    assert torch.allclose(h, h[:, :1].expand_as(h), atol=1e-5)


@pytest.mark.parametrize("profile, delay_spread_ns", [("tdl-a", 100.0), ("tdl-c", 300.0), ("tdl-e", 100.0)])
def test_frequency_correlation_is_that_of_the_power_delay_profile(profile, delay_spread_ns):
    """E[h(f + d) conj(h(f))] = sum of p exp(-2 pi j d tau), and the profile's RMS delay spread is the one asked for."""
    h = gains(profile, 400, delay_spread_ns=delay_spread_ns)
    model = paths(profile, delay_spread_ns, 3.5, 3.0)
    powers, delays = model.mean_powers.double(), model.delays.double()
    spread = math.sqrt((powers * delays**2).sum() - (powers * delays).sum() ** 2)
    assert powers.sum().item() == pytest.approx(1)
    assert spread == pytest.approx(delay_spread_ns * 1e-9, rel=0.02)  # the standard rounds
    for lag in (1, 10, 40):
        correlation = (h[..., lag:] * h[..., :-lag].conj()).mean(dim=(1, 2))
        expected = (powers * torch.polar(torch.ones_like(delays), -2 * math.pi * lag * 30e3 * delays)).sum()
        assert mean_near(correlation.real, expected.real.item()) and mean_near(correlation.imag, expected.imag.item())
    modes, eigenvalues = frequency_modes(profile, delay_spread_ns, 96)
    covariance = (modes * eigenvalues) @ modes.mH
    expected = (powers * torch.polar(torch.ones_like(delays), -2 * math.pi * 7 * 30e3 * delays)).sum()
    assert (covariance[7, 0] - expected).abs() < 1e-4 and (covariance.diagonal().real - 1).abs().max() < 1e-4


CALIBRATED = [
    *(("tdl-a", estimation, 3.0, 2) for estimation in ("ls", "lmmse", "perfect")),
    *(("tdl-a", estimation, 120.0, pilots) for estimation in ("ls", "lmmse") for pilots in (2, 4)),
    ("tdl-d", "ls", 30.0, 2),
    ("tdl-e", "lmmse", 3.0, 2),
    ("tdl-b", "ls", 3.0, 1),
    ("tdl-c", "lmmse", 3.0, 3),
]


@pytest.mark.parametrize("profile, estimation, speed_mps, pilots", CALIBRATED)
@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_the_stated_noise_variance_is_the_measured_one(profile, estimation, speed_mps, pilots, snr_db):
    x = gaussian(150, 1152)
    options = {"estimation": estimation, "speed_mps": speed_mps, "pilots": pilots}
    y, _, noise_var = find_channel(profile)(x, snr_db, seeded(*range(150)), **options)
    ratio = ((y - x).abs().square() / noise_var).mean(dim=1)
    assert mean_near(ratio, 1)
    if speed_mps < 100 or pilots == 4 and estimation == "lmmse":
        assert ratio.mean().item() == pytest.approx(1, abs=0.03)


def test_the_stated_noise_variance_of_cdl_is_right_when_slow_and_too_high_when_fast():
    x = gaussian(60, 1152)
    for speed_mps, low, high in ((3.0, 0.97, 1.03), (120.0, 0.4, 1.0)):
        y, _, noise_var = find_channel("cdl-a")(x, 20.0, seeded(*range(60)), speed_mps=speed_mps)
        assert low < ((y - x).abs().square() / noise_var).mean().item() < high


def test_better_knowledge_gives_less_noise():
    x = unit_power(100, 1152)
    stated = [
        find_channel("tdl-a")(x, 10.0, seeded(*range(100)), estimation=e).noise_var.median()
        for e in ("ls", "lmmse", "perfect")
    ]
    assert stated[0] > 1.3 * stated[1] and stated[1] < 1.1 * stated[2]


def test_estimators_agree_with_sionna():
    """At a standstill our LS differs from Sionna's by the factor c alone; LMMSE from Sionna's by nothing."""
    from sionna.phy.ofdm import (
        LMMSEChannelEstimator,
        LSChannelEstimator,
        ResourceGrid,
        tdl_freq_cov_mat,
        tdl_time_cov_mat,
    )

    state = torch.get_rng_state()
    rg = ResourceGrid(
        14, 96, 30e3, cyclic_prefix_length=7, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[2, 11], device="cpu"
    )
    h, noise_var = gains("tdl-a", 3), 0.05
    noise = torch.view_as_complex(torch.randn(3, 14, 96, 2, generator=torch.Generator().manual_seed(0))) * math.sqrt(
        noise_var / 2
    )
    pilots = rg.pilot_pattern.pilots.view(2, 96)  # Sionna's are random QPSK, ours are 1
    y = torch.zeros(3, 1, 1, 14, 96, dtype=torch.complex64)
    y[:, 0, 0, [2, 11]] = (h + noise)[:, [2, 11]] * pilots
    seen = (h + noise)[:, [2, 11]]
    var = torch.full((3, 1, 1), noise_var)

    theirs, error = LSChannelEstimator(rg, interpolation_type="lin", device="cpu")(y, torch.tensor(noise_var))
    ours, _ = interpolate(seen, var, torch.ones(14, 14, dtype=torch.complex64), PILOTS[2])
    power = 1 + noise_var * line_weights(PILOTS[2]).square().sum(dim=1)
    between = range(2, 12)  # outside, Sionna goes on along the line
    assert torch.allclose((ours * power[:, None])[:, between], theirs[:, 0, 0, 0, 0, between], atol=1e-5)

    speed = 30.0
    cov_t = tdl_time_cov_mat("A", speed, 3.5e9, GRID.symbol_s, 14, device="cpu")
    cov_f = tdl_freq_cov_mat("A", 30e3, 96, 100e-9, device="cpu")
    assert torch.allclose(time_correlation("tdl-a", GRID, 3.5, speed), cov_t, atol=1e-4)
    estimator = LMMSEChannelEstimator(rg, cov_t, cov_f, order="f-t", device="cpu")
    theirs, error = estimator(y, torch.tensor(noise_var))
    modes, powers = frequency_modes("tdl-a", 100.0, 96)
    ours, stated = lmmse(seen, var, time_correlation("tdl-a", GRID, 3.5, speed), PILOTS[2], modes, powers)
    difference = (ours - theirs[:, 0, 0, 0, 0]).abs().square().mean()
    assert difference < 0.1 * stated.mean()  # theirs goes over frequency, then time
    assert stated.mean().item() == pytest.approx(error.mean().item(), rel=0.1)
    torch.set_rng_state(state)


def test_lmmse_is_the_textbook_formula_on_the_whole_grid():
    """R_hp (R_pp + noise_var I)^-1 with the full covariance, time kron frequency."""
    grid = make_grid(120, 2)  # 12 subcarriers
    correlation = time_correlation("tdl-a", grid, 3.5, 100.0)
    modes, powers = frequency_modes("tdl-a", 300.0, 12)
    full = torch.kron(correlation, (modes * powers) @ modes.mH).to(torch.complex128)  # [168, 168]
    at = torch.cat([torch.arange(12) + 12 * t for t in PILOTS[2]])
    seen = torch.view_as_complex(torch.randn(2, 2, 12, 2, generator=torch.Generator().manual_seed(0)))
    weights = full[:, at] @ torch.linalg.inv(full[at][:, at] + 0.1 * torch.eye(24))
    estimate, error = lmmse(seen, torch.full((2, 1, 1), 0.1), correlation, PILOTS[2], modes, powers)
    assert torch.allclose(
        estimate.flatten(1).to(torch.complex128), seen.flatten(1).to(torch.complex128) @ weights.T, atol=1e-4
    )
    expected = (full - weights @ full[at]).diagonal().real
    assert torch.allclose(error.flatten(1).double(), expected.expand(2, -1), atol=1e-4)


def test_line_weights():
    weights = line_weights(PILOTS[3])  # pilots at 2, 7, 11
    assert torch.allclose(weights.sum(dim=1), torch.ones(14))
    assert weights[0].tolist() == weights[2].tolist() == [1, 0, 0] and weights[13].tolist() == [0, 0, 1]
    assert weights[4].tolist() == pytest.approx([0.6, 0.4, 0])
    assert weights[10].tolist() == pytest.approx([0, 0.25, 0.75])


def test_neighbouring_symbols_of_the_latent_fade_independently():
    """Neighbours in frequency fade together; neighbours in the latent do not."""
    received = find_channel("tdl-a")(unit_power(60, 1152), 10.0, seeded(*range(60)), estimation="perfect")
    noise_var = received.noise_var.log()
    noise_var = noise_var - noise_var.mean(dim=1, keepdim=True)
    assert mean_near((noise_var[:, 1:] * noise_var[:, :-1]).mean(dim=1) / noise_var.var(), 0)


def test_without_sionna_one_line_says_what_to_install():
    program = (
        "import sys; sys.modules['sionna'] = None\n"
        "import numpy as np\nfrom semcast.channels.catalogue import find_channel\n"
        "assert find_channel('tdl-a').uses(1152, {}) == 1442\n"
        "x = np.ones((1, 9), np.complex64)\n"
        "try: find_channel('tdl-a')(x, 5.0, [np.random.default_rng(0)])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == f"InputError this needs sionna: {brings('phy')}\n"


def test_the_command_line_refuses_a_channel_without_sionna_before_it_reads_the_frame(cli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sionna", None)
    told = f"semcast: channel tdl-a needs sionna: {brings('phy')}\n"
    assert cli("channel", "gone.sem", "-o", tmp_path / "y.sem", "--snr", 5, "--channel", "tdl-a") == (2, "", told)


def test_a_doppler_shift_beyond_the_model_is_refused():
    with pytest.raises(InputError, match="give a Doppler shift of 4670 Hz; the model holds up to 3000 Hz"):
        find_channel("tdl-a")(unit_power(1, 10), 5.0, seeded(0), speed_mps=50, carrier_ghz=28)


@pytest.mark.parametrize(
    "name, option, uses", [("tdl-a", "pilots=4", 14 * (20 + 2)), ("burst-erasure", "rate=0.5", 192)]
)
def test_channel_and_option_reach_run_frame_and_row(name, option, uses, cli, tiny_model, tmp_path):
    """`run` and the three programs with frames between them make the same picture; the row counts the overhead."""
    Image.fromarray(photo(130, 200)).save(tmp_path / "a.png")
    channel, model = ("--snr", 8, "--channel", name, "--channel-option", option), ("--model", tiny_model)
    code, out, _ = cli(
        "run", tmp_path / "a.png", *channel, *model, "--steps", 2, "--seed", 3, "--out", tmp_path / "run"
    )
    row = json.loads(out)
    assert code == 0 and (row["channel_uses"], row["payload_uses"]) == (uses, 192)
    assert row["bandwidth_ratio"] == uses / (3 * 130 * 200) and row["channel"] == name
    key, value = option.split("=")
    assert row["channel_options"][key] == float(value) and row["channel_options"]["snr_mismatch_db"] == 0
    assert cli("send", tmp_path / "a.png", "-o", tmp_path / "x.sem", *model)[0] == 0
    assert cli("channel", tmp_path / "x.sem", "-o", tmp_path / "y.sem", *channel, "--seed", 3) == (0, "", "")
    assert cli("receive", tmp_path / "y.sem", "-o", tmp_path / "b.png", *model, "--steps", 2, "--seed", 3)[0] == 0
    assert Image.open(tmp_path / "b.png").tobytes() == Image.open(tmp_path / "run" / "a.png").tobytes()


@pytest.mark.slow
def test_plot_draws_every_channel(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("channels", "--plot")[::2] == (0, "")
    assert Image.open(tmp_path / "channels.png").size[1] > 100 * len(CHANNELS)
