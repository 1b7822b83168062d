// The timeline of a recording: all tracks of the visible part, a cursor, and the likeliest phones below it.
//
// The scroller contains a spacer as wide as the whole recording, so that the browser does the scrolling; the stage with
// the tracks stays in view and is drawn for the scroll position.

import { SpectrogramTrack, drawAxis, drawPosteriors, drawWaveform, palette } from "./drawing.js";
import { PhoneTrack } from "./phone-track.js";
import { percent } from "./recording.js";

const LONGEST_VIEW_S = 30;
const USUAL_SCALE = 240; // pixels per second; phones are readable
const LARGEST_SCALE = 4000;
const ZOOM = 1.5;

const element = (id) => document.getElementById(id);

export class Timeline {
  constructor(player) {
    this.player = player;
    this.scroller = element("scroller");
    this.stage = element("stage");
    this.track = new PhoneTrack(element("phones"), {
      onSelect: () => this.selectionChanged(),
      onPlay: () => this.togglePlaying(),
      onClear: () => this.track.clear(),
    });
    this.pointed = null; // time at the pointer
    this.listen();
  }

  listen() {
    const { scroller, stage } = this;
    scroller.addEventListener("scroll", () => this.drawSoon());
    new ResizeObserver(() => this.recording && this.zoom(1)).observe(scroller);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.colours = null;
      this.drawSoon();
    });
    stage.addEventListener("pointermove", (event) => this.pointAt(this.timeOf(event)));
    stage.addEventListener("pointerleave", () => this.pointAt(null));
    stage.addEventListener("click", (event) => {
      this.track.select(this.recording.segmentAt(this.timeOf(event)), event.shiftKey);
      this.track.element.focus({ preventScroll: true });
      this.playSelection();
    });
    scroller.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey) return;
        event.preventDefault(); // or the browser would zoom the page
        this.zoom(event.deltaY < 0 ? ZOOM : 1 / ZOOM, this.timeOf(event));
      },
      { passive: false },
    );
    element("zoom-in").addEventListener("click", () => this.zoom(ZOOM));
    element("zoom-out").addEventListener("click", () => this.zoom(1 / ZOOM));
    element("result").addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key === "+" || event.key === "=") this.zoom(ZOOM);
      else if (event.key === "-") this.zoom(1 / ZOOM);
    });
  }

  /** Show a recording; element("result") must be visible. */
  load(recording) {
    const same = this.recording?.samples.length === recording.samples.length && this.recording.name === recording.name;
    this.recording = recording;
    this.spectrogram = new SpectrogramTrack(recording.sampleRate, 0);
    this.spectrogram.loudest = this.spectrogram.spectrometer.loudest(recording.samples);
    this.track.load(recording);
    this.nameRows();
    if (!same) {
      this.scale = Math.max(this.scroller.clientWidth / recording.duration, USUAL_SCALE);
      this.scroller.scrollLeft = 0;
    }
    this.zoom(1);
    this.selectionChanged();
  }

  nameRows() {
    const names = this.recording.symbols.map((symbol) => {
      const name = document.createElement("span");
      name.textContent = symbol;
      return name;
    });
    element("posterior-names").replaceChildren(...names);
    element("timeline").style.setProperty("--phones", names.length);
    const kilohertz = Math.floor(this.recording.sampleRate / 4000) * 2;
    const marks = Array.from({ length: kilohertz / 2 + 1 }, (_, i) => {
      const mark = document.createElement("span");
      mark.textContent = 2 * i === kilohertz ? `${2 * i} kHz` : 2 * i;
      mark.style.bottom = `${(100 * 2000 * 2 * i) / this.recording.sampleRate}%`;
      return mark;
    });
    element("frequencies").replaceChildren(...marks);
  }

  get view() {
    const width = this.scroller.clientWidth;
    return { start: this.scroller.scrollLeft / this.scale, scale: this.scale, width };
  }

  timeOf(event) {
    const x = event.clientX - this.scroller.getBoundingClientRect().left;
    return Math.min(Math.max(this.view.start + x / this.scale, 0), this.recording.duration);
  }

  /** Zoom by a factor around a time (default: the middle of the selection or the view). */
  zoom(factor, fixed = this.middle()) {
    const { scroller, recording, view } = this;
    const place = (fixed - view.start) * this.scale;
    const smallest = view.width / Math.min(recording.duration, LONGEST_VIEW_S);
    this.scale = Math.max(Math.min(this.scale * factor, LARGEST_SCALE), smallest);
    element("spacer").style.width = `${recording.duration * this.scale}px`;
    scroller.scrollLeft = fixed * this.scale - place;
    this.drawSoon();
  }

  middle() {
    const { start, scale, width } = this.view;
    const [end, stretch] = [start + width / scale, this.track.stretch];
    if (stretch && stretch.start < end && stretch.end > start) return (stretch.start + stretch.end) / 2;
    return (start + end) / 2;
  }

  drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.recording) this.draw();
    });
  }

  draw() {
    this.colours ??= palette();
    const { recording, view, colours } = this;
    const { samples, sampleRate, peak } = recording;
    drawAxis(element("axis"), view, colours);
    drawWaveform(element("waveform"), view, samples, sampleRate, peak, colours);
    this.spectrogram.draw(element("spectrogram"), view, samples, colours);
    this.track.draw(view);
    drawPosteriors(element("posteriors"), view, recording, colours);
    const stretch = this.track.stretch;
    this.mark("selection", stretch?.start, stretch?.end);
    this.mark("crosshair", this.pointed);
    this.mark("playhead", this.player.playing ? this.player.time : null);
  }

  /** Show or hide a line or a box over all tracks. */
  mark(id, start, end = start) {
    const { view } = this;
    const mark = element(id);
    mark.hidden = start === null || start === undefined;
    if (mark.hidden) return;
    mark.style.left = `${(start - view.start) * view.scale}px`;
    mark.style.width = `${(end - start) * view.scale}px`;
  }

  pointAt(time) {
    this.pointed = time;
    this.drawReadout();
    this.mark("crosshair", time);
  }

  selectionChanged() {
    const stretch = this.track.stretch;
    if (stretch) this.bringIntoView(this.recording.segments[this.track.selected[1]]);
    this.labelPlay();
    this.drawReadout();
    this.drawSoon();
  }

  bringIntoView({ start, end }) {
    const { view, scroller } = this;
    if (start >= view.start && end <= view.start + view.width / view.scale) return;
    scroller.scrollLeft = ((start + end) / 2) * view.scale - view.width / 2;
  }

  /** Show the likeliest phones of the frame at the pointer, or of the selection. */
  drawReadout() {
    const stretch = this.track.stretch;
    const readout = element("readout");
    if (this.pointed === null && !stretch) {
      readout.replaceChildren("Point at a track or select a phone to see the likeliest phones.");
      return;
    }
    const [start, end] = this.pointed === null ? [stretch.start, stretch.end] : [this.pointed, this.pointed];
    const when = document.createElement("span");
    when.className = "when";
    when.textContent = this.pointed === null ? `${start.toFixed(3)}–${end.toFixed(3)} s` : `${start.toFixed(3)} s`;
    const likeliest = this.recording.likeliest(start, end).map(({ symbol, share }) => {
      const reading = document.createElement("span");
      reading.className = "reading";
      reading.style.setProperty("--share", share.toFixed(3));
      const name = document.createElement("b");
      name.textContent = symbol;
      reading.append(name, ` ${percent(share)}`);
      return reading;
    });
    readout.replaceChildren(when, ...likeliest);
  }

  togglePlaying() {
    if (this.player.playing) this.player.stop();
    else this.playSelection();
  }

  playSelection() {
    const { start, end } = this.track.stretch ?? { start: 0, end: this.recording.duration };
    this.player.play(start, Math.min(end, this.recording.samples.length / this.recording.sampleRate));
  }

  /** Call when playback starts or ends; follows the position. */
  playingChanged() {
    this.labelPlay();
    this.followed ??= requestAnimationFrame(() => this.follow());
  }

  follow() {
    const { player, view } = this;
    this.followed = null;
    this.mark("playhead", player.playing ? player.time : null);
    if (!player.playing) return;
    if (player.time < view.start || player.time > view.start + view.width / view.scale) {
      this.scroller.scrollLeft = player.time * view.scale - 0.1 * view.width;
    }
    this.followed = requestAnimationFrame(() => this.follow());
  }

  labelPlay() {
    const { stretch } = this.track;
    const phones = stretch && this.recording.segments.slice(stretch.first, stretch.last + 1).map(({ phone }) => phone);
    const what = !phones ? "all" : phones.length > 3 ? `${phones.length} phones` : phones.join(" ");
    element("play").textContent = this.player.playing ? "Stop" : `Play ${what}`;
  }
}
