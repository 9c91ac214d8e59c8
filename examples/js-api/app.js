// Counts its visits in a file, asks another server by https, and streams: the count at once, the other's answer as it comes.
//
//     npm ci
//     npm run build
//     cp ../api.toml ../functions/js-api.toml    # its settings: name your API and your directory
//     wasmbox serve --allow-outbound api.example.com:443 --preopen-root /srv/data
//     curl -N localhost:8095/js-api

import { getEnvironment } from "wasi:cli/environment@0.2.3";
import { getDirectories } from "wasi:filesystem/preopens@0.2.3";

addEventListener("fetch", (event) => event.respondWith(handle()));

async function handle() {
  const text = new TextEncoder();
  const { readable, writable } = new TransformStream();
  const answer = async () => {
    const writer = writable.getWriter();
    await writer.write(text.encode(`visit ${count()}\n`));
    try {
      const response = await fetch(new Map(getEnvironment()).get("API"));
      await writer.write(text.encode(`the API says ${response.status}: `));
      const reader = response.body.getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        await writer.write(part.value);
      }
      await writer.write(text.encode("\n"));
    } catch (error) {
      await writer.write(text.encode(`the API was not reached: ${error}\n`));
    }
    await writer.close();
  };
  answer().catch((error) => console.error(`response ended early: ${error}`));
  return new Response(readable, { headers: { "content-type": "text/plain; charset=utf-8" } });
}

// JavaScript has no files of its own here: these are the calls of wasi:filesystem. Two calls at the same time may count as one.
function count() {
  const [directory] = getDirectories().find(([, path]) => path === "/data");
  const file = directory.openAt({}, "js-api", { create: true }, { read: true, write: true });
  const [bytes] = file.read(32n, 0n);
  const visit = (parseInt(new TextDecoder().decode(bytes)) || 0) + 1;
  file.write(new TextEncoder().encode(`${visit}\n`), 0n);
  return visit;
}
