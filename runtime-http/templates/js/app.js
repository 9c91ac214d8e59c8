// Greets the `arg` of the query, or the world, and says how much came in the request's body.

addEventListener("fetch", (event) => event.respondWith(handle(event.request)));

async function handle(request) {
  const url = new URL(request.url);
  const name = url.searchParams.get("arg") ?? "world";
  const body = await request.arrayBuffer();
  // What is written with console.error is in the log.
  return new Response(`Hello, ${name}! You sent ${body.byteLength} bytes.\n`, {
    headers: { "content-type": "text/plain; charset=utf-8" },
  });
}
