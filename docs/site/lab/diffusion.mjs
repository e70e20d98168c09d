/**
 * The mathematics of the lab, with the letters of the course: x_t = alpha_t x_0 + sigma_t eps, t from 0 (clean) to 1 (noise),
 * lambda_t = log(alpha_t^2 / sigma_t^2), D(x_t, t) the denoised image, w the guidance scale, A an operator, y = A x_0 + noise.
 *
 * Images are Float32Array, row by row. Each function is the twin of the one of that name in course_lib (schedules, samplers,
 * guidance, inverse, operators), and tests/site/test_web_lab.py holds the two together.
 */

// ---- Schedule: the cosine one, which the networks were trained with ----------------------------------------------------

export const alpha = (t) => Math.max(Math.cos((t * Math.PI) / 2), 0);
export const sigma = (t) => Math.sin((t * Math.PI) / 2);
export const logSnr = (t) => 2 * Math.log(alpha(t) / sigma(t));
/** The t at which lambda_t has this value. */
export const timeOf = (lambda) => (2 / Math.PI) * Math.atan(Math.exp(-lambda / 2));

const line = (from, to, n) => Array.from({ length: n }, (_, k) => (n > 1 ? from + ((to - from) * k) / (n - 1) : from));

/** n + 1 times from t_0 to 0, evenly spaced. */
export const uniformTimes = (n, t_0 = 1) => line(t_0, 0, n + 1);
/** n times evenly spaced in lambda_t, then 0: the grid of DPM-Solver. */
export const logSnrTimes = (n, low = -10, high = 10) => [...line(low, high, n).map(timeOf), 0];

// ---- Arrays ------------------------------------------------------------------------------------------------------------

/** a x + b y, number by number. */
export const mix = (a, x, b, y) => x.map((v, i) => a * v + b * y[i]);
export const mean = (x) => x.reduce((sum, v) => sum + v, 0) / x.length;
/** Mean of |x - y| where mask is 1; without a mask, everywhere. */
export function distance(x, y, mask = x.map(() => 1)) {
  return x.reduce((sum, v, i) => sum + mask[i] * Math.abs(v - y[i]), 0) / mask.reduce((sum, v) => sum + v, 0);
}
/** The forward process: alpha_t x_0 + sigma_t eps. */
export const noisy = (x_0, eps, t) => mix(alpha(t), x_0, sigma(t), eps);
/** How much of a lesion's contrast is left: <with - without, change> / <change, change> in the mask, of two images made alike
 * from a subject with and without the lesion; change is that of the true images. */
export function contrastKept(withLesion, without, change, mask) {
  const along = (x) => x.reduce((sum, v, i) => sum + mask[i] * v * change[i], 0);
  return along(mix(1, withLesion, -1, without)) / along(change);
}

// ---- Noise: Philox4x32-10 (Salmon et al., SC 2011), then Box-Muller; tools/web_lab.py has the same ----------------------

/** The high half of the product of two 32-bit numbers; Math.imul gives the low one. Both terms are exact in a double. */
const high = (a, b) => Math.floor((a * (b >>> 16) + Math.floor((a * (b & 0xffff)) / 65536)) / 65536);

/** Ten rounds of Philox4x32: four random 32-bit numbers of a counter of four and a key of two. */
export function philox(counter, key) {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const [high0, high2] = [high(0xd2511f53, c0), high(0xcd9e8d57, c2)];
    const [low0, low2] = [Math.imul(0xd2511f53, c0) >>> 0, Math.imul(0xcd9e8d57, c2) >>> 0];
    [c0, c1, c2, c3] = [(high2 ^ c1 ^ k0) >>> 0, low2, (high0 ^ c3 ^ k1) >>> 0, low0];
    [k0, k1] = [(k0 + 0x9e3779b9) >>> 0, (k1 + 0xbb67ae85) >>> 0];
  }
  return [c0, c1, c2, c3];
}

/** n numbers of standard normal noise, the same for the same seed and stream (whole numbers from 0 on). */
export function normal(seed, stream, n) {
  const z = new Float32Array(n);
  for (let i = 0; i < n; i += 4) {
    const u = philox([i / 4, 0, 0, 0], [seed, stream]).map((word) => (word + 0.5) / 2 ** 32);
    for (const k of [0, 2]) {
      const radius = Math.sqrt(-2 * Math.log(u[k]));
      z[i + k] = radius * Math.cos(2 * Math.PI * u[k + 1]);
      z[i + k + 1] = radius * Math.sin(2 * Math.PI * u[k + 1]);
    }
  }
  return z;
}

// ---- Denoisers: async functions D(x_t, t) -> x_0 ------------------------------------------------------------------------

/** The denoiser of a network that predicts v = alpha_t eps - sigma_t x_0. net(x_t, t, y) -> v. */
export const networkDenoiser = (net, y) => async (x_t, t) => mix(alpha(t), x_t, -sigma(t), await net(x_t, t, y));

export const clipped = (denoiser) => async (x_t, t) =>
  (await denoiser(x_t, t)).map((v) => Math.min(Math.max(v, -1), 1));

/** Classifier-free guidance: D_none + w (D_y - D_none); one evaluation at w = 0 and 1, else two. */
export function classifierFree(D_y, D_none, w) {
  if (w === 1) return D_y;
  if (w === 0) return D_none;
  return async (x_t, t) => mix(w, await D_y(x_t, t), 1 - w, await D_none(x_t, t));
}

/**
 * DiffPIR's data step: argmin_x |y - A x|^2 + rho |x - D|^2 with rho = weight sigma_y^2 alpha_t^2 / sigma_t^2, written as a
 * change of D. A has apply(x) and fit(rest, rho) = (A^T A + rho I)^-1 A^T rest.
 */
export const diffpir = (denoiser, A, y, sigma_y, weight) => async (x_t, t) => {
  const D = await denoiser(x_t, t);
  const rho = (weight * sigma_y ** 2 * alpha(t) ** 2) / sigma(t) ** 2;
  return mix(1, D, 1, A.fit(mix(1, y, -1, A.apply(D)), rho));
};

// ---- Steps from t to s < t: (denoiser, x_t, t, s, previous, z) -> {x_s, x_0}; z() draws the noise of this step -----------

const epsOf = (x_t, x_0, t) => mix(1 / sigma(t), x_t, -alpha(t) / sigma(t), x_0);

/** x_s = alpha_s D + sigma_s eps. */
export async function ddimStep(denoiser, x_t, t, s) {
  const x_0 = await denoiser(x_t, t);
  return { x_s: mix(alpha(s), x_0, sigma(s), epsOf(x_t, x_0, t)), x_0 };
}

/** DPM-Solver++(2M): D is extrapolated in lambda from the step before. */
export async function dpmpp2mStep(denoiser, x_t, t, s, previous) {
  const x_0 = await denoiser(x_t, t);
  let D = x_0;
  if (previous && sigma(s) > 0) {
    const q = (logSnr(t) - logSnr(previous.t)) / (logSnr(s) - logSnr(t));
    D = mix(1 + 1 / (2 * q), x_0, -1 / (2 * q), previous.x_0);
  }
  const expMinusH = (alpha(t) * sigma(s)) / (alpha(s) * sigma(t));
  return { x_s: mix(sigma(s) / sigma(t), x_t, alpha(s) * (1 - expMinusH), D), x_0 };
}

/** Ancestral sampling: x_s is drawn from q(x_s | x_t, x_0 = D). */
export async function ddpmStep(denoiser, x_t, t, s, _previous, z) {
  const x_0 = await denoiser(x_t, t);
  const alpha_ts = alpha(t) / alpha(s);
  const [var_t, var_s] = [sigma(t) ** 2, sigma(s) ** 2];
  const large = var_t - alpha_ts ** 2 * var_s;
  const x_s = mix((alpha_ts * var_s) / var_t, x_t, (alpha(s) * large) / var_t, x_0);
  return { x_s: sigma(s) > 0 ? mix(1, x_s, Math.sqrt((large * var_s) / var_t), z()) : x_s, x_0 };
}

/** DiffPIR's way to s with all noise drawn anew (zeta = 1): x_s = alpha_s D + sigma_s z. */
export async function diffpirStep(denoiser, x_t, t, s, _previous, z) {
  const x_0 = await denoiser(x_t, t);
  return { x_s: sigma(s) > 0 ? mix(alpha(s), x_0, sigma(s), z()) : mix(alpha(s), x_0, 0, x_0), x_0 };
}

/** The sampling loop: yields {t, x_t, x_0} after each step. draw(k) is the noise of step k, from 1 on. */
export async function* trajectory(denoiser, x_t, times, step, draw) {
  let previous = null;
  for (let k = 1; k < times.length; k++) {
    const [t, s] = [times[k - 1], times[k]];
    const { x_s, x_0 } = await step(denoiser, x_t, t, s, previous, () => draw(k));
    previous = { t, x_0 };
    x_t = x_s;
    yield { t: s, x_t, x_0 };
  }
}

// ---- Operators -----------------------------------------------------------------------------------------------------------

/** Known pixels: A x = m x, with m of 0 and 1. */
export class Mask {
  constructor(m) {
    this.m = m;
  }
  apply = (x) => x.map((v, i) => this.m[i] * v);
  fit = (rest, rho) => rest.map((v, i) => (this.m[i] * v) / (1 + rho));
}

/** Lines of k-space, columns: A x = the centred, orthonormal Fourier transform of x, on the measured lines (1, else 0), which
 * are their own mirror image. A complex picture is one array: all real parts, then all imaginary parts. */
export class KSpace {
  constructor(lines) {
    const n = lines.length;
    const turns = (i) => ((Math.floor(i / n) - n / 2) * ((i % n) - n / 2)) % n;
    const scaled = (f) =>
      Float64Array.from({ length: n * n }, (_, i) => f((-2 * Math.PI * turns(i)) / n) / Math.sqrt(n));
    [this.lines, this.n, this.cos, this.sin] = [lines, n, scaled(Math.cos), scaled(Math.sin)];
  }

  /** The one-dimensional transform of each row, then the two axes swapped; sign -1 is the inverse. */
  rows(z, sign) {
    const { n, cos, sin } = this;
    const [size, out] = [n * n, new Float32Array(2 * n * n)];
    for (let row = 0; row < n; row++) {
      for (let k = 0; k < n; k++) {
        let re = 0;
        let im = 0;
        for (let j = 0; j < n; j++) {
          const c = cos[k * n + j];
          const s = sign * sin[k * n + j];
          re += z[row * n + j] * c - z[size + row * n + j] * s;
          im += z[row * n + j] * s + z[size + row * n + j] * c;
        }
        out[k * n + row] = re;
        out[size + k * n + row] = im;
      }
    }
    return out;
  }

  transform = (z, sign) => this.rows(this.rows(z, sign), sign);
  onLines = (z) => z.map((v, i) => v * this.lines[i % this.n]);
  toKspace(x) {
    const z = new Float32Array(2 * x.length);
    z.set(x);
    return this.transform(z, 1);
  }
  apply = (x) => this.onLines(this.toKspace(x));
  adjoint = (y) => this.transform(this.onLines(y), -1).slice(0, this.n * this.n);
  fit = (rest, rho) => this.adjoint(rest).map((v) => v / (1 + rho));
}
