// The microphone: one channel, in pieces, without the browser's noise suppression and other processing, which would
// change the sound of phones.

const PROCESSING = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
const LONGEST_FINISH_MS = 1000; // a disconnected microphone may never send its last piece
const REASONS = {
  NotAllowedError: "Permission to use the microphone was denied.",
  NotFoundError: "No microphone found.",
  NotReadableError: "The microphone is in use by another program, or does not work.",
  NotSupportedError: "This browser cannot resample the microphone to the model's rate. Use Record instead.",
};

/** The reason why this page has no microphone, or null. */
export function noMicrophone() {
  if (!window.isSecureContext) return "Browsers allow the microphone only over HTTPS or on the same machine.";
  return navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode ? null : "This browser does not support microphones.";
}

export class Microphone {
  /** Open the microphone. onPiece(Float32Array of pieceSeconds, microphone); sampleRate null: the device's rate. */
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

  /** Close the microphone; resolves after the last piece. */
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

/** The peak level of a piece, from 0 (-60 dB) to 1 (full scale). */
export function level(piece) {
  const peak = piece.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  return Math.min(Math.max(1 + Math.log10(peak) / 3, 0), 1);
}
