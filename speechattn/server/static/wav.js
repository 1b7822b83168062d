// Samples as 16-bit integers and as WAV files.

export function toInt16(floats) {
  const integers = new Int16Array(floats.length);
  for (let i = 0; i < floats.length; i++) {
    integers[i] = Math.max(-32768, Math.min(32767, Math.round(32768 * floats[i])));
  }
  return integers;
}

/** A WAV file of one channel of 16-bit samples, given in pieces. */
export function wavFile(pieces, sampleRate) {
  const size = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
  const header = new DataView(new ArrayBuffer(44));
  const text = (place, word) => [...word].forEach((letter, i) => header.setUint8(place + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + size, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); // integers
  header.setUint16(22, 1, true); // channel
  header.setUint32(24, sampleRate, true);
  header.setUint32(28, 2 * sampleRate, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, size, true);
  return new Blob([header, ...pieces], { type: "audio/wav" });
}

/** Convert a file that only the browser can decode to a WAV file with the mean of its channels. */
export async function decodedByBrowser(file) {
  const context = new OfflineAudioContext(1, 1, 48000);
  const buffer = await context.decodeAudioData(await file.arrayBuffer());
  const mean = new Float32Array(buffer.length);
  for (let number = 0; number < buffer.numberOfChannels; number++) {
    const channel = buffer.getChannelData(number);
    for (let i = 0; i < mean.length; i++) mean[i] += channel[i] / buffer.numberOfChannels;
  }
  return wavFile([toInt16(mean)], buffer.sampleRate);
}
