// Sends an image to the server, and shows what the model answers and where in the image the network looked.

const PREDICT = "serve_image_bytes";
const EXPLAIN = "explain_image_bytes";
const JSON_LENGTH = "Inference-Header-Content-Length";
const MODELS_AFTER_MS = 2000; // as long as there is no model
// Images whose sides are shorter than this number of pixels are enlarged.
const SMALL = 96;
// The report shows heat in the same way: matplotlib's colours "inferno", in equal steps from 0 to 1, and this
// opacity where the heat is 1.
const COLORS = [
  [0, 0, 4], [33, 12, 74], [87, 16, 110], [138, 34, 106], [188, 55, 84], [228, 90, 49], [249, 142, 9],
  [249, 203, 53], [252, 255, 164],
];
const OPACITY = 0.75;

const find = (id) => document.getElementById(id);
const show = (element, visible) => { element.hidden = !visible; };

let chosen = null; // the file of the image that is shown
let running = new AbortController(); // ends the requests about the image before

// ---- Requests

class AnswerError extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    Object.assign(this, { status, retryAfter });
  }
}

async function ask(path, options) {
  const response = await fetch(path, options);
  if (response.ok) return response;
  // A proxy before the server may answer with something else than JSON.
  const { error } = await response.json().catch(() => ({ error: response.statusText }));
  throw new AnswerError(response.status, error, response.headers.get("Retry-After"));
}

const modelPath = (version, name, number) =>
  `${version}/models/${encodeURIComponent(name)}` + (number === undefined ? "" : `/versions/${number}`);

// Asks one signature about one image by the Open Inference Protocol with binary tensors: JSON, the length of
// the file in 4 bytes, and the file. Returns {version, outputs: name -> {shape, data}}.
async function infer(path, signature, file, binary, signal) {
  const request = {
    parameters: { signature_name: signature, binary_data_output: binary },
    inputs: [
      { name: "image_bytes", datatype: "BYTES", shape: [1], parameters: { binary_data_size: file.size + 4 } },
    ],
  };
  const json = new TextEncoder().encode(JSON.stringify(request));
  const length = new DataView(new ArrayBuffer(4));
  length.setUint32(0, file.size, true);
  const response = await ask(`${path}/infer`, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream", [JSON_LENGTH]: json.length },
    body: new Blob([json, length, file]),
    signal,
  });
  return readTensors(await response.arrayBuffer(), response.headers.get(JSON_LENGTH));
}

function readTensors(body, jsonLength) {
  let start = Number(jsonLength ?? body.byteLength);
  const answer = JSON.parse(new TextDecoder().decode(body.slice(0, start)));
  const outputs = {};
  for (const { name, shape, datatype, data, parameters } of answer.outputs) {
    outputs[name] = { shape, data };
    if (data) continue;
    const end = start + parameters.binary_data_size;
    const Type = datatype === "FP32" ? Float32Array : Uint8Array;
    outputs[name].data = new Type(body.slice(start, end));
    start = end;
  }
  return { version: answer.model_version, outputs };
}

async function canExplain(name, version, signal) {
  const response = await ask(`${modelPath("v1", name, version)}/metadata`, { signal });
  return EXPLAIN in (await response.json()).metadata.signature_def.signature_def;
}

// ---- Messages

// Says how far things are; `visible` is false if the page shows it elsewhere, and only screen readers need it.
function say(text, visible = true) {
  const status = find("status");
  status.classList.toggle("unseen", !visible);
  // Screen readers read a text again that is written again.
  if (status.textContent !== text) status.textContent = text;
}

// Returns [what happened, whether another try may help].
function describe(error) {
  if (!(error instanceof AnswerError)) return ["The server cannot be reached.", true];
  const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  switch (error.status) {
    case 400: return ["The model cannot read this file. It takes whole PNG, JPEG, BMP and GIF images.", false];
    case 404: return ["The model or its version is gone.", true];
    case 408: return ["The image did not arrive in time.", true];
    case 413: return ["This image is too large for the server.", false];
    case 429: return [`The server is busy.${wait}`, true];
    case 503: return [`The model is not loaded yet.${wait}`, true];
    default: return ["The server failed.", true];
  }
}

function showProblem(error, text, helps) {
  const box = document.createElement("p");
  box.className = "problem";
  const what = document.createElement("strong");
  what.textContent = text;
  box.append(what);
  if (error instanceof AnswerError && error.message) {
    const why = document.createElement("span");
    why.textContent = `The server says: ${error.message}`;
    box.append(why);
  }
  find("problem").replaceChildren(box);
  show(find("again"), helps);
  say("");
}

function clear() {
  find("problem").replaceChildren();
  for (const id of ["again", "answer", "seen", "heat"]) show(find(id), false);
  find("looking").textContent = "";
}

// ---- The answer

function formatShare(share) {
  const text = (100 * share).toFixed(1);
  if (share < 1 && text === "100.0") return "> 99.9 %";
  return share > 0 && text === "0.0" ? "< 0.1 %" : `${text} %`;
}

// Models of earlier versions of this project name only the best class.
function bestClasses({ top_k_names: names, top_k_probabilities: shares, class_name: best, probabilities }) {
  if (!names) return [{ name: best.data[0], share: Math.max(...probabilities.data) }];
  return names.data.map((name, index) => ({ name, share: shares.data[index] }));
}

function classRow({ name, share }) {
  const row = document.createElement("li");
  const [label, number, bar, fill] = ["span", "span", "span", "span"].map((tag) => document.createElement(tag));
  label.textContent = name;
  number.textContent = formatShare(share);
  number.className = "share";
  bar.className = "bar";
  bar.setAttribute("aria-hidden", "true");
  fill.style.width = `${100 * share}%`;
  bar.append(fill);
  row.append(label, number, bar);
  return row;
}

function showAnswer(name, version, outputs, milliseconds) {
  const classes = bestClasses(outputs);
  const first = `${classes[0].name}, ${formatShare(classes[0].share)}`;
  // Models that abstain say of each image whether they do.
  const best = outputs.abstained?.data[0] ? `Unsure; perhaps ${first}` : first;
  find("best").textContent = best;
  find("classes").replaceChildren(...classes.map(classRow));
  const others = outputs.probabilities.data.length - classes.length;
  const rest = Math.max(0, 1 - classes.reduce((sum, { share }) => sum + share, 0));
  find("rest").textContent =
    others > 0 ? `${others} other ${others === 1 ? "class" : "classes"}: ${formatShare(rest)}` : "";
  find("name").textContent = name;
  find("version").textContent = version;
  find("duration").textContent = `${Math.round(milliseconds)} ms, with the way to the server and back`;
  say(`Answer: ${best}`, false);
  show(find("answer"), true);
}

function draw(figure, [, height, width], color) {
  const canvas = figure.querySelector("canvas");
  Object.assign(canvas, { width, height });
  canvas.classList.toggle("pixels", Math.max(width, height) < SMALL);
  const pixels = new ImageData(width, height);
  for (let index = 0; index < width * height; index++) pixels.data.set([...color(index), 255], 4 * index);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  show(figure, true);
}

function heatColor(heat) {
  const place = heat * (COLORS.length - 1);
  const below = Math.min(Math.floor(place), COLORS.length - 2);
  return COLORS[below].map((value, channel) => value + (place - below) * (COLORS[below + 1][channel] - value));
}

function showExplanation({ image, heat }) {
  const pixel = (index) => image.data.subarray(3 * index, 3 * index + 3);
  draw(find("seen"), image.shape, pixel);
  draw(find("heat"), image.shape, (index) => {
    const [red, green, blue] = pixel(index);
    const grey = 0.299 * red + 0.587 * green + 0.114 * blue;
    const opacity = OPACITY * heat.data[index];
    return heatColor(heat.data[index]).map((value) => (1 - opacity) * grey + opacity * value);
  });
}

async function explain(name, version, file, signal) {
  const looking = find("looking");
  try {
    if (!(await canExplain(name, version, signal))) return;
    looking.textContent = "Finding out where the network looked …";
    const { outputs } = await infer(modelPath("v2", name, version), EXPLAIN, file, true, signal);
    showExplanation(outputs);
    looking.textContent = "The answer depends most on the bright, coloured parts.";
  } catch (error) {
    if (signal.aborted) return;
    looking.textContent = `Where the network looked is not known. ${describe(error)[0]}`;
  }
}

async function classify() {
  running.abort();
  running = new AbortController();
  clear();
  const name = find("model").value;
  if (!chosen || !name) return;
  const { signal } = running;
  const file = chosen;
  say("Classifying …");
  try {
    const start = performance.now();
    const { version, outputs } = await infer(modelPath("v2", name), PREDICT, file, false, signal);
    showAnswer(name, version, outputs, performance.now() - start);
    await explain(name, version, file, signal);
  } catch (error) {
    if (!signal.aborted) showProblem(error, ...describe(error));
  }
}

// ---- The image

function choose(file, caption) {
  chosen = file;
  const picture = find("picture");
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  picture.alt = caption;
  find("original").querySelector("figcaption").textContent = caption;
  show(find("original"), true);
  show(find("result"), true);
  return classify();
}

function chooseFirst(files, otherwise) {
  // An example that was chosen before would keep its frame of the focus.
  if (find("examples").contains(document.activeElement)) document.activeElement.blur();
  const file = [...files].find(({ type }) => type.startsWith("image/")) ?? files[0];
  if (file) choose(file, file.name);
  else showProblem(null, otherwise, false);
}

async function chooseExample(name, { file, class_name: label }) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  try {
    const response = await ask(examplePath(name, file), { signal });
    await choose(await response.blob(), `Example of the class ${label}`);
  } catch (error) {
    if (!signal.aborted) showProblem(error, "This example cannot be loaded.", false);
    // Another version answers now, whose examples are others.
    if (error.status === 404) await showExamples();
  }
}

// ---- Models and their examples

const examplePath = (name, file) => `${modelPath("v1", name)}/examples/${encodeURIComponent(file)}`;

function exampleButton(name, example) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const picture = document.createElement("img");
  picture.src = examplePath(name, example.file);
  picture.alt = "";
  button.type = "button";
  button.append(picture, example.class_name);
  button.addEventListener("click", () => chooseExample(name, example));
  item.append(button);
  return item;
}

async function showExamples() {
  const name = find("model").value;
  const response = await ask(`${modelPath("v1", name)}/examples`).catch(() => null);
  const examples = response ? (await response.json()).examples : [];
  if (name !== find("model").value) return;
  find("examples").querySelector("ul").replaceChildren(...examples.map((each) => exampleButton(name, each)));
  show(find("examples"), examples.length > 0);
}

async function loadModels() {
  const before = find("model").value;
  let models = [];
  let missing = "No model is loaded yet. This page waits for one.";
  try {
    ({ models } = await (await ask("v1/models")).json());
  } catch (error) {
    [missing] = describe(error);
  }
  if (!models.length) {
    say(missing);
    setTimeout(loadModels, MODELS_AFTER_MS);
    return;
  }
  find("model").replaceChildren(...models.map((name) => new Option(name, name)));
  if (models.includes(before)) find("model").value = before;
  show(find("models"), models.length > 1);
  say("");
  await Promise.all([showExamples(), classify()]);
}

// ---- Events

find("file").addEventListener("change", ({ target }) => {
  if (target.files.length) chooseFirst(target.files);
  target.value = ""; // the same file may be chosen again
});
find("model").addEventListener("change", () => Promise.all([showExamples(), classify()]));
find("again").addEventListener("click", () => {
  show(find("again"), false);
  find("file").focus(); // the button that had the focus is gone
  loadModels();
});
find("picture").addEventListener("error", () => show(find("original"), false));
find("picture").addEventListener("load", ({ target }) => {
  target.classList.toggle("pixels", Math.max(target.naturalWidth, target.naturalHeight) < SMALL);
});
document.addEventListener("paste", ({ clipboardData }) => {
  chooseFirst(clipboardData.files, "The clipboard holds no image.");
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  chooseFirst(event.dataTransfer.files, "What was dropped is no image file.");
});
loadModels();
