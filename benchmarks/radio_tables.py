"""Tables of the radio modem (`modem.json`) and of pictures by radio (`radio.json`), for `tables.py`."""

from collections import defaultdict

from results import average, read


def modem() -> str:
    """What the radio modem takes and costs."""
    record = read("modem.json")
    lines = [
        "| profile | 512x512: seconds | 99 % of the power within | PAPR at 99.99 % | loss on AWGN, 10 dB | beside a genie, "
        "Watterson poor | found and read, 0 dB AWGN | 3 dB Watterson poor | modulate, find ms |",
        "|---" * 9 + "|",
    ]
    pick = lambda part, profile, **wanted: next(
        row
        for row in record[part]
        if row["profile"] == profile and all(row[key] == value for key, value in wanted.items())
    )
    for profile in ("fast", "narrow"):
        shape, speed = pick("shape", profile, uses=1152), pick("speed", profile)
        loss = [pick("loss", profile, path=path, esn0_db=10.0)["loss_db"] for path in ("awgn", "watterson-poor")]
        read_ = [pick("detection", profile, path=path)["read"] for path in ("awgn", "watterson-poor")]
        lines.append(
            f"| {profile} | {shape['seconds']:.2f} | {shape['band99_hz']} Hz | {shape['papr9999_db']:.1f} dB "
            f"| {loss[0]:.1f} dB | {loss[1]:.1f} dB | {read_[0]:.1%} | {read_[1]:.1%} "
            f"| {speed['modulate_ms']:.0f}, {speed['find_ms']:.0f} |"
        )
    alarms = ", ".join(f"{row['alarms']} in {row['seconds']} s of {row['kind']}" for row in record["false_alarms"])
    return "\n".join([*lines, "", f"False alarms: {alarms}. SNR of detection in 3 kHz. `{record['command']}`"])


def radio() -> str:
    """Systems with equal peak power on one channel: LPIPS-Alex, PSNR, and lost pictures."""
    record = read("radio.json")
    groups = defaultdict(lambda: defaultdict(list))
    for row in record["rows"]:
        groups[row["channel"], row["system"]][row["snr3k_db"]].append(row)
    snrs = sorted({row["snr3k_db"] for row in record["rows"]}, reverse=True)
    at = " / ".join(f"{snr:g}" for snr in snrs) + " dB"
    lines = [f"| channel | system | seconds | LPIPS-Alex at {at} | PSNR dB | lost |", "|---" * 6 + "|"]
    for (channel, system), found in groups.items():
        seconds = max(row["seconds"] for rows in found.values() for row in rows)
        cells = [
            " / ".join(average(found[snr], key, digits) for snr in snrs)
            for key, digits in (("lpips", 3), ("psnr_db", 1))
        ]
        lost = " / ".join(f"{sum(row['lost'] for row in found[snr])}" for snr in snrs)
        lines.append(f"| {channel} | {system} | {seconds:.1f} | {' | '.join(cells)} | {lost} |")
    count = len({row["image"] for row in record["rows"]})
    pictures = f"{count} pictures, SNR in 3 kHz of semcast's own signal; all have its peak envelope power."
    return "\n".join([*lines, "", f"{pictures} `{record['command']}`"])


TABLES = (modem, radio)
