// A live session: sends the microphone's samples to the server, and receives phones once they are final.

import { liveSocket } from "./api.js";
import { Microphone, level } from "./microphone.js";
import { toInt16 } from "./wav.js";

const PIECE_S = 0.1;
const MAX_MESSAGE_BYTES = 65536; // as in the server
const MOST_BEHIND_S = 10;

export class LiveSession {
  /**
   * Start a session. Callbacks: onPiece(session, level) for every piece of audio, onPhones(session) when phones arrive,
   * onEnd(session, error) once; error is null if it was stopped or reached the time limit.
   */
  static async begin(sampleRate, { onPiece, onPhones, onEnd }) {
    const session = new LiveSession(sampleRate, onPhones);
    session.microphone = await Microphone.open({
      sampleRate,
      pieceSeconds: PIECE_S,
      onPiece: (piece) => {
        session.hear(toInt16(piece));
        onPiece(session, level(piece));
      },
    });
    try {
      await session.connect(); // after the microphone was allowed, since the server does not wait long
    } catch (error) {
      session.microphone.release();
      session.socket.close();
      throw error;
    }
    session.ended.then(async (error) => {
      await session.microphone?.close();
      session.socket.close();
      onEnd(session, error);
    });
    return session;
  }

  constructor(sampleRate, onPhones) {
    this.sampleRate = sampleRate;
    this.onPhones = onPhones;
    this.mostPieces = Math.floor(MAX_MESSAGE_BYTES / (2 * PIECE_S * sampleRate)); // per message
    this.answered = false; // whether the server has answered the last message
    this.segments = []; // final phones
    this.unfinished = null;
    this.delays = []; // in seconds, from the end of a phone to its arrival
    this.pieces = []; // recorded audio, Int16Arrays
    this.heard = 0; // number of samples in them
    this.sent = 0; // number of pieces
  }

  connect() {
    this.socket = liveSocket();
    this.ended = new Promise((resolve) => (this.end = resolve));
    return new Promise((resolve, reject) => {
      const fail = (message) => {
        reject(new Error(message));
        this.end(new Error(message));
      };
      this.socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "ready") resolve();
        else if (message.type === "error") fail(message.error);
        else this.take(message);
        this.answered = true;
        this.send();
      };
      this.socket.onclose = () => fail("The connection to the server was lost.");
    });
  }

  hear(piece) {
    this.pieces.push(piece);
    this.heard += piece.length;
    this.send();
    if ((this.pieces.length - this.sent) * PIECE_S > MOST_BEHIND_S) {
      this.end(new Error("The server is too slow for live audio."));
    }
  }

  /** Send all new pieces once the last message is answered: a busy server gets fewer, longer messages. */
  send() {
    if (!this.answered || this.sent === this.pieces.length) return;
    this.sendPieces();
    this.answered = false;
  }

  sendPieces() {
    const pieces = this.pieces.slice(this.sent, this.sent + this.mostPieces);
    this.sent += pieces.length;
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(new Blob(pieces));
  }

  take(message) {
    const now = this.heard / this.sampleRate;
    this.segments.push(...message.segments);
    if (this.microphone) this.delays.push(...message.segments.map((segment) => now - segment.end));
    this.unfinished = message.unfinished;
    this.onPhones(this);
    if (message.type === "end") this.end(null);
  }

  /** Median delay of the latest phones in seconds, or null. */
  get delay() {
    const latest = this.delays.slice(-20).sort((a, b) => a - b);
    return latest.length ? latest[latest.length >> 1] : null;
  }

  /** End the session; the last phones arrive before onEnd. */
  async stop() {
    await this.microphone.close();
    this.microphone = null;
    while (this.sent < this.pieces.length) this.sendPieces();
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send("end");
    await this.ended;
  }
}
