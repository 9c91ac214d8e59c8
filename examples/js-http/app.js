// Handles HTTP requests with the `fetch` event, as in a service worker. A POST streams its body
// back; anything else is a greeting as JSON.
//
//     npm ci
//     npm run build
//     curl 'localhost:8095/js-http/?name=Ada'
//     curl localhost:8095/js-http/ -d 'some text'

addEventListener("fetch", (event) => event.respondWith(handle(event.request)));

async function handle(request) {
  if (request.method === "POST") {
    const type = request.headers.get("content-type") ?? "application/octet-stream";
    return new Response(request.body, { headers: { "content-type": type } });
  }

  const url = new URL(request.url);
  const name = url.searchParams.get("name") ?? "world";
  return Response.json({ message: `Hello, ${name}!`, method: request.method, path: url.pathname });
}
