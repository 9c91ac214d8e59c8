// Greets its first argument, or the world, and says how much came in the request's body.

const name = process.argv.length > 1 ? process.argv[1] : "world";

const buffer = new ArrayBuffer(64 * 1024);
let bytes = 0;
for (let n = process.stdin.read(buffer); n > 0; n = process.stdin.read(buffer)) {
  bytes += n;
}
// Standard output is the answer; what is written to process.stderr is in the log.
process.stdout.write(`Hello, ${name}! You sent ${bytes} bytes.\n`);
