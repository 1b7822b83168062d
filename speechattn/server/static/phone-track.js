// The row of phones: a list box with the visible segments as options, for mouse and keyboard.

import { percent } from "./recording.js";

const LETTER = 10; // width of a letter in pixels
const SMALL_LETTER = 7;

/** A phone's box in a row. */
export function phoneBox(segment, view, silences) {
  const box = document.createElement("div");
  const width = (segment.end - segment.start) * view.scale;
  box.className = silences.has(segment.phone) ? "phone silence" : "phone";
  box.style.left = `${(segment.start - view.start) * view.scale}px`;
  box.style.width = `${width}px`;
  box.style.setProperty("--confidence", segment.confidence.toFixed(3));
  box.classList.toggle("tight", width < LETTER * segment.phone.length + 2);
  if (width >= SMALL_LETTER * segment.phone.length + 2) box.textContent = segment.phone;
  return box;
}

export class PhoneTrack {
  /** Callbacks: onSelect(first, last) when keys change the selection, onPlay() for Space and Enter. */
  constructor(element, { onSelect, onPlay, onClear }) {
    this.element = element;
    this.selected = null; // [anchor, active]: indices of segments, in either order
    this.onSelect = onSelect;
    element.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key in moves) this.move(moves[event.key], event.shiftKey);
      else if (event.key === " " || event.key === "Enter") onPlay();
      else if (event.key === "Escape") onClear();
      else return;
      event.preventDefault();
    });
  }

  load(recording) {
    this.recording = recording;
    this.selected = null;
  }

  /** The selected part in seconds, or null. */
  get stretch() {
    if (!this.selected) return null;
    const [first, last] = [Math.min(...this.selected), Math.max(...this.selected)];
    const { segments } = this.recording;
    return { first, last, start: segments[first].start, end: segments[last].end };
  }

  move(steps, extend) {
    const last = this.recording.segments.length - 1;
    const from = this.selected ? this.selected[1] + steps : steps === 1 ? 0 : steps;
    this.select(Math.min(Math.max(from, 0), last), extend);
  }

  select(number, extend = false) {
    this.selected = [extend && this.selected ? this.selected[0] : number, number];
    this.onSelect();
  }

  clear() {
    this.selected = null;
    this.onSelect();
  }

  /** Draw the phones of a view. */
  draw(view) {
    const { segments, silences } = this.recording;
    const { first, last } = this.stretch ?? { first: 0, last: -1 };
    const boxes = [];
    const end = view.start + view.width / view.scale;
    for (let number = this.recording.segmentAt(view.start); number < segments.length; number++) {
      const segment = segments[number];
      if (segment.start >= end) break;
      const box = phoneBox(segment, view, silences);
      box.id = `phone-${number}`;
      box.setAttribute("role", "option");
      box.setAttribute("aria-label", this.spoken(segment));
      box.setAttribute("aria-selected", first <= number && number <= last);
      box.setAttribute("aria-setsize", segments.length);
      box.setAttribute("aria-posinset", number + 1);
      boxes.push(box);
    }
    this.element.replaceChildren(...boxes);
    const active = this.selected && document.getElementById(`phone-${this.selected[1]}`);
    if (active) this.element.setAttribute("aria-activedescendant", active.id);
    else this.element.removeAttribute("aria-activedescendant");
  }

  /** Description of a segment for screen readers. */
  spoken({ phone, start, end }) {
    const likeliest = this.recording.likeliest(start, end).map(({ symbol, share }) => `${symbol} ${percent(share)}`);
    return `${phone}, ${start.toFixed(2)} to ${end.toFixed(2)} seconds; likeliest ${likeliest.join(", ")}`;
  }
}
