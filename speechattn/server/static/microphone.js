// The microphone: one channel of samples in pieces, without the browser's noise suppression and the like, which would
// change what a phone sounds like.

const PROCESSING = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
const LONGEST_FINISH_MS = 1000; // a microphone that was taken away may never give its last piece
const REASONS = {
  NotAllowedError: "The browser was not allowed to use the microphone.",
  NotFoundError: "There is no microphone.",
  NotReadableError: "The microphone is in use elsewhere, or does not work.",
  NotSupportedError: "This browser cannot turn the microphone's sample rate into the model's. Record instead.",
};

/** Why there can be no microphone on this page, or null. */
export function noMicrophone() {
  if (!window.isSecureContext) return "Browsers give a microphone only to pages over HTTPS or of the same machine.";
  return navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode ? null : "This browser offers no microphone.";
}

export class Microphone {
  /** Open it. onPiece gets Float32Arrays of pieceSeconds each, and itself; sampleRate: null for the device's own. */
  static async open({ sampleRate, pieceSeconds, onPiece }) {
    const microphone = new Microphone();
    try {
      microphone.stream = await navigator.mediaDevices.getUserMedia({ audio: PROCESSING });
      microphone.context = new AudioContext(sampleRate ? { sampleRate } : {});
      microphone.sampleRate = microphone.context.sampleRate;
      await microphone.context.audioWorklet.addModule(new URL("microphone-worklet.js", import.meta.url));
      const source = microphone.context.createMediaStreamSource(microphone.stream);
      const options = { size: Math.round(pieceSeconds * microphone.sampleRate) };
      microphone.collector = new AudioWorkletNode(microphone.context, "collector", {
        numberOfOutputs: 0,
        channelCount: 1,
        channelCountMode: "explicit",
        processorOptions: options,
      });
      microphone.finished = new Promise((resolve) => {
        microphone.collector.port.onmessage = ({ data }) => (data ? onPiece(data, microphone) : resolve());
      });
      source.connect(microphone.collector);
      await microphone.context.resume();
    } catch (error) {
      microphone.release();
      throw new Error(REASONS[error.name] ?? `The microphone cannot be used: ${error.message}`);
    }
    return microphone;
  }

  /** Close it; resolves when the last piece has been given out. */
  async close() {
    this.collector.port.postMessage("finish");
    await Promise.race([this.finished, new Promise((resolve) => setTimeout(resolve, LONGEST_FINISH_MS))]);
    this.release();
  }

  release() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.context?.close();
  }
}

/** How loud a piece is: its peak, from 0 for -60 dB to 1 for the loudest there is. */
export function level(piece) {
  const peak = piece.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  return Math.min(Math.max(1 + Math.log10(peak) / 3, 0), 1);
}
