// Receives a frame in JavaScript: what a browser or a telephone would do, here under Node with onnxruntime-web.
//
//   semcast models export small --out onnx
//   semcast send photo.jpg -o a.sem && semcast channel a.sem -o b.sem --snr 10
//   npm install && node receive.mjs onnx b.sem picture.ppm [noise.f32]
//
// It reads analog frames of models that predict x0, and samples in one step, which is the default of `small`. The
// diffusion noise is random, unless a file gives it as float32 numbers: a(1) = 0.01 of it enters the picture.
import { readFileSync, writeFileSync } from "node:fs";
import * as ort from "onnxruntime-web";

const [folder, framePath, outPath, noisePath] = process.argv.slice(2);
ort.env.wasm.numThreads = 1;

// The frame, PROTOCOL.md, "The frame file", and the header in it, "Side information".
const bytes = readFileSync(framePath);
const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
const header = BigInt("0x0" + bytes.toString("hex", 8, 20)); // 96 bits, the highest first
const bits = (from, count) => Number(BigInt.asUintN(count, header >> BigInt(96 - from - count)));
if (bytes.toString("latin1", 0, 4) !== "SEMC" || data.getUint8(4) !== 4 || data.getUint8(5) !== 1 || bits(53, 5) !== 0)
  throw new Error(`${framePath} is no received analog frame of version 4`);
const [height, width, factor] = [bits(20, 13) + 1, bits(33, 13) + 1, (bits(46, 7) + 64) / 128];
const gain = half(bits(58, 15));
const [k, gains, noises] = [20, 24, 28].map((offset) => data.getUint32(offset, true));
const floats = (offset, count) => Float32Array.from({ length: count }, (_, i) => data.getFloat32(40 + offset + 4 * i, true));
const [y, h, noiseVar] = [floats(0, 2 * k), floats(8 * k, 2 * gains), floats(8 * (k + gains), noises)];
const [high, wide] = [height, width].map((side) => 64 * Math.ceil(side / 64)); // what the networks work on
const [hz, wz] = [high, wide].map((side) => Math.max(32, 32 * Math.floor((factor * side) / 32)) / 32);

// MMSE estimate of Z: conj(h) y / (|h|^2 + noise), and how noisy each of its numbers is.
const z = new Float32Array(2 * k), level = new Float32Array(2 * k);
for (let i = 0; i < k; i++) {
  const j = gains > 1 ? i : 0, n = noiseVar[noises > 1 ? i : 0];
  const [a, b, re, im] = [h[2 * j], h[2 * j + 1], y[2 * i], y[2 * i + 1]];
  const power = a * a + b * b + n;
  z[i] = n === Infinity ? 0 : (a * re + b * im) / power / gain;
  z[k + i] = n === Infinity ? 0 : (a * im - b * re) / power / gain;
  level[i] = level[k + i] = n === Infinity ? 1 : n / power;
}
const mean = level.reduce((sum, value) => sum + value, 0) / level.length;

const [h4, w4] = [high / 4, wide / 4];
const noise = noisePath ? new Float32Array(readFileSync(noisePath).buffer.slice(0)) : Float32Array.from({ length: 4 * h4 * w4 }, gaussian);
const float = (array, ...dims) => new ort.Tensor("float32", array, dims);
const mapped = await run("stage_b_map", {
  z: float(z, 1, 16, hz, wz),
  noise: float(level.map((value) => value - mean), 1, 16, hz, wz),
  size: new ort.Tensor("int64", BigInt64Array.from([BigInt(h4 / 2), BigInt(w4 / 2)]), [2]),
});
const latent = await run("stage_b_step", {
  x: float(noise.map((value) => 0.01 * value), 1, 4, h4, w4),
  r: float(Float32Array.of(0.99358), 1), // the network's time of t = 1
  mapped,
  sca: float(Float32Array.of(mean), 1),
});
const image = (await run("stage_a_decoder", { latent })).data;

const pixels = Buffer.alloc(3 * height * width);
for (let row = 0; row < height; row++)
  for (let column = 0; column < width; column++)
    for (let c = 0; c < 3; c++) {
      const value = Math.min(1, Math.max(0, image[(c * high + row) * wide + column]));
      pixels[3 * (row * width + column) + c] = Math.round(255 * value);
    }
writeFileSync(outPath, Buffer.concat([Buffer.from(`P6 ${width} ${height} 255\n`), pixels]));

async function run(name, inputs) {
  const session = await ort.InferenceSession.create(readFileSync(`${folder}/${name}.onnx`));
  const outputs = await session.run(inputs);
  return outputs[session.outputNames[0]];
}

function half(bits) {
  const exponent = bits >> 10, fraction = bits & 1023; // there is no sign
  return exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
}

function gaussian() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}
