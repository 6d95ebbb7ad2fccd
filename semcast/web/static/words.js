// Figures in words.

const count = (n) => n.toLocaleString("en", { maximumFractionDigits: 0 }).replace(/,/g, "\u202f");

export const seconds = (s) => (s < 10 ? `${s.toFixed(1)} s` : `${Math.round(s)} s`);

const signed = (value, digits) => value.toFixed(digits).replace("-", "\u2212");

const percent = (share) => `${(100 * share).toPrecision(2)} %`;

export function sentence(f) {
  const size = `${f.width}\u00d7${f.height} pixels`;
  return `${count(f.channel_uses)} symbols carried these ${size}: ${percent(f.element_ratio)} of their numbers. ` +
    `A voice radio sends them in ${seconds(f.seconds)}, with ${f.side_bits} bits of side information.`;
}

export function rows(f) {
  const found = [["Channel uses", count(f.channel_uses)], ["On the air", seconds(f.seconds)], ["Side bits charged", `${f.side_bits}`]];
  if (f.psnr_db != null) found.push(["PSNR", `${f.psnr_db.toFixed(1)} dB`]);
  if (f.ms_ssim != null) found.push(["MS-SSIM", f.ms_ssim.toFixed(3)]);
  if (f.decode_ms != null) found.push(["Encoded, received", `${(f.encode_ms / 1000).toFixed(1)} s, ${(f.decode_ms / 1000).toFixed(1)} s`]);
  return found;
}

export function rival(result, f) {
  if (result.name === "television") {
    return `In these ${seconds(f.seconds)} slow-scan television (${result.title}, 36 s a picture) has shown ` +
      `${result.size} of its 240 lines, here without any noise.`;
  }
  return result.size
    ? `${result.title} in ${count(result.size)} bytes: what an ideal code carries in as many symbols over white noise.`
    : `${result.title} fits nothing into so few bits; its mean colour is shown.`;
}

export function report(t, count) {
  return `A ${t.profile} transmission was heard at ${t.start_s.toFixed(1)} s: ${signed(t.snr_db, 1)} dB above the noise, ` +
    `${Math.abs(t.offset_hz).toFixed(0)} Hz off frequency.${count > 1 ? ` There are ${count} in all.` : ""}`;
}

export function reportRows(t) {
  return [
    ["Es/N0", `${signed(t.snr_db, 1)} dB`],
    ["SNR in 3 kHz", `${signed(t.snr3k_db, 1)} dB`],
    ["Off frequency", `${signed(t.offset_hz, 1)} Hz`],
    ["Clock", `${signed(t.clock_ppm, 0)} ppm`],
    ["Delay spread", `${t.delay_spread_ms.toFixed(1)} ms`],
    ["Doppler spread", `${t.doppler_spread_hz.toFixed(1)} Hz`],
    ["Level", `${signed(t.level_dbfs, 0)} dBFS`],
  ];
}

/** Fill a <dl>. */
export function fill(list, found) {
  list.replaceChildren(...found.map(([name, value]) => {
    const row = document.createElement("div");
    const term = document.createElement("dt");
    const told = document.createElement("dd");
    term.textContent = name;
    told.textContent = value;
    row.append(term, told);
    return row;
  }));
}
