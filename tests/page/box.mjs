// A box of the test's own, in a directory that is removed with it.

import { spawn } from "node:child_process";
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const TOKEN = "0123456789abcdef-the-token";
/// What a hostile guest says: markup, escape sequences, and what reorders text.
export const HOSTILE = "</pre></script><img src=x onerror=\"window.hurt=1\"><b>bold</b>\u001b[2J\u202e";

const hex = (bytes) => [...bytes].map((byte) => "\\" + byte.toString(16).padStart(2, "0")).join("");
const command = (descriptor, text, end) => `(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "${hex([16, 0, 0, 0, Buffer.byteLength(text), 0, 0, 0])}")
  (data (i32.const 16) "${hex(Buffer.from(text))}")
  (func (export "_start") (drop (call $write (i32.const ${descriptor}) (i32.const 0) (i32.const 1) (i32.const 12))) ${end}))`;

/// Prints a text of at most 255 bytes.
export const printing = (text) => command(1, text, "");
/// Writes a text to standard error, and fails.
export const failing = (text) => command(2, text, "unreachable");
/// Counts for a while.
export const counting = (rounds) => `(module (memory (export "memory") 1) (func (export "_start") (local $i i32)
  (loop $again (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $again (i32.lt_u (local.get $i) (i32.const ${rounds}))))))`;

/// Waits for two bytes, fills so much memory, and waits for another byte.
export const holding = (mebibytes) => `(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 0) "\\10\\00\\00\\00\\01\\00\\00\\00")
  (func $byte (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 12))))
  (func (export "_start")
    (call $byte) (call $byte)
    (if (i32.lt_s (memory.grow (i32.const ${mebibytes * 16})) (i32.const 0)) (then unreachable))
    (memory.fill (i32.const 65536) (i32.const 1) (i32.const ${mebibytes * 2 ** 20}))
    (call $byte)))`;
/// So many functions of which each computes long: it takes an optimising compiler seconds.
export const large = (functions) => {
  const leb = (number) => number < 128 ? [number] : [number % 128 + 128, ...leb(Math.floor(number / 128))];
  const section = (id, bytes) => Buffer.concat([Buffer.from([id, ...leb(bytes.length)]), bytes]);
  const list = (items) => Buffer.concat([Buffer.from(leb(items.length)), ...items]);
  const body = (code) => Buffer.concat([Buffer.from(leb(code.length)), code]);
  // x = (x ^ 21) * x + 21
  const step = Buffer.from([0x20, 0, 0x41, 21, 0x73, 0x20, 0, 0x6c, 0x41, 21, 0x6a, 0x21, 0]);
  const computes = body(Buffer.concat([Buffer.from([0]), Buffer.alloc(step.length * 1200, step), Buffer.from([0x20, 0, 0x0b])]));
  const count = Array.from({ length: functions });
  return Buffer.concat([
    Buffer.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]),
    // () -> (), and i32 -> i32.
    section(1, list([Buffer.from([0x60, 0, 0]), Buffer.from([0x60, 1, 0x7f, 1, 0x7f])])),
    section(3, list([Buffer.from([0]), ...count.map(() => Buffer.from([1]))])),
    section(5, list([Buffer.from([0, 1])])),
    section(7, list([Buffer.from([6, ...Buffer.from("memory"), 2, 0]), Buffer.from([6, ...Buffer.from("_start"), 0, 0])])),
    section(10, list([body(Buffer.from([0, 0x0b])), ...count.map(() => computes)])),
  ]);
};

export class Box {
  constructor(functions, flags) {
    this.directory = mkdtempSync(join(tmpdir(), "wasmbox-page-"));
    this.functions = join(this.directory, "functions");
    mkdirSync(this.functions);
    this.agent = new Agent({ keepAlive: true, maxSockets: 16 });
    for (const [name, text] of Object.entries(functions)) this.add(name, text);
    const token = join(this.directory, "token");
    writeFileSync(token, TOKEN + "\n");
    this.process = spawn("target/release/wasmbox", [
      "serve", "--host=127.0.0.1", "--admin-host=127.0.0.1", "--port=0", "--admin-port=0", "--functions-dir=" + this.functions,
      "--cache-dir=" + join(this.directory, "cache"), "--upload-token-file=" + token,
      "--pod-name=page-test", "--log-format=json", ...flags,
    ], { stdio: ["ignore", "ignore", "pipe"], env: {} });
    this.ended = new Promise((resolve) => this.process.on("exit", resolve));
    this.log = "";
    this.ready = new Promise((resolve, reject) => {
      this.process.stderr.on("data", (piece) => {
        // Its beginning is enough; what comes later is read so that the box does not wait.
        if (this.log.length < 65536) this.log += piece;
        const found = /"address":"([^"]+)","admin":"([^"]+)"/.exec(this.log) || null;
        if (found) { [, this.address, this.admin] = found; resolve(this); }
      });
      this.process.on("exit", () => reject(new Error("the box has ended:\n" + this.log)));
    });
  }

  add(name, text) {
    writeFileSync(join(this.functions, name), text);
  }

  /// A request whose body may be written, and the promise of the status and the text of its answer.
  begin(name, options = {}) {
    const [host, port] = this.address.split(":");
    const sent = request({ host, port, path: "/" + name, agent: this.agent, ...options });
    const answered = new Promise((resolve, reject) => {
      sent.on("error", reject).on("response", (answer) => {
        let text = "";
        answer.on("data", (piece) => { text += piece; }).on("end", () => resolve([answer.statusCode, text])).on("error", reject);
      });
    });
    return [sent, answered];
  }

  /// The status and the text of an answer.
  call(name, options = {}) {
    const [sent, answered] = this.begin(name, options);
    sent.end();
    return answered;
  }

  /// Calls each name once, some at a time.
  async callAll(names) {
    const left = [...names].reverse();
    await Promise.all(Array.from({ length: 16 }, async () => {
      while (left.length) await this.call(left.pop());
    }));
  }

  async overview(query = "") {
    const answer = await fetch("http://" + this.admin + "/overview.json?" + query);
    return answer.json();
  }

  async end() {
    this.agent.destroy();
    this.process.kill("SIGTERM");
    await this.ended;
    rmSync(this.directory, { recursive: true });
  }
}
