/** The page of the lab: six stations, what they show and what they say. What is computed stands in diffusion.mjs. */

import { ask, nextId, stop } from "./client.mjs";
import { contrastKept, distance, mean, mix, noisy, normal } from "./diffusion.mjs";

const SIDE = 96;
const DRAWN_SIDE = 64;
const FAMILY_NAMES = { hyper: "bright", hypo: "dark", mass: "a mass that pushes", tiny: "tiny, bright" };
const TWELVE = 12;
const trouble = document.getElementById("trouble");

// ---- Pictures --------------------------------------------------------------------------------------------------------------

const HOLE = -2;
const grey = (v) => (v === HOLE ? [70, 130, 200] : [(v + 1) * 127.5, (v + 1) * 127.5, (v + 1) * 127.5]);
/** Black over orange to white, for errors from 0 to 0.5: lightness alone tells them apart; blue for what is below 0. */
const heat = (v) => (v < 0 ? [60, 160, 255] : [816 * v, 510 * v, 2040 * v * v - 510 * v]);

/** Paint an image in [-1, 1] (or errors, by heat) into a canvas, with the top left corner at a place. */
function show(canvas, image, { side = SIDE, colour = grey, at = [0, 0] } = {}) {
  const pixels = new ImageData(side, image.length / side);
  image.forEach((v, i) => {
    pixels.data.set([...colour(v), 255], 4 * i);
  });
  if (at[0] === 0 && at[1] === 0 && canvas.dataset.name !== "grid") {
    [canvas.width, canvas.height] = [side, image.length / side];
  }
  canvas.getContext("2d").putImageData(pixels, ...at);
}

const blank = (canvas) => canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);

/** The pixels next to a mask. */
const outline = (mask) => mask.map((v, i) => (!v && [1, -1, SIDE, -SIDE].some((j) => mask[i + j]) ? 1 : 0));

const toImage = (bytes) => Float32Array.from(bytes, (v) => v / 127.5 - 1);

// ---- Stations --------------------------------------------------------------------------------------------------------------

/** What a station's code needs of its section: values of controls, pictures, words. */
class Station {
  constructor(id) {
    this.root = document.getElementById(id);
    this.find = (selector) => this.root.querySelector(selector);
    this.control = (name) => this.find(`[name="${name}"]`);
    this.value = (name) => Number(this.control(name).value);
    this.canvas = (name) => this.find(`[data-name="${name}"]`);
    this.status = this.find("[role=status]");
    for (const canvas of this.root.querySelectorAll("canvas")) {
      [canvas.width, canvas.height] = [SIDE, SIDE];
      canvas.setAttribute("role", "img");
      canvas.ariaLabel = canvas.nextElementSibling.textContent;
    }
    for (const input of this.root.querySelectorAll("input[type=range]")) {
      const digits = (input.step.split(".")[1] ?? "").length;
      input.addEventListener("input", () => {
        input.parentElement.querySelector(".value").textContent = Number(input.value).toFixed(digits);
      });
    }
    this.find(".stop")?.addEventListener("click", () => stop(this.running));
  }

  /** Options of a select: its numbers from 0 on, by name. */
  choose(name, names, first = 0) {
    this.control(name).replaceChildren(...names.map((text, k) => new Option(text, k, k === first, k === first)));
  }

  /** Do what a button asks for; only one thing at a time, with a way to stop it and a sentence for what went wrong. */
  async run(work) {
    if (this.running) return;
    const button = this.find(".go");
    const begin = performance.now();
    this.running = nextId();
    this.find(".stop").hidden = false;
    button.ariaDisabled = "true"; // not disabled: it would lose the keyboard's focus
    try {
      const said = await work(this.running);
      const seconds = ((performance.now() - begin) / 1000).toFixed(1);
      this.say(said ? `${said} ${seconds} s.` : "Stopped.");
      this.find(".take").hidden = !said && this.find(".take").hidden;
    } catch (error) {
      this.say(error.message);
    }
    this.running = 0;
    this.find(".stop").hidden = true;
    button.ariaDisabled = null;
  }

  go = (work) => this.find(".go").addEventListener("click", () => this.run(work));

  /** Ask for a job: its words of progress are shown, its steps given to paint(state). */
  ask(job, given, paint = () => {}) {
    const tell = ({ text, state }) => {
      this.say(text);
      if (state) paint(state);
    };
    return ask(job, given, tell);
  }

  say(text) {
    this.status.textContent = text;
  }

  log(text) {
    this.find(".log").append(Object.assign(document.createElement("li"), { textContent: text }));
  }
}

function drawStation(lab) {
  const s = new Station("draw");
  let film = [];
  s.choose("y", lab.networks.mednist.classes, 4);
  const side = { side: DRAWN_SIDE };
  const frame = (k) => {
    const { x_t, x_0 } = film[k];
    show(s.canvas("x_t"), x_t, side);
    if (x_0) show(s.canvas("x_0"), x_0, side);
    else blank(s.canvas("x_0"));
  };
  const restart = () => {
    film = [{ x_t: normal(s.value("seed"), 0, DRAWN_SIDE ** 2) }];
    Object.assign(s.control("film"), { max: 0, value: 0 }).dispatchEvent(new Event("input"));
  };
  const add = (state) => {
    film.push(state);
    Object.assign(s.control("film"), { max: film.length - 1, value: film.length - 1 }).dispatchEvent(
      new Event("input"),
    );
  };
  s.control("film").addEventListener("input", () => frame(s.value("film")));
  s.control("seed").addEventListener("change", restart);
  restart();
  s.go(async (id) => {
    restart();
    const given = { id, seed: s.value("seed"), y: s.value("y"), w: 1, n: s.value("n") };
    const drawn = await s.ask("draw", given, add);
    return drawn && `Drawn with ${given.n} evaluations, in`;
  });
}

function lookStation(lab, pictures) {
  const s = new Station("look");
  let busy = false;
  let asked = false;
  s.choose("y", lab.networks.mednist.classes, 4);
  const clean = () => pictures[s.value("y")];
  const noise = () => {
    show(s.canvas("clean"), clean(), { side: DRAWN_SIDE });
    const x_t = noisy(clean(), normal(s.value("seed"), 0, DRAWN_SIDE ** 2), s.value("t"));
    show(s.canvas("x_t"), x_t, { side: DRAWN_SIDE });
  };
  /** The noisy picture at once; the answer as soon as the network is free, to the last thing asked for. */
  const look = async () => {
    noise();
    asked = true;
    if (busy) return;
    busy = true;
    while (asked) {
      asked = false;
      const [x_0, t] = [clean(), s.value("t")];
      try {
        const answer = await s.ask("look", { x_0, t, seed: s.value("seed") });
        show(s.canvas("x_0"), answer.x_0, { side: DRAWN_SIDE });
        s.status.textContent = `At t = ${t}, |D − x₀| is ${distance(answer.x_0, x_0).toFixed(2)} on average (−1 black, 1 white).`;
        s.find(".take").hidden = false;
      } catch (error) {
        s.say(error.message);
      }
    }
    busy = false;
  };
  for (const name of ["y", "seed", "t"]) s.control(name).addEventListener("input", look);
  noise();
  s.status.textContent = "Move the slider.";
}

function guideStation(lab) {
  const s = new Station("guide");
  const grid = s.canvas("grid");
  [grid.width, grid.height] = [4 * DRAWN_SIDE, 3 * DRAWN_SIDE];
  s.choose("y", lab.networks.mednist.classes, 4);
  s.go(async (id) => {
    const [w, n, y] = ["w", "n", "y"].map(s.value);
    const drawn = [];
    blank(grid);
    for (let seed = 0; seed < TWELVE; seed++) {
      const at = [(seed % 4) * DRAWN_SIDE, Math.floor(seed / 4) * DRAWN_SIDE];
      const paint = ({ x_0 }) => {
        show(grid, x_0, { side: DRAWN_SIDE, at });
        s.status.textContent = `Picture ${seed + 1} of ${TWELVE}`;
      };
      const done = await s.ask("draw", { id, seed, y, w, n }, paint);
      if (!done) return null;
      show(grid, done.x_0, { side: DRAWN_SIDE, at });
      drawn.push(done.x_0);
    }
    const middle = drawn[0].map((_, i) => mean(drawn.map((x) => x[i])));
    const spread = mean(drawn.map((x) => distance(x, middle)));
    const loud = mean(drawn.map((x) => mean(x.map((v) => (Math.abs(v) > 0.98 ? 1 : 0)))));
    const name = lab.networks.mednist.classes[y];
    s.log(`${name}, w = ${w}: spread ${spread.toFixed(2)}, pixels at full black or white ${Math.round(100 * loud)} %`);
    return "Twelve drawn, in";
  });
}

function fillStation(patients) {
  const s = new Station("fill");
  const [canvas, radius] = [s.canvas("known"), 9];
  const m = new Float32Array(SIDE * SIDE);
  const cursor = [SIDE / 2, SIDE / 2];
  let fills = [];
  s.choose(
    "case",
    patients.map((_, k) => `Head ${k + 1}`),
  );
  const truth = () => patients[s.value("case")].healthy;
  const paint = () =>
    show(
      canvas,
      truth().map((v, i) => (m[i] ? v : HOLE)),
    );
  const wipe = (x, y) => {
    m.forEach((_, i) => {
      if (Math.hypot((i % SIDE) - x, Math.floor(i / SIDE) - y) < radius) m[i] = 0;
    });
    fills = [];
    paint();
  };
  const whole = () => {
    m.fill(1);
    fills = [];
    for (const name of ["filled", "before", "truth"]) blank(s.canvas(name));
    paint();
  };
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
    s.status.textContent = `At column ${cursor[0]}, row ${cursor[1]} of ${SIDE}; space wipes.`;
  });
  s.find(".wipe").addEventListener("click", () => wipe(SIDE / 2, SIDE / 2));
  s.find(".whole").addEventListener("click", whole);
  s.control("case").addEventListener("change", whole);
  whole();
  wipe(60, 42);
  s.go(async (id) => {
    const x = truth();
    const hole = m.map((v) => 1 - v);
    if (!hole.some(Boolean)) throw new Error("There is no hole yet: wipe something out first.");
    const given = { id, x, m: m.slice(), seed: 1 + fills.length, n: s.value("n") };
    const seen = (image) => image.map((v, i) => (m[i] ? x[i] : v));
    const done = await s.ask("fill", given, ({ x_0 }) => show(s.canvas("filled"), seen(x_0)));
    if (!done) return null;
    fills.push(seen(done.x_0));
    const [last, before] = [fills.at(-1), fills.at(-2)];
    show(s.canvas("filled"), last);
    show(s.canvas("truth"), x);
    if (before) show(s.canvas("before"), before);
    s.find(".go").textContent = "Fill it again";
    const apart = before ? `, from the fill before by ${distance(last, before, hole).toFixed(2)}` : "";
    return `In the hole this fill differs from what was there by ${distance(last, x, hole).toFixed(2)}${apart} (black to white is 2);`;
  });
}

function healStation(lab, patients) {
  const s = new Station("heal");
  s.choose(
    "case",
    lab.families.map((name) => FAMILY_NAMES[name]),
  );
  const first = () => {
    const { patient, healthy } = patients[s.value("case")];
    show(s.canvas("patient"), patient);
    show(s.canvas("twin"), healthy);
  };
  s.control("case").addEventListener("change", first);
  first();
  s.go(async (id) => {
    const { patient, healthy, mask, change } = patients[s.value("case")];
    const given = { id, t_0: s.value("t_0"), seed: 1, n: s.value("n") };
    const done = await s.ask("heal", { ...given, x: patient }, ({ x_0 }) => show(s.canvas("healed"), x_0));
    const twin = done && (await s.ask("heal", { ...given, x: healthy }));
    if (!twin) return null;
    const rest = healthy.map((v, i) => (v > -0.9 && !mask[i] ? 1 : 0));
    show(s.canvas("error"), mix(1, done.x_0, -1, healthy).map(Math.abs), { colour: heat });
    const left = Math.round(100 * contrastKept(done.x_0, twin.x_0, change, mask));
    const name = s.control("case").selectedOptions[0].text;
    const elsewhere = distance(done.x_0, healthy, rest).toFixed(2);
    s.log(
      `${name}, t₀ = ${given.t_0}: ${left} % of the lesion's contrast left, error in the rest of the brain ${elsewhere}`,
    );
    return "Done, and the same for the twin, in";
  });
}

function scanStation(lab, patients) {
  const s = new Station("scan");
  s.choose(
    "case",
    lab.families.map((name) => FAMILY_NAMES[name]),
  );
  const error = (image) => {
    const { patient, mask } = patients[s.value("case")];
    const edge = outline(mask);
    const apart = mix(1, image, -1, patient).map((v, i) => (edge[i] ? -1 : Math.abs(v)));
    show(s.canvas("error"), apart, { colour: heat });
  };
  /** The scan of a head, and what zeros for the missing lines give: at once. */
  const scan = (x) => ask("scan", { x, lines: lab.lines[s.value("R")], sigma_y: lab.sigma_y });
  const atOnce = async () => {
    const { patient } = patients[s.value("case")];
    show(s.canvas("truth"), patient);
    blank(s.canvas("found"));
    const { zeroFilled } = await scan(patient);
    show(s.canvas("zero"), zeroFilled);
    error(zeroFilled);
  };
  const tried = () => atOnce().catch((problem) => s.say(problem.message));
  for (const name of ["case", "R"]) s.control(name).addEventListener("change", tried);
  show(s.canvas("truth"), patients[0].patient);
  s.go(async (id) => {
    await atOnce();
    const { patient, healthy, mask, change } = patients[s.value("case")];
    const scans = [await scan(patient), await scan(healthy)];
    const found = [];
    for (const { y } of scans) {
      const given = { id, y, lines: lab.lines[s.value("R")], sigma_y: lab.sigma_y, seed: 1, n: s.value("n") };
      const done = await s.ask("reconstruct", given, ({ x_0 }) => found.length || show(s.canvas("found"), x_0));
      if (!done) return null;
      found.push(done.x_0);
    }
    error(found[0]);
    const kept = (images) => `${Math.round(100 * contrastKept(...images, change, mask))} %`;
    const away = (image) => distance(image, patient).toFixed(2);
    const zeros = scans.map((scanned) => scanned.zeroFilled);
    s.log(
      `${s.control("case").selectedOptions[0].text}, one line in ${s.value("R")}: ${kept(found)} of the lesion's contrast ` +
        `left, with zeros ${kept(zeros)}; error ${away(found[0])}, with zeros ${away(zeros[0])}`,
    );
    return "Reconstructed, and the same for the twin, in";
  });
}

// ---- Start -----------------------------------------------------------------------------------------------------------------

async function load(name) {
  const answer = await fetch(name).catch(() => null);
  if (!answer?.ok) throw new Error(`The file ${name} did not load: check the connection, then reload the page.`);
  return answer;
}

/** Equal pieces of a file of bytes. */
const pieces = (bytes, size) =>
  Array.from({ length: bytes.length / size }, (_, k) => bytes.subarray(k * size, (k + 1) * size));

async function bytesOf(name) {
  return new Uint8Array(await (await load(name)).arrayBuffer());
}

async function keepAll(lab) {
  const said = document.getElementById("kept");
  const names = Object.keys(lab.files);
  const total = Math.round(Object.values(lab.files).reduce((sum, size) => sum + size, 0) / 1e6);
  try {
    for (const [k, name] of names.entries()) {
      said.textContent = `${k} of ${names.length} files, ${total} MB in all`;
      await (await load(name)).arrayBuffer();
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
  const lab = await (await load("lab.json")).json();
  const [drawn, cases] = await Promise.all([bytesOf("drawn.bin"), bytesOf("patients.bin")]);
  const patients = pieces(cases, 3 * SIDE * SIDE).map((bytes) => {
    const [patient, healthy, mask] = pieces(bytes, SIDE * SIDE);
    const [x, twin] = [toImage(patient), toImage(healthy)];
    return { patient: x, healthy: twin, mask: Float32Array.from(mask), change: mix(1, x, -1, twin) };
  });
  drawStation(lab);
  lookStation(lab, pieces(drawn, DRAWN_SIDE ** 2).map(toImage));
  guideStation(lab);
  fillStation(patients);
  healStation(lab, patients);
  scanStation(lab, patients);
  document.getElementById("keep").addEventListener("click", () => keepAll(lab));
  trouble.hidden = true;
}

start().catch((error) => {
  trouble.textContent = error.message;
});
