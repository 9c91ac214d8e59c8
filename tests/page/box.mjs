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

  /// The status and the text of an answer.
  call(name, options = {}) {
    const [host, port] = this.address.split(":");
    return new Promise((resolve, reject) => {
      const sent = request({ host, port, path: "/" + name, agent: this.agent, ...options }, (answer) => {
        let text = "";
        answer.on("data", (piece) => { text += piece; }).on("end", () => resolve([answer.statusCode, text]));
      });
      sent.on("error", reject).end();
    });
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
