// The page: a picture, a video or the camera goes to this server, and what it answers is drawn.
// Addresses are relative, so that the page also works behind a proxy below some path.

import { drawPeople } from "./draw.js";

const byId = (id) => document.getElementById(id);
const canvas = byId("canvas"), video = byId("video");
const SURE = 0.3, SURE_RAW = 0.2; // where the slider starts, for a calibrated model and for raw scores
let model = null;
let shown = null; // {kind: "image" | "camera" | "video", picture, answer, name}
let request = null; // of the picture or video that is computed
let stream = null; // of the camera

const sure = () => Number(byId("sure").value);
const ms = (value) => (value < 10 ? value.toFixed(1) : Math.round(value)) + " ms";

async function asked(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: is `rtmpose serve` still running?");
  }
  const content = await answer.json().catch(() => ({ error: `The server answered ${answer.status}` }));
  if (!answer.ok) throw new Error(content.error);
  return content;
}

function complain(text) {
  byId("error").textContent = text ?? "";
  byId("error").hidden = !text;
}

function fill(list, rows) {
  list.replaceChildren(...rows.flatMap(([term, text]) => {
    const [dt, dd] = ["dt", "dd"].map((name) => document.createElement(name));
    [dt.textContent, dd.textContent] = [term, text];
    return [dt, dd];
  }));
}

// What is being done, with the seconds that it has taken; gives a function that ends it, and hides it if asked to.
function busy(text) {
  const begun = performance.now();
  const tell = () => {
    byId("doing").textContent = `${text} ${((performance.now() - begun) / 1000).toFixed(0)} s`;
  };
  tell();
  const timer = setInterval(tell, 1000);
  byId("busy").hidden = false;
  return (hide) => { clearInterval(timer); if (hide) byId("busy").hidden = true; };
}

async function open(file) {
  stopCamera();
  request?.abort();
  request = new AbortController();
  const { signal } = request, kind = file.type.startsWith("video/") ? "video" : "image";
  complain();
  const most = kind === "video" ? model.limits.video_bytes : model.limits.image_bytes;
  if (file.size > most) {
    byId("busy").hidden = true;
    complain(`${file.name} is larger than ${Math.round(most / 2 ** 20)} MB: choose a smaller one`);
    return;
  }
  const done = busy(kind === "video" ? "Following people through the video …" : "Looking for people …");
  try {
    const options = { method: "POST", body: file, headers: { "Content-Type": file.type || "application/octet-stream" }, signal };
    const answer = await asked(`v1/${kind}`, options);
    const picture = kind === "image" ? await createImageBitmap(file) : null;
    if (!signal.aborted) show({ kind, picture, answer, name: file.name.replace(/\.[^.]*$/, "") }, file);
  } catch (error) {
    if (error.name !== "AbortError") complain(error.message);
  } finally {
    done(!signal.aborted);
  }
}

function show(next, file) {
  shown = next;
  document.body.dataset.shown = next.kind;
  byId("empty").hidden = true;
  byId("shown").hidden = false;
  const moving = next.kind === "video";
  video.hidden = !moving;
  if (video.src) URL.revokeObjectURL(video.src);
  video.removeAttribute("src");
  if (moving) {
    video.src = URL.createObjectURL(file);
    video.play().catch(() => {}); // a browser that does not start by itself has its controls
  }
  for (const id of ["json", "png"]) byId(id).disabled = false;
  draw();
}

// The frame whose time is the last one not after `time`.
function frameAt(frames, time) {
  let low = 0, high = frames.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (frames[middle].time <= time + 1e-3) low = middle; else high = middle - 1;
  }
  return frames[low];
}

function draw(time = video.currentTime) {
  if (!shown) return;
  const { kind, picture, answer } = shown, [width, height] = answer.size;
  // Lines are crisp on small pictures, too; a video's canvas lies over it and has its size on the screen.
  const box = video.getBoundingClientRect(), grain = window.devicePixelRatio;
  const zoom = kind === "video" ? box.width * grain / width || 1 : Math.max(1, Math.min(3, 900 / width));
  const size = [width, height].map((length) => Math.max(1, Math.round(length * zoom)));
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, ...size);
  if (picture) context.drawImage(picture, 0, 0, ...size);
  const people = kind === "video" ? frameAt(answer.frames, time)?.people ?? [] : answer.people;
  drawPeople(context, people, model, sure(), zoom);
  tell(people);
}

function tell(people) {
  const count = people.filter((person) => person.confidence.some((value) => value >= sure())).length;
  byId("found").textContent = count === 1 ? "1 person" : `${count} people`;
  const { kind, answer } = shown, times = answer.ms;
  const rows = kind === "video"
    ? [["a frame, all in all", ms(times.frame)], [`${answer.frames.length} frames`, ms(times.total)]]
    : [["decoding", ms(times.decode)], ["detection", times.detection === null ? "none" : ms(times.detection)], ["poses", ms(times.pose)]];
  if (times.waiting >= 1) rows.push(["in line", ms(times.waiting)]);
  rows.push(["size", `${answer.size[0]} × ${answer.size[1]} px`]);
  if (answer.remark) rows.push(["note", answer.remark]);
  fill(byId("times"), rows);
}

function follow(_, facts) {
  if (shown?.kind === "video") draw(facts.mediaTime);
  video.requestVideoFrameCallback(follow);
}

async function startCamera() {
  request?.abort();
  byId("busy").hidden = true;
  complain();
  if (!navigator.mediaDevices) {
    complain("Browsers give a camera only to pages of this machine or by HTTPS");
    return;
  }
  const button = byId("camera");
  button.disabled = true; // until the browser has its answer
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } } });
  } catch (error) {
    complain(`The camera cannot be used: ${error.message}`);
    return;
  } finally {
    button.disabled = false;
  }
  button.setAttribute("aria-pressed", "true");
  const own = stream, source = document.createElement("video");
  Object.assign(source, { muted: true, playsInline: true, srcObject: own });
  await source.play();
  while (stream === own) {
    try {
      await cameraPicture(source, own);
    } catch (error) {
      complain(error.message);
      stopCamera();
    }
  }
}

// One picture of the camera, there and back: as fast as the model is, and never two at once.
async function cameraPicture(source, own) {
  const still = new OffscreenCanvas(source.videoWidth, source.videoHeight);
  still.getContext("2d").drawImage(source, 0, 0);
  const body = await still.convertToBlob({ type: "image/jpeg", quality: 0.9 });
  const answer = await asked("v1/image", { method: "POST", body, headers: { "Content-Type": "image/jpeg" } });
  if (stream === own) show({ kind: "camera", picture: still, answer, name: "camera" });
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  byId("camera").setAttribute("aria-pressed", "false");
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// What is shown is what is saved: the JSON has the slider's threshold, as `sure` of the endpoint.
function savedAnswer() {
  const kept = (people) => people
    .filter((person) => person.confidence.some((value) => value >= sure()))
    .map((person) => ({ ...person, keypoints: person.keypoints.map((point, k) => (person.confidence[k] >= sure() ? point : null)) }));
  const { answer } = shown;
  return answer.frames
    ? { ...answer, frames: answer.frames.map((frame) => ({ ...frame, people: kept(frame.people) })) }
    : { ...answer, people: kept(answer.people) };
}

function savePicture() {
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const context = copy.getContext("2d");
  if (shown.kind === "video") context.drawImage(video, 0, 0, copy.width, copy.height);
  context.drawImage(canvas, 0, 0);
  copy.toBlob((blob) => save(blob, `${shown.name}.poses.png`), "image/png");
}

function listen() {
  byId("choose").onclick = byId("empty").onclick = () => byId("file").click();
  byId("file").onchange = () => { const [file] = byId("file").files; byId("file").value = ""; if (file) open(file); };
  byId("camera").onclick = () => (stream ? stopCamera() : startCamera());
  byId("sure").oninput = () => { byId("level").value = sure().toFixed(2); draw(); };
  byId("json").onclick = () => save(new Blob([JSON.stringify(savedAnswer(), null, 1)], { type: "application/json" }), `${shown.name}.json`);
  byId("png").onclick = savePicture;
  video.onerror = () => video.src && complain("This browser cannot play the video; its poses are in the JSON");
  video.onloadeddata = video.onseeked = () => draw();
  window.onresize = () => draw();
  video.requestVideoFrameCallback?.(follow);
  const stage = byId("stage");
  document.ondragover = (event) => { event.preventDefault(); stage.classList.add("over"); };
  document.ondragleave = (event) => event.relatedTarget ?? stage.classList.remove("over");
  document.ondrop = (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) open(file);
  };
  document.onpaste = (event) => { const [file] = event.clipboardData.files; if (file) open(file); };
}

async function begin() {
  try {
    model = await asked("v1/model");
  } catch (error) {
    byId("model").textContent = "";
    complain(error.message);
    return;
  }
  byId("model").textContent = `${model.name} · ${model.names.length} points`;
  byId("taken").textContent += `; or a video of at most ${model.limits.video_seconds} s`;
  if (matchMedia("(pointer: coarse)").matches) document.body.dataset.touch = "yes";
  byId("calibration").textContent = model.calibrated
    ? "The chance that a point is where a person would have marked it."
    : "This model is not calibrated: its raw score, from 0 to 1.";
  byId("sure").value = model.calibrated ? SURE : SURE_RAW;
  byId("level").value = sure().toFixed(2);
  byId("curl").textContent = `curl -F file=@photo.jpg \\\n  ${new URL("v1/image", location.href)}`;
  fill(byId("facts"), [
    ["file", model.name], ["network", model.architecture], ["input", model.input_size.join(" × ") + " px"],
    ["points", `${model.names.length}, ${model.skeleton}`], ["precision", model.precision], ["runtime", model.runtime],
    ["detector", model.detector ?? "none: one person fills the picture"], ["data's licences", model.licences.join("; ") || "not noted"],
  ]);
  listen();
  document.body.dataset.ready = "yes";
}

begin();
