// A wideband spectrogram, column by column, as in Praat: Gaussian windows with an effective length of 5 ms, and
// pre-emphasis of 6 dB per octave above 1 kHz (Praat manual, "Sound: To Spectrogram..." and
// "Spectrogram: Paint...").

const WINDOW_S = 0.01; // the Gaussian is truncated at twice its effective length
const QUIETEST = 1e-12; // lowest power, -120 dB

export class Spectrometer {
  constructor(sampleRate) {
    this.windowLength = Math.round(WINDOW_S * sampleRate);
    this.size = 2 ** Math.ceil(Math.log2(2 * this.windowLength)); // of the Fourier transform, with zero padding
    this.bins = this.size / 2 + 1;
    this.window = gaussian(this.windowLength);
    this.fourier = new Fourier(this.size);
    this.real = new Float64Array(this.size);
    this.imaginary = new Float64Array(this.size);
    this.scale = 1 / this.window.reduce((sum, weight) => sum + weight, 0) ** 2;
    this.slope = Float64Array.from({ length: this.bins }, (_, bin) => {
      return 6 * Math.log2((Math.max(bin, 1) * sampleRate) / this.size / 1000);
    });
  }

  /** Compute the spectrum in dB of the window around a sample; the signal is 0 beyond its ends. */
  column(samples, centre, decibels) {
    const { real, imaginary, window, windowLength, bins } = this;
    real.fill(0);
    imaginary.fill(0);
    const first = Math.round(centre) - (windowLength >> 1);
    for (let i = Math.max(0, -first); i < windowLength && first + i < samples.length; i++) {
      real[i] = (window[i] * samples[first + i]) / 32768;
    }
    this.fourier.transform(real, imaginary);
    for (let bin = 0; bin < bins; bin++) {
      const power = this.scale * (real[bin] ** 2 + imaginary[bin] ** 2);
      decibels[bin] = 10 * Math.log10(power + QUIETEST) + this.slope[bin];
    }
    return decibels;
  }

  /** The maximum level of a signal in dB, estimated at up to `count` positions. */
  loudest(samples, count = 3000) {
    const decibels = new Float32Array(this.bins);
    const step = Math.max(this.windowLength, samples.length / count);
    let loudest = -Infinity;
    for (let centre = step / 2; centre < samples.length; centre += step) {
      for (const value of this.column(samples, centre, decibels)) if (value > loudest) loudest = value;
    }
    return loudest;
  }
}

function gaussian(length) {
  const edge = Math.exp(-12);
  return Float64Array.from({ length }, (_, i) => {
    const place = (i - (length - 1) / 2) / (length + 1);
    return (Math.exp(-48 * place ** 2) - edge) / (1 - edge);
  });
}

/** Fast Fourier transform (Cooley and Tukey) of one size, a power of two, in place. */
export class Fourier {
  constructor(size) {
    this.size = size;
    this.cosines = Float64Array.from({ length: size / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / size));
    this.sines = Float64Array.from({ length: size / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / size));
    const bits = Math.log2(size);
    this.reversed = Uint32Array.from({ length: size }, (_, i) => {
      let mirrored = 0;
      for (let bit = 0; bit < bits; bit++) mirrored |= ((i >> bit) & 1) << (bits - 1 - bit);
      return mirrored;
    });
  }

  transform(real, imaginary) {
    const { size, cosines, sines, reversed } = this;
    for (let i = 0; i < size; i++) {
      const j = reversed[i];
      if (j > i) {
        [real[i], real[j]] = [real[j], real[i]];
        [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
      }
    }
    for (let half = 1; half < size; half *= 2) {
      const stride = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let i = 0; i < half; i++) {
          const upper = start + i;
          const lower = upper + half;
          const c = cosines[i * stride];
          const s = sines[i * stride];
          const x = c * real[lower] - s * imaginary[lower];
          const y = s * real[lower] + c * imaginary[lower];
          real[lower] = real[upper] - x;
          imaginary[lower] = imaginary[upper] - y;
          real[upper] += x;
          imaginary[upper] += y;
        }
      }
    }
  }
}
