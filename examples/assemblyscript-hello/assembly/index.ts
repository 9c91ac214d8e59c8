// Greets its first argument, or the world, and tells what came in the request body.
//
//     npm ci
//     npm run build
//     curl 'localhost:8095/assemblyscript-hello?arg=Ada' -d 'some text'

const name = process.argv.length > 1 ? process.argv[1] : "world";
process.stdout.write(`Hello, ${name}!\n`);

const buffer = new ArrayBuffer(64 * 1024);
let bytes = 0;
for (let n = process.stdin.read(buffer); n > 0; n = process.stdin.read(buffer)) {
  bytes += n;
}
if (bytes > 0) {
  process.stdout.write(`You sent ${bytes} bytes.\n`);
}
