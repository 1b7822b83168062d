// A live session: the microphone's samples go to the server, and phones come back as soon as they are final.

import { liveSocket } from "./api.js";
import { Microphone, level } from "./microphone.js";
import { toInt16 } from "./wav.js";

const PIECE_S = 0.1;
const LARGEST_MESSAGE = 65536; // bytes, of the server
const MOST_BEHIND_S = 10;

export class LiveSession {
  /**
   * Begin one. All are called with the session: onPiece(session, level) for every piece of sound, onPhones(session) when
   * phones came, onEnd(session, error) once, with null where it ended as asked for or at its longest.
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
      await session.connect(); // after the user has decided on the microphone, for the server does not wait long
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
    this.mostPieces = Math.floor(LARGEST_MESSAGE / (2 * PIECE_S * sampleRate)); // in a message
    this.answered = false; // whether the server waits for more
    this.segments = []; // final ones
    this.unfinished = null;
    this.delays = []; // seconds from the end of a phone to when it came
    this.pieces = []; // what was said, Int16Arrays
    this.heard = 0; // samples in them
    this.sent = 0; // pieces
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
      this.end(new Error("The server cannot keep up with what is said."));
    }
  }

  /** Send what has gathered, once the last message is answered: a busy server gets fewer and longer ones. */
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

  /** The usual delay of the latest phones, in seconds, or null. */
  get delay() {
    const latest = this.delays.slice(-20).sort((a, b) => a - b);
    return latest.length ? latest[latest.length >> 1] : null;
  }

  /** End it; what was said last comes back before onEnd. */
  async stop() {
    await this.microphone.close();
    this.microphone = null;
    while (this.sent < this.pieces.length) this.sendPieces();
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send("end");
    await this.ended;
  }
}
