// A recording and its prediction. Times are in seconds.

export class Recording {
  constructor(data) {
    this.name = data.name;
    this.duration = data.duration;
    this.segments = data.segments;
    this.symbols = data.symbols;
    this.silences = new Set(data.silences);
    this.files = data.files;
    this.smoothed = data.smoothed;
    this.sampleRate = data.sample_rate;
    this.samples = new Int16Array(decoded(data.samples));
    this.peak = this.samples.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 1);
    this.posteriors = new Uint16Array(decoded(data.posteriors)); // symbols.length values per frame
    this.numFrames = data.frames.count;
    this.hop = data.frames.hop / data.sample_rate;
    this.firstOwned = (data.frames.first_centre - data.frames.hop / 2) / data.sample_rate;
  }

  /** The frame at a time: each covers the hop around its centre, the first and last also the rest. */
  frameAt(time) {
    const frame = Math.floor((time - this.firstOwned) / this.hop);
    return Math.min(Math.max(frame, 0), this.numFrames - 1);
  }

  /** Index of the segment at a time. */
  segmentAt(time) {
    let low = 0;
    let high = this.segments.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.segments[middle].start <= time) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** The likeliest phones of a part, by mean posterior over its frames. */
  likeliest(start, end, count = 3) {
    const first = this.frameAt(start);
    const last = Math.max(this.frameAt(end - this.hop / 2), first);
    const size = this.symbols.length;
    const sums = new Float64Array(size);
    for (let frame = first; frame <= last; frame++) {
      for (let phone = 0; phone < size; phone++) sums[phone] += this.posteriors[frame * size + phone];
    }
    const scale = 65535 * (last - first + 1);
    return Array.from(sums, (sum, phone) => ({ symbol: this.symbols[phone], share: sum / scale }))
      .sort((a, b) => b.share - a.share)
      .slice(0, count);
  }
}

/** "87 %"; 100 % and 0 % only if exact. */
export function percent(share) {
  if (share < 0.005) return share > 0 ? "<1 %" : "0 %";
  return share > 0.995 && share < 1 ? ">99 %" : `${Math.round(100 * share)} %`;
}

function decoded(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes.buffer;
}
