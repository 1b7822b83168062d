// Requests to the server. Every failure is an Error with a message for the user.

/** The server's model and limits. */
export async function modelFacts() {
  return (await answer("api/model")).json();
}

/** The phones of a file and everything that is drawn; see docs/server.md. */
export async function analyse(file, name, { smooth, signal }) {
  const query = new URLSearchParams({ name, smooth: smooth ? "1" : "0" });
  const headers = { "Content-Type": "application/octet-stream" };
  return (await answer(`api/view?${query}`, { method: "POST", body: file, headers, signal })).json();
}

/** A WebSocket for live phones. */
export function liveSocket() {
  const address = new URL("api/live", document.baseURI);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  return socket;
}

async function answer(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const reason = await response.json().catch(() => ({}));
  throw new Error(reason.error ?? `The server answered ${response.status}.`);
}
