// Plays parts of a recording from the model's input: the server's samples, not the file.

export class Player {
  /** onChange() is called when playback starts and ends. */
  constructor(onChange) {
    this.onChange = onChange;
    this.source = null;
  }

  load(recording) {
    this.stop();
    this.recording = recording;
    this.buffer = null;
  }

  get playing() {
    return this.source !== null;
  }

  /** Current position in the recording, in seconds. */
  get time() {
    const latency = this.context.outputLatency || 0; // not in every browser
    return Math.min(Math.max(this.from + this.context.currentTime - this.began - latency, this.from), this.to);
  }

  async play(from, to) {
    this.stop();
    this.context ??= new AudioContext();
    await this.context.resume(); // browsers allow playback only after a key or click
    this.stop(); // of two waiting calls, the last one plays
    this.buffer ??= this.decoded();
    const source = new AudioBufferSourceNode(this.context, { buffer: this.buffer });
    source.connect(this.context.destination);
    source.onended = () => {
      if (this.source === source) this.stop();
    };
    [this.source, this.from, this.to, this.began] = [source, from, to, this.context.currentTime];
    source.start(0, from, to - from);
    this.onChange();
  }

  stop() {
    if (!this.source) return;
    const source = this.source;
    this.source = null;
    source.stop();
    this.onChange();
  }

  decoded() {
    const { samples, sampleRate } = this.recording;
    const buffer = new AudioBuffer({ length: samples.length, sampleRate, numberOfChannels: 1 });
    const channel = buffer.getChannelData(0);
    for (let i = 0; i < samples.length; i++) channel[i] = samples[i] / 32768;
    return buffer;
  }
}
