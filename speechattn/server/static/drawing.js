// Tracks on canvases. A view is the visible part of a recording: {start, scale, width} in s, pixels per s, and pixels.

import { Spectrometer } from "./spectrum.js";

const DYNAMIC_RANGE = 60; // decibels from the lightest to the darkest colour
const TILE_WIDTH = 128; // width in pixels of a cached part of the spectrogram
const MOST_TILES = 64;

/** Colours of the current mode, light or dark. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: colour("ink"),
    quiet: colour("quiet"),
    line: colour("line"),
    wave: colour("wave"),
    energy: ramp([colour("energy-low"), colour("energy-middle"), colour("energy-high")]),
    posterior: ramp([`${colour("posterior")}00`, colour("posterior"), colour("posterior-high")]),
  };
}

/** A palette of 256 colours interpolated between the given ones (#rrggbb or #rrggbbaa), in image byte order. */
function ramp(colours) {
  const stops = colours.map((colour) => `${colour}ff`.match(/[0-9a-f]{2}/g).map((digits) => parseInt(digits, 16)));
  const table = new Uint32Array(256);
  const bytes = new Uint8ClampedArray(table.buffer);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (stops.length - 1);
    const before = Math.min(Math.floor(place), stops.length - 2);
    for (let channel = 0; channel < 4; channel++) {
      const [from, to] = [stops[before][channel], stops[before + 1][channel]];
      bytes[4 * i + channel] = from + (place - before) * (to - from);
    }
  }
  return table;
}

/** A canvas's context, cleared, in CSS pixels. */
function cleared(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth, clientHeight } = canvas;
  const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, clientWidth, clientHeight);
  return context;
}

export function drawAxis(canvas, view, colours) {
  const context = cleared(canvas);
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10].find((seconds) => seconds * view.scale >= 64) ?? 20;
  const decimals = Math.max(0, Math.ceil(-Math.log10(step)));
  context.font = getComputedStyle(canvas).font;
  context.fillStyle = colours.quiet;
  context.textBaseline = "middle";
  for (let tick = Math.floor(view.start / step); ; tick++) {
    const x = (tick * step - view.start) * view.scale;
    if (x > view.width) break;
    context.fillRect(Math.round(x), canvas.clientHeight - 6, 1, 6);
    context.fillText(`${(tick * step).toFixed(decimals)}${tick === 0 ? " s" : ""}`, x + 4, canvas.clientHeight / 2);
  }
}

/** Minimum and maximum of the samples of every half pixel; `peak` fills the height. */
export function drawWaveform(canvas, view, samples, sampleRate, peak, colours) {
  const context = cleared(canvas);
  const middle = canvas.clientHeight / 2;
  context.fillStyle = colours.line;
  context.fillRect(0, Math.round(middle), view.width, 1);
  context.fillStyle = colours.wave;
  for (let x = 0; x < view.width; x += 0.5) {
    const first = Math.floor((view.start + x / view.scale) * sampleRate);
    const end = Math.max(Math.floor((view.start + (x + 0.5) / view.scale) * sampleRate), first + 1);
    if (first < 0 || first >= samples.length) continue;
    let [low, high] = [samples[first], samples[first]];
    for (let i = first + 1; i <= end && i < samples.length; i++) {
      if (samples[i] < low) low = samples[i];
      else if (samples[i] > high) high = samples[i];
    }
    context.fillRect(x, middle - (high / peak) * middle, 0.5, Math.max(((high - low) / peak) * middle, 1));
  }
}

/** The posterior of every phone, one row each; the maximum if several frames share a pixel. */
export function drawPosteriors(canvas, view, recording, colours) {
  const context = cleared(canvas);
  const rows = recording.symbols.length;
  const columns = Math.ceil(Math.min(view.width, (recording.duration - view.start) * view.scale));
  if (columns <= 0) return;
  const image = new ImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  for (let x = 0; x < columns; x++) {
    const first = recording.frameAt(view.start + x / view.scale);
    const last = Math.max(recording.frameAt(view.start + (x + 1) / view.scale) - 1, first);
    for (let row = 0; row < rows; row++) {
      let largest = 0;
      for (let frame = first; frame <= last; frame++) {
        largest = Math.max(largest, recording.posteriors[frame * rows + row]);
      }
      pixels[row * columns + x] = colours.posterior[largest >> 8];
    }
  }
  context.imageSmoothingEnabled = false;
  context.drawImage(asCanvas(image), 0, 0, columns, canvas.clientHeight);
}

/** A spectrogram that caches its parts. */
export class SpectrogramTrack {
  constructor(sampleRate, loudest) {
    this.sampleRate = sampleRate;
    this.spectrometer = new Spectrometer(sampleRate);
    this.decibels = new Float32Array(this.spectrometer.bins);
    this.tiles = new Map();
    this.loudest = loudest;
  }

  /** Set the level of the darkest colour. */
  set loudest(decibels) {
    this.level = decibels;
    this.tiles.clear();
  }

  get loudest() {
    return this.level;
  }

  draw(canvas, view, samples, colours) {
    const context = cleared(canvas);
    if (this.scale !== view.scale || this.colours !== colours) this.tiles.clear();
    [this.scale, this.colours] = [view.scale, colours];
    const left = view.start * view.scale;
    const end = Math.min(left + view.width, (samples.length / this.sampleRate) * view.scale);
    for (let number = Math.max(Math.floor(left / TILE_WIDTH), 0); number * TILE_WIDTH < end; number++) {
      context.drawImage(this.tile(number, samples), number * TILE_WIDTH - left, 0, TILE_WIDTH, canvas.clientHeight);
    }
  }

  tile(number, samples) {
    const kept = this.tiles.get(number);
    if (kept) return kept;
    const { bins } = this.spectrometer;
    const image = new ImageData(TILE_WIDTH, bins);
    const pixels = new Uint32Array(image.data.buffer);
    const samplesPerPixel = this.sampleRate / this.scale;
    for (let x = 0; x < TILE_WIDTH; x++) {
      const centre = (number * TILE_WIDTH + x + 0.5) * samplesPerPixel;
      if (centre >= samples.length) break;
      this.spectrometer.column(samples, centre, this.decibels);
      for (let bin = 0; bin < bins; bin++) {
        const share = 1 + (this.decibels[bin] - this.level) / DYNAMIC_RANGE;
        pixels[(bins - 1 - bin) * TILE_WIDTH + x] = this.colours.energy[Math.min(Math.max(share, 0), 1) * 255 | 0];
      }
    }
    const tile = asCanvas(image);
    if ((number + 1) * TILE_WIDTH * samplesPerPixel + this.spectrometer.windowLength <= samples.length) {
      if (this.tiles.size >= MOST_TILES) this.tiles.delete(this.tiles.keys().next().value); // the oldest
      this.tiles.set(number, tile);
    }
    return tile;
  }
}

function asCanvas(image) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: image.width, height: image.height });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
