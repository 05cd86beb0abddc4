// The page's side of drivers/web_hand.py. It holds no token but that of its own address, and loads nothing from elsewhere.
"use strict";

const PERIOD = 40; // of the hand's messages [ms]
const DEAD_ZONE = 0.07; // of a pad's half width
const BACK = 800; // before the socket is opened again [ms]
const SURE = 3000; // within which End must be pressed again [ms]
const MEANT = { // what a button of the session is good for
  waiting: ["start", "discard", "quit"], recording: ["success", "failure", "discard", "pause", "quit"],
  paused: ["start", "pause", "success", "failure", "discard", "quit"], judging: ["success", "failure", "discard", "quit"],
  correcting: ["success", "failure", "discard", "pause", "quit"], done: [], lost: ["quit"], none: [],
};
const UP = [[1, 0], [0, 1], [-1, 0], [0, -1]]; // what "up" on a pad is in the base's x and y, by view

const at = (id) => document.getElementById(id);
const all = (query) => [...document.querySelectorAll(query)];
const show = (element, yes) => element.classList.toggle("shown", yes);
const put = (id, text) => { at(id).textContent = text; };

let socket = null, seen = null, number = 0, drove = false, view = 0, closed = false, lagged = "", sound = null;
let pointer = null, space = false; // what holds the dead-man: a pointer's id, the key
const sticks = {}; // by name: [right, up] in [-1, 1]
const canvases = new Map();

// ---- the socket

function open() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/session${location.search}`);
  socket.binaryType = "blob";
  socket.onopen = () => { say({ say: "drive" }); };
  socket.onmessage = ({ data }) => { if (typeof data === "string") hear(JSON.parse(data)); else picture(data); };
  socket.onclose = () => {
    seen = null;
    letGo();
    document.body.dataset.link = "closed";
    role({ drives: false, vacant: false, may: false, reason: "No connection. The session may be over; else this page tries again." });
    setTimeout(open, BACK);
  };
}

function say(words) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(words));
}

function sayHand() {
  if (seen === null || document.body.dataset.role !== "driver" || socket.bufferedAmount > 4096) return;
  say({ say: "hand", n: number++, seen, held: held(), motion: motion() });
}

function hear(told) {
  seen = told.now;
  closed = told.closed;
  document.body.dataset.link = "open";
  document.body.dataset.grip = told.grip;
  if (told.vacant && drove && told.may) say({ say: "drive" });
  drove ||= told.drives;
  const other = !told.may ? "View only." : told.vacant ? "Nobody drives." : "View only: another page drives.";
  role({ ...told, reason: told.late ? "The network is slow: the arm holds." : told.drives ? "" : other });
  status(told.status);
  deadman();
}

function role({ drives, vacant, may, reason }) {
  document.body.dataset.role = drives ? "driver" : "viewer";
  put("reason", reason);
  show(at("banner"), reason !== "");
  show(at("drive"), !drives && vacant && may);
}

function status(now) {
  const state = now.state ?? "none";
  document.body.dataset.state = state;
  put("state", now.state ?? "no session yet");
  put("episodes", now.wanted ? `${now.episodes} / ${now.wanted}` : now.episodes ?? "–");
  put("steps", now.steps ?? "–");
  put("rate", now.rate?.toFixed(1) ?? "–");
  put("age", now.age == null ? "–" : Math.round(1000 * now.age));
  put("drops", now.drops ?? "–");
  at("dropped").classList.toggle("some", now.drops > 0);
  put("message", now.lagging || now.message || "");
  at("message").classList.toggle("lags", Boolean(now.lagging));
  if (now.lagging && !lagged) ring();
  lagged = now.lagging;
  for (const button of all("[data-event]")) button.classList.toggle("means", MEANT[state].includes(button.dataset.event));
  put("fingers", closed ? "Fingers are closed: open" : "Fingers are open: close");
  at("fingers").classList.toggle("can", document.body.dataset.grip === "held");
}

async function picture(data) {
  const head = new DataView(await data.slice(0, 5).arrayBuffer());
  const end = 5 + head.getUint8(4);
  const name = await data.slice(5, end).text();
  const bitmap = await createImageBitmap(data.slice(end, data.size, "image/jpeg"));
  const canvas = canvases.get(name) ?? frame(name);
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  say({ say: "picture", n: head.getUint32(0) });
}

function frame(name) {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  const canvas = document.createElement("canvas");
  caption.textContent = name;
  figure.append(canvas, caption);
  at("dark")?.remove();
  at("cameras").append(figure);
  canvases.set(name, canvas);
  return canvas;
}

function ring() {
  if (!sound) return; // a page may sound only after it was touched
  const tone = sound.createOscillator(), volume = sound.createGain();
  volume.gain.value = 0.1;
  tone.connect(volume).connect(sound.destination);
  tone.start();
  tone.stop(sound.currentTime + 0.25);
}

// ---- the dead-man: whatever ends a touch ends the hold

const held = () => pointer !== null || space;

function letGo() {
  pointer = null;
  space = false;
  deadman();
  if (socket) sayHand();
}

function deadman() {
  const counts = document.body.dataset.grip === "held", pad = at("deadman");
  pad.classList.toggle("pressed", held());
  pad.classList.toggle("counts", counts);
  pad.setAttribute("aria-pressed", held());
  pad.querySelector("b").textContent = !held() ? "HOLD TO MOVE" : counts ? "MOVING" : "LET GO, THEN HOLD AGAIN";
  put("hint", held() ? "let go and the arm holds" : "one thumb here, the other on the pads");
}

at("deadman").addEventListener("pointerdown", (event) => {
  event.preventDefault();
  if (pointer !== null) return;
  pointer = event.pointerId;
  at("deadman").setPointerCapture(pointer);
  deadman();
  sayHand();
});
for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
  window.addEventListener(end, (event) => { if (event.pointerId === pointer) letGo(); }, true);
}
window.addEventListener("blur", letGo);
window.addEventListener("pagehide", letGo);
document.addEventListener("visibilitychange", () => { if (document.hidden) letGo(); });
window.addEventListener("contextmenu", (event) => event.preventDefault());
window.addEventListener("keydown", (event) => {
  if (event.code === "Space") {
    event.preventDefault(); // neither scrolls nor presses the button that has the focus
    if (event.repeat) return;
    space = true;
    deadman();
    sayHand();
  } else if (event.code === "KeyG" && !event.repeat) toggle();
});
window.addEventListener("keyup", (event) => {
  if (event.code !== "Space") return;
  event.preventDefault();
  letGo();
});

// ---- the hand

function stick(element) {
  const name = element.dataset.axes, knob = element.querySelector("i");
  const across = !element.classList.contains("tall"), along = !element.classList.contains("wide");
  let finger = null;
  sticks[name] = [0, 0];
  const move = (event) => {
    const box = element.getBoundingClientRect(), size = Math.min(...(across && along ? [box.width, box.height] : [across ? box.width : box.height])) / 2 - 12;
    const right = across ? (event.clientX - box.left - box.width / 2) / size : 0;
    const up = along ? (box.top + box.height / 2 - event.clientY) / size : 0;
    sticks[name] = [right, up].map((share) => Math.max(-1, Math.min(1, share)));
    knob.style.transform = `translate(${sticks[name][0] * (size - 14)}px, ${-sticks[name][1] * (size - 14)}px)`;
  };
  const centre = () => { finger = null; sticks[name] = [0, 0]; knob.style.transform = ""; element.classList.remove("used"); };
  element.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    if (finger !== null) return;
    finger = event.pointerId;
    element.setPointerCapture(finger);
    element.classList.add("used");
    move(event);
  });
  element.addEventListener("pointermove", (event) => { if (event.pointerId === finger) move(event); });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    element.addEventListener(end, (event) => { if (event.pointerId === finger) centre(); });
  }
  window.addEventListener("blur", centre);
}

// Nothing near the middle, fine in the beginning, all at the edge.
function shape(share) {
  const size = Math.max(0, Math.abs(share) - DEAD_ZONE) / (1 - DEAD_ZONE);
  return Math.sign(share) * size ** 1.5;
}

function inBase([right, up]) { // where one looks from turns the pads, about the vertical
  const [x, y] = UP[view];
  return [up * x + right * y, up * y - right * x];
}

function motion() {
  const speed = at("speed").value / 100;
  const [x, y] = inBase(sticks.move.map(shape)), [tipX, tipY] = inBase(sticks.turn.map(shape));
  // The tool's top goes where the pad is dragged: about y for x, about -x for y.
  return [x, y, shape(sticks.z[1]), -tipY, tipX, -shape(sticks.rz[0])].map((share) => speed * share);
}

function labels() {
  const sign = (value) => (value > 0 ? "+" : "−");
  const names = { move: ([x, y]) => (x ? sign(x) + "x" : sign(y) + "y"), turn: ([x, y]) => (x ? sign(x) + "ry" : sign(-y) + "rx") };
  const ways = { up: [0, 1], down: [0, -1], left: [-1, 0], right: [1, 0] };
  for (const pad of all(".pad")) {
    for (const [way, direction] of Object.entries(ways)) {
      pad.querySelector(`.${way}`).textContent = names[pad.dataset.axes](inBase(direction));
    }
  }
}

function toggle() {
  say({ say: "fingers", closed: !closed });
}

// ---- the rest

for (const element of all(".pad, .bar")) stick(element);
for (const button of all("[data-event]")) {
  const name = button.textContent;
  let sure = button.dataset.event !== "quit";
  button.addEventListener("click", () => {
    if (sure) say({ say: "event", event: button.dataset.event });
    else {
      sure = true;
      button.textContent = "Sure?";
      setTimeout(() => { sure = false; button.textContent = name; }, SURE);
    }
  });
}
for (const button of all("#groups button")) {
  button.addEventListener("click", () => { document.body.dataset.group = button.dataset.group; });
}
at("view").addEventListener("click", () => { view = (view + 1) % UP.length; labels(); });
at("speed").addEventListener("input", () => put("percent", `${at("speed").value} %`));
at("fingers").addEventListener("click", toggle);
at("drive").addEventListener("click", () => say({ say: "drive" }));
// Not at the first touch, which may be the dead-man: opening the sound can take half a second.
at("marks").addEventListener("click", () => { sound ??= new AudioContext(); });
labels();
deadman();
setInterval(sayHand, PERIOD);
open();
