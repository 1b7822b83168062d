// Collects the microphone's samples into pieces of equal size, on the audio thread.

class Collector extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.piece = new Float32Array(processorOptions.size);
    this.filled = 0;
    this.finished = false;
    this.port.onmessage = () => this.finish();
  }

  process([channels]) {
    if (this.finished) return false;
    const samples = channels[0]; // none while the source is silent
    for (let taken = 0; samples && taken < samples.length; ) {
      const part = samples.subarray(taken, taken + this.piece.length - this.filled);
      this.piece.set(part, this.filled);
      this.filled += part.length;
      taken += part.length;
      if (this.filled === this.piece.length) this.post();
    }
    return true;
  }

  post() {
    this.port.postMessage(this.piece.slice(0, this.filled));
    this.filled = 0;
  }

  finish() {
    if (this.filled) this.post();
    this.finished = true;
    this.port.postMessage(null);
  }
}

registerProcessor("collector", Collector);
