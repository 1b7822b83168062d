// The page: buttons and messages.

import { analyse, modelFacts } from "./api.js";
import { LiveSession } from "./live.js";
import { LiveView } from "./live-view.js";
import { Microphone, level, noMicrophone } from "./microphone.js";
import { Player } from "./player.js";
import { Recording } from "./recording.js";
import { Timeline } from "./timeline.js";
import { decodedByBrowser, toInt16, wavFile } from "./wav.js";

const RECORDING_PIECE_S = 0.1;
const DECODED_HERE = /\.(m4a|mp4|aac|webm|mka|mov|3gp)$/i; // the browser decodes these, since the server cannot

const element = (id) => document.getElementById(id);
const player = new Player(() => timeline.playingChanged());
const timeline = new Timeline(player);
const liveView = new LiveView();
let facts = null; // about model and limits
let latest = null; // {file, name} of the shown recording
let abort = null; // aborts the running analysis
let stop = null; // stops the running recording or live session

/** Show a status; `aloud` is for screen readers. */
function say(text, { aloud = "" } = {}) {
  element("status").textContent = text || aloud;
  element("status").classList.toggle("unseen", !text);
}

function complain(error) {
  say("");
  element("error").textContent = error?.message ?? "";
  element("error").hidden = !error;
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(2)} s`;
  const [minutes, rest] = [Math.floor(seconds / 60), Math.floor(seconds % 60)];
  return rest ? `${minutes} min ${rest} s` : `${minutes} min`;
}

// ---------------------------------------------------------------------------------------------- files

/** Analyse a file and show it, instead of any other. */
function take(file, name) {
  return analysing(name, async (signal) => {
    if (file.size > facts.limits.upload_mb * 1e6) {
      throw new Error(`${name} is larger than ${facts.limits.upload_mb} MB, the limit of this server.`);
    }
    const readable = DECODED_HERE.test(name) ? await decoded(file, name) : file;
    signal.throwIfAborted();
    await show(readable, name, signal);
  });
}

async function analysing(name, work) {
  complain(null);
  abort?.abort();
  const mine = (abort = new AbortController());
  element("cancel").hidden = false;
  element("live-view").hidden = true;
  say(`Analysing ${name} …`);
  try {
    await work(mine.signal);
  } catch (error) {
    if (abort !== mine) return; // another analysis has started
    if (error.name === "AbortError") say("Cancelled.");
    else complain(error);
    if (latest) element("smooth").checked = timeline.recording.smoothed;
  } finally {
    if (abort === mine) element("cancel").hidden = true;
  }
}

async function decoded(file, name) {
  try {
    return await decodedByBrowser(file);
  } catch {
    throw new Error(`${name}: neither this browser nor the server can decode it; convert it to WAV or FLAC.`);
  }
}

async function show(file, name, signal) {
  const smooth = facts.can_smooth && element("smooth").checked;
  const recording = new Recording(await analyse(file, name, { smooth, signal }));
  latest = { file, name };
  const summary = `${duration(recording.duration)}, ${recording.segments.length} phones`;
  player.load(recording);
  element("result").hidden = false;
  element("result-title").textContent = recording.name;
  element("result-facts").textContent = summary;
  for (const [format, { name: fileName, text }] of Object.entries(recording.files)) {
    const link = element(`save-${format}`);
    URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
    link.download = fileName;
  }
  timeline.load(recording);
  fillTable();
  say("", { aloud: `${recording.name}: ${summary}.` });
}

function fillTable() {
  if (!element("table").open || !timeline.recording) return;
  const rows = timeline.recording.segments.map(({ phone, start, end, confidence }) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = phone;
    row.append(head);
    for (const value of [start, end, confidence]) row.insertCell().textContent = value.toFixed(3);
    return row;
  });
  element("rows").replaceChildren(...rows);
}

function takeDropped(event) {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const file = event.dataTransfer.files[0];
  if (file && facts && !stop) take(file, file.name);
}

element("choose").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", ({ target }) => {
  if (target.files[0]) take(target.files[0], target.files[0].name);
  target.value = ""; // so that the same file can be chosen again
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", takeDropped);
element("cancel").addEventListener("click", () => abort.abort());
element("smooth").addEventListener("change", () => {
  analysing(latest.name, (signal) => show(latest.file, latest.name, signal));
});
element("play").addEventListener("click", () => timeline.togglePlaying());
element("table").addEventListener("toggle", fillTable);

// ------------------------------------------------------------------------------------- the microphone

/** Turn a button into the stop button, and disable the others. */
function occupy(button, ending) {
  stop = ending;
  for (const id of ["choose", "record", "live"]) element(id).disabled = Boolean(ending) && id !== button;
  const label = element(button).querySelector(".label");
  label.dataset.idle ??= label.textContent;
  label.textContent = ending ? "Stop" : label.dataset.idle;
  element(button).classList.toggle("running", Boolean(ending));
  element("input-level").hidden = !ending;
}

function showLevel(value, seconds) {
  element("level").value = value;
  element("input-time").textContent = duration(seconds);
}

async function record() {
  complain(null);
  player.stop();
  element("live-view").hidden = true;
  const pieces = [];
  let heard = 0;
  const microphone = await Microphone.open({
    sampleRate: null,
    pieceSeconds: RECORDING_PIECE_S,
    onPiece: (piece, { sampleRate }) => {
      pieces.push(toInt16(piece));
      heard += piece.length / sampleRate;
      showLevel(level(piece), heard);
      if (heard + RECORDING_PIECE_S > facts.limits.duration_s) stop?.();
    },
  });
  say("Recording …");
  occupy("record", async () => {
    occupy("record", null);
    await microphone.close();
    await take(wavFile(pieces, microphone.sampleRate), "recording.wav");
  });
}

async function live() {
  complain(null);
  player.stop();
  const session = await LiveSession.begin(facts.sample_rate, {
    onPiece: ({ heard, sampleRate }, value) => {
      showLevel(value, heard / sampleRate);
      liveView.drawSoon();
    },
    onPhones: () => liveView.drawSoon(),
    onEnd: ({ segments, heard }, error) => {
      occupy("live", null);
      complain(error);
      if (!error) say(`Live: ${segments.length} phones.`);
      element("live-analyse").hidden = heard === 0;
    },
  });
  element("live-view").hidden = false;
  element("live-analyse").hidden = true;
  liveView.begin(session, new Set(facts.silences));
  say("Listening …");
  occupy("live", () => session.stop());
}

function startOrStop(button, start) {
  if (stop) {
    stop();
    return;
  }
  occupy(button, () => {}); // while the browser asks for permission
  start().catch((error) => {
    occupy(button, null);
    complain(error);
  });
}

element("record").addEventListener("click", () => startOrStop("record", record));
element("live").addEventListener("click", () => startOrStop("live", live));
element("live-analyse").addEventListener("click", () => {
  const { pieces, sampleRate } = liveView.session;
  take(wavFile(pieces, sampleRate), "live.wav");
});

// ----------------------------------------------------------------------------------------- the model

try {
  facts = await modelFacts();
  const { limits, symbols, parameters, lookahead_ms: lookahead, can_smooth: canSmooth, no_live: noLive } = facts;
  const millions = (parameters / 1e6).toFixed(parameters < 1e6 ? 2 : 1);
  element("model-facts").textContent =
    `${symbols.length} phones · ${millions} M parameters` +
    (lookahead === null ? "" : ` · ${Math.round(lookahead)} ms look-ahead`);
  element("model-about").textContent = facts.about;
  element("model-about").hidden = !facts.about;
  element("intake-limits").textContent =
    `WAV, FLAC, MP3, Ogg, AIFF, SPHERE, M4A; up to ${duration(limits.duration_s)} and ${limits.upload_mb} MB. ` +
    "Recordings are sent to this server and not stored.";
  element("smooth-option").hidden = element("smooth").disabled = !canSmooth;
  element("smooth").checked = canSmooth;
  const [noRecord, why] = [noMicrophone(), noLive ? `No live phones: ${noLive}.` : null];
  element("choose").disabled = false;
  element("record").disabled = noRecord !== null;
  element("live").disabled = noRecord !== null || why !== null;
  element("no-live").textContent = noRecord ?? why ?? "";
  element("no-live").hidden = !element("no-live").textContent;
} catch (error) {
  complain(error);
}
