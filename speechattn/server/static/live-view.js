// The last seconds of a live session, with the phones known so far.

import { SpectrogramTrack, drawWaveform, palette } from "./drawing.js";
import { phoneBox } from "./phone-track.js";

const VIEW_S = 6;
const QUIET_DB = -30; // lowest level of the darkest colour of the spectrogram
const SHOWN = 400; // phones in the transcript

const element = (id) => document.getElementById(id);

export class LiveView {
  constructor() {
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (this.colours = null));
  }

  /** Start showing a new session. */
  begin(session, silences) {
    this.session = session;
    this.silences = silences;
    this.samples = new Int16Array(session.sampleRate * 60); // grows
    this.copied = { pieces: 0, samples: 0 };
    this.spectrogram = new SpectrogramTrack(session.sampleRate, QUIET_DB);
    this.peak = 3000;
    this.shown = 0;
    element("live-transcript").replaceChildren();
    element("live-latency").textContent = "";
    this.drawSoon();
  }

  drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.session) this.draw();
    });
  }

  draw() {
    const { session } = this;
    this.colours ??= palette();
    this.copy();
    const width = element("live-waveform").clientWidth;
    const now = this.copied.samples / session.sampleRate;
    // With reduced motion, the view moves on only when it is full.
    const start = this.still.matches ? Math.floor(now / VIEW_S) * VIEW_S : now - VIEW_S;
    const view = { start, scale: width / VIEW_S, width };
    const samples = this.samples.subarray(0, this.copied.samples);
    drawWaveform(element("live-waveform"), view, samples, session.sampleRate, this.peak, this.colours);
    this.spectrogram.draw(element("live-spectrogram"), view, samples, this.colours);
    this.drawPhones(view);
  }

  /** Add the new samples, and adapt the range to louder ones. */
  copy() {
    const { session, copied } = this;
    const { spectrometer } = this.spectrogram;
    for (; copied.pieces < session.pieces.length; copied.pieces++) {
      const piece = session.pieces[copied.pieces];
      if (copied.samples + piece.length > this.samples.length) {
        const larger = new Int16Array(2 * this.samples.length);
        larger.set(this.samples);
        this.samples = larger;
      }
      this.samples.set(piece, copied.samples);
      copied.samples += piece.length;
      this.peak = piece.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), this.peak);
      const loudest = spectrometer.loudest(piece, 4);
      if (loudest > this.spectrogram.loudest) this.spectrogram.loudest = loudest + 3;
    }
  }

  drawPhones(view) {
    const { segments, unfinished, delay } = this.session;
    const boxes = [];
    for (let number = segments.length - 1; number >= 0 && segments[number].end > view.start; number--) {
      boxes.push(phoneBox(segments[number], view, this.silences));
    }
    if (unfinished) {
      const box = phoneBox(unfinished, view, this.silences);
      box.classList.add("unfinished");
      boxes.push(box);
    }
    element("live-phones").replaceChildren(...boxes);
    if (this.shown === segments.length) return;
    const transcript = element("live-transcript");
    for (; this.shown < segments.length; this.shown++) {
      const { phone, confidence } = segments[this.shown];
      const word = document.createElement("span");
      word.textContent = this.silences.has(phone) ? "· " : `${phone} `;
      word.style.setProperty("--confidence", confidence.toFixed(3));
      transcript.append(word);
    }
    while (transcript.children.length > SHOWN) transcript.firstChild.remove();
    transcript.scrollTop = transcript.scrollHeight;
    element("live-latency").textContent = `phones appear ${Math.round(1000 * delay)} ms after their end`;
  }
}
