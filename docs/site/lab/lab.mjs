/** The page of the lab: six stations, what they show and what they say. What is computed stands in diffusion.mjs. */

import { ask } from "./client.mjs";
import { contrastKept, distance, mean, mix, noisy, normal } from "./diffusion.mjs";
import { load, loadAbout } from "./files.mjs";

const SIDE = 96;
const DRAWN_SIDE = 64;
const TWELVE = 12;
const trouble = document.getElementById("trouble");

// ---- Pictures --------------------------------------------------------------------------------------------------------------

const HOLE = -2;
const grey = (v) => (v === HOLE ? [70, 130, 200] : [(v + 1) * 127.5, (v + 1) * 127.5, (v + 1) * 127.5]);
/** Black over orange to white, for errors from 0 to 0.5: lightness alone tells them apart; blue for what is below 0. */
const heat = (v) => (v < 0 ? [60, 160, 255] : [816 * v, 510 * v, 2040 * v * v - 510 * v]);

/** The pixels next to a mask. */
const outline = (mask) => mask.map((v, i) => (!v && [1, -1, SIDE, -SIDE].some((j) => mask[i + j]) ? 1 : 0));

const toImage = (bytes) => Float32Array.from(bytes, (v) => v / 127.5 - 1);
const percent = (share) => `${Math.round(100 * share)} %`;

// ---- Stations --------------------------------------------------------------------------------------------------------------

/** What a station's code needs of its section: values of controls, pictures, words. */
class Station {
  constructor(id) {
    this.root = document.getElementById(id);
    this.find = (selector) => this.root.querySelector(selector);
    this.control = (name) => this.find(`[name="${name}"]`);
    this.value = (name) => Number(this.control(name).value);
    this.find(".stop")?.addEventListener("click", () => this.running.abort());
  }

  /** The numbers of all controls, by name. */
  values() {
    return Object.fromEntries([...this.root.querySelectorAll("[name]")].map(({ name }) => [name, this.value(name)]));
  }

  /** What is chosen, in words. */
  chosen = (name) => this.control(name).selectedOptions[0].text;

  on(names, act) {
    for (const name of names) this.control(name).addEventListener("input", act);
  }

  /** Paint a square image in [-1, 1] (or errors, by heat) into a canvas, with the top left corner at a place; without an image,
   * clear it. */
  show(name, image, colour = grey, at = [0, 0]) {
    const canvas = this.find(`[data-name="${name}"]`);
    const context = canvas.getContext("2d");
    if (!image) return context.clearRect(0, 0, canvas.width, canvas.height);
    const side = Math.sqrt(image.length);
    const pixels = new ImageData(side, side);
    image.forEach((v, i) => {
      pixels.data.set([...colour(v), 255], 4 * i);
    });
    return context.putImageData(pixels, ...at);
  }

  /** Show images by the names of their canvases, and clear the others. */
  shows(images) {
    for (const { dataset } of this.root.querySelectorAll("canvas")) this.show(dataset.name, images[dataset.name]);
  }

  say(text) {
    this.find("[role=status]").textContent = text;
  }

  log(text) {
    this.find(".log").append(Object.assign(document.createElement("li"), { textContent: text }));
  }

  /** Show whether something runs; the button is not disabled, since it would lose the keyboard's focus. */
  mark(running) {
    this.find(".stop")?.toggleAttribute("hidden", !running);
    this.find(".go")?.setAttribute("aria-disabled", String(running));
  }

  /** Do what is asked for; only one thing at a time, with a way to stop it and a sentence for what went wrong. */
  async run(work) {
    if (this.running) return;
    this.running = new AbortController();
    this.mark(true);
    const begin = performance.now();
    try {
      const said = await work();
      this.say(`${said} ${((performance.now() - begin) / 1000).toFixed(1)} s.`);
      this.find(".take").hidden = false;
    } catch (error) {
      this.say(error.message);
    }
    this.running = null;
    this.mark(false);
  }

  go = (work) => this.find(".go").addEventListener("click", () => this.run(work));

  /** The image x_0 that a job gives: its words of progress are shown, its steps given to paint(state). */
  async ask(job, given, paint = () => {}) {
    const tell = ({ text, state }) => {
      this.say(text);
      if (state) paint(state);
    };
    return (await ask(job, given, tell, this.running.signal)).x_0;
  }
}

function drawStation() {
  const s = new Station("draw");
  let film;
  const add = (state) => {
    const last = film.push(state) - 1;
    const slider = Object.assign(s.control("film"), { max: last, value: last });
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const restart = () => {
    film = [];
    add({ x_t: normal(s.value("seed"), 0, DRAWN_SIDE ** 2) });
  };
  s.on(["film"], () => s.shows(film[s.value("film")]));
  s.on(["seed"], restart);
  restart();
  s.go(async () => {
    restart();
    const given = s.values();
    await s.ask("draw", { ...given, w: 1 }, add);
    return `Drawn with ${given.n} evaluations, in`;
  });
}

function lookStation(pictures) {
  const s = new Station("look");
  let asked = false;
  const noise = () => {
    const x_0 = pictures[s.value("y")];
    s.show("clean", x_0);
    s.show("x_t", noisy(x_0, normal(s.value("seed"), 0, DRAWN_SIDE ** 2), s.value("t")));
  };
  const answer = async () => {
    const given = { ...s.values(), x_0: pictures[s.value("y")] };
    const x_0 = await s.ask("look", given);
    s.show("x_0", x_0);
    const apart = distance(x_0, given.x_0).toFixed(2);
    return `At t = ${given.t} the answer differs from the clean picture by ${apart} on average (black to white is 2); it took`;
  };
  /** The noisy picture at once; the answer as soon as the network is free, to the last thing asked for. */
  s.on(["y", "seed", "t"], async () => {
    noise();
    asked = true;
    while (asked && !s.running) {
      asked = false;
      await s.run(answer);
    }
  });
  noise();
}

function guideStation() {
  const s = new Station("guide");
  s.go(async () => {
    const given = s.values();
    const name = s.chosen("y");
    const drawn = [];
    s.shows({});
    for (let seed = 0; seed < TWELVE; seed++) {
      const at = [(seed % 4) * DRAWN_SIDE, Math.floor(seed / 4) * DRAWN_SIDE];
      const paint = ({ x_0 }) => {
        s.show("grid", x_0, grey, at);
        s.say(`Picture ${seed + 1} of ${TWELVE}`);
      };
      drawn.push(await s.ask("draw", { ...given, seed }, paint));
    }
    const middle = drawn[0].map((_, i) => mean(drawn.map((x) => x[i])));
    const spread = mean(drawn.map((x) => distance(x, middle)));
    const loud = mean(drawn.map((x) => mean(x.map((v) => (Math.abs(v) > 0.98 ? 1 : 0)))));
    s.log(
      `${name}, w = ${given.w}: the twelve differ from their mean by ${spread.toFixed(2)} (black to white is 2); ` +
        `${percent(loud)} of the pixels are full black or white`,
    );
    return "Twelve drawn, in";
  });
}

function fillStation(patients) {
  const s = new Station("fill");
  const m = new Float32Array(SIDE * SIDE);
  const cursor = [SIDE / 2, SIDE / 2];
  const hole = m.map(() => HOLE);
  let fills;
  const truth = () => patients[s.value("case")].twin;
  /** A picture in the hole, and around it what is known. */
  const inHole = (image) => truth().map((v, i) => (m[i] ? v : image[i]));
  const restart = () => {
    fills = [];
    s.find(".go").textContent = "Fill it";
    s.shows({ known: inHole(hole) });
  };
  const wipe = (x, y, radius = 9) => {
    m.forEach((_, i) => {
      if (Math.hypot((i % SIDE) - x, Math.floor(i / SIDE) - y) < radius) m[i] = 0;
    });
    restart();
  };
  const whole = () => {
    m.fill(1);
    restart();
  };
  const canvas = s.find(".paint");
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    wipe(((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    point(event);
  });
  canvas.addEventListener("pointermove", (event) => event.buttons && point(event));
  const moves = { ArrowLeft: [-6, 0], ArrowRight: [6, 0], ArrowUp: [0, -6], ArrowDown: [0, 6], " ": [0, 0] };
  canvas.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    move.forEach((by, axis) => {
      cursor[axis] = Math.min(Math.max(cursor[axis] + by, 0), SIDE);
    });
    if (event.key === " ") wipe(...cursor);
    s.say(`At column ${cursor[0]}, row ${cursor[1]} of ${SIDE}; space wipes.`);
  });
  s.find(".wipe").addEventListener("click", () => wipe(SIDE / 2, SIDE / 2));
  s.find(".whole").addEventListener("click", whole);
  s.on(["case"], whole);
  whole();
  wipe(60, 42);
  s.go(async () => {
    const x = truth();
    const wiped = m.map((v) => 1 - v);
    if (!wiped.some(Boolean)) throw new Error("There is no hole yet: wipe something out first.");
    const given = { x, m, seed: 1 + fills.length, n: s.value("n") };
    const before = fills.at(-1);
    const last = inHole(await s.ask("fill", given, ({ x_0 }) => s.show("filled", inHole(x_0))));
    fills.push(last);
    s.show("truth", x);
    s.show("before", before);
    s.find(".go").textContent = "Fill it again";
    const apart = before ? `, from the fill before by ${distance(last, before, wiped).toFixed(2)}` : "";
    return `In the hole this fill differs from what was there by ${distance(last, x, wiped).toFixed(2)}${apart} (black to white is 2);`;
  });
}

function healStation(patients) {
  const s = new Station("heal");
  const restart = () => s.shows(patients[s.value("case")]);
  s.on(["case"], restart);
  restart();
  s.go(async () => {
    const { patient, twin, mask, change } = patients[s.value("case")];
    const [given, name] = [{ ...s.values(), seed: 1 }, s.chosen("case")];
    const healed = await s.ask("heal", { ...given, x: patient }, ({ x_0 }) => s.show("healed", x_0));
    const healedTwin = await s.ask("heal", { ...given, x: twin });
    s.show("error", mix(1, healed, -1, twin).map(Math.abs), heat);
    const rest = twin.map((v, i) => (v > -0.9 && !mask[i] ? 1 : 0));
    const kept = percent(contrastKept(healed, healedTwin, change, mask));
    const elsewhere = distance(healed, twin, rest).toFixed(2);
    s.log(
      `${name}, t₀ = ${given.t_0}: ${kept} of the lesion's contrast left; the rest of the brain differs from the twin by ${elsewhere}`,
    );
    return "Done, and the same for the twin, in";
  });
}

function scanStation(lab, patients) {
  const s = new Station("scan");
  const scanner = () => ({ lines: lab.lines[s.value("R")], sigma_y: lab.sigma_y });
  const error = (image, { patient, mask }) => {
    const edge = outline(mask);
    s.show(
      "error",
      mix(1, image, -1, patient).map((v, i) => (edge[i] ? -1 : Math.abs(v))),
      heat,
    );
  };
  /** The scan of a head, and what zeros for the missing lines give: at once. */
  const scan = async () => {
    const chosen = patients[s.value("case")];
    s.shows({ truth: chosen.patient });
    const scanned = await ask("scan", { x: chosen.patient, ...scanner() });
    s.show("zero", scanned.zeroFilled);
    error(scanned.zeroFilled, chosen);
    return scanned;
  };
  s.on(["case", "R"], () => scan().catch((problem) => s.say(problem.message)));
  s.show("truth", patients[0].patient);
  s.go(async () => {
    const { patient, twin, mask, change } = patients[s.value("case")];
    const [given, name] = [{ ...s.values(), ...scanner(), seed: 1 }, s.chosen("case")];
    const scans = [await scan(), await ask("scan", { x: twin, ...scanner() })];
    const found = await s.ask("reconstruct", { ...given, y: scans[0].y }, ({ x_0 }) => s.show("found", x_0));
    const foundTwin = await s.ask("reconstruct", { ...given, y: scans[1].y });
    error(found, { patient, mask });
    const judged = (image, ofTwin) => [
      percent(contrastKept(image, ofTwin, change, mask)),
      distance(image, patient).toFixed(2),
    ];
    const [ours, zeros] = [judged(found, foundTwin), judged(...scans.map(({ zeroFilled }) => zeroFilled))];
    s.log(
      `${name}, one line in ${given.R}: ${ours[0]} of the lesion's contrast left, with zeros ${zeros[0]}; ` +
        `error ${ours[1]}, with zeros ${zeros[1]}`,
    );
    return "Reconstructed, and the same for the twin, in";
  });
}

// ---- Start -----------------------------------------------------------------------------------------------------------------

/** Equal pieces of a file of bytes. */
const pieces = (bytes, size) =>
  Array.from({ length: bytes.length / size }, (_, k) => bytes.subarray(k * size, (k + 1) * size));

/** Load every file of the lab, so that the service worker keeps it. */
async function keepAll({ files }) {
  const said = document.getElementById("kept");
  const names = Object.keys(files);
  const total = Math.round(Object.values(files).reduce((sum, size) => sum + size, 0) / 1e6);
  try {
    for (const [k, name] of names.entries()) {
      said.textContent = `${k} of ${names.length} files, ${total} MB in all`;
      await load(name);
    }
    said.textContent = navigator.serviceWorker?.controller
      ? `Kept (${total} MB): this page now opens without a network.`
      : "This browser keeps nothing here: that needs an address with https.";
  } catch (error) {
    said.textContent = error.message;
  }
}

async function start() {
  if (!globalThis.WebAssembly || !globalThis.DecompressionStream) {
    throw new Error(
      "This browser lacks WebAssembly, in which the lab computes: use a Firefox, Chrome, Edge or Safari from 2023 on, and switch a lockdown mode off.",
    );
  }
  navigator.serviceWorker?.register("sw.js").catch(() => {}); // without it the lab works, but not offline
  const [lab, drawn, cases] = await Promise.all([loadAbout(), load("drawn.bin"), load("patients.bin")]);
  const patients = pieces(cases, 3 * SIDE * SIDE).map((bytes) => {
    const parts = pieces(bytes, SIDE * SIDE);
    const [patient, twin] = parts.map(toImage);
    return { patient, twin, mask: Float32Array.from(parts[2]), change: mix(1, patient, -1, twin) };
  });
  addEventListener("input", ({ target }) => {
    const value = target.parentElement.querySelector(".value");
    if (value) value.textContent = Number(target.value).toFixed((target.step.split(".")[1] ?? "").length);
  });
  addEventListener("processor", ({ detail }) => {
    document.getElementById("processor").textContent = detail;
  });
  drawStation();
  lookStation(pieces(drawn, DRAWN_SIDE ** 2).map(toImage));
  guideStation();
  fillStation(patients);
  healStation(patients);
  scanStation(lab, patients);
  document.getElementById("keep").addEventListener("click", () => keepAll(lab));
  trouble.hidden = true;
}

start().catch((error) => {
  trouble.textContent = error.message;
});
