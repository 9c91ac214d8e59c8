// A box that serves, fails, is changed and is looked at for minutes, all at once: `make mixed`, MIXED_SECONDS=300.
//
// Functions of one customer always answer right; others fail in each way there is; modules are put there, replaced, rolled back and taken away; a client
// leaves in the middle; the log is followed, the metrics are read, and the page is open in a browser. Throughout, whoever is healthy is answered right and
// within a second (99 of 100 calls), each error has the code that it should have, and, once the first third of the time is over, neither memory nor
// descriptors grow.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { request } from "node:http";
import { test } from "node:test";

import { Box, TOKEN, counting, failing, printing } from "./box.mjs";
import { Browser } from "./browser.mjs";

const SECONDS = Number(process.env.MIXED_SECONDS || 300);
/// Bound of the 99th percentile, ms: that of the attacks.
const P99 = 1000;
/// An answer that takes longer does not come, ms.
const SILENCE = 60000;
/// What resident memory and descriptors may grow by from one third of the time to the next.
const GROWTH = { bytes: 8 << 20, part: 0.1, descriptors: 16 };

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];
const p99 = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length * 0.99)];
const codes = new Set([...readFileSync("docs/errors.md", "utf8").matchAll(/^## ([a-z-]+)$/gm)].map((found) => found[1]));

/// Grows its memory until it may not, then fails.
const hungry = `(module (memory (export "memory") 1) (func (export "_start")
  (loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable))`;
const exiting = `(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.const 3))))`;

/// An answer, whole: status, headers, text.
const ask = (address, path, { method = "GET", headers = {}, body } = {}, agent) => new Promise((resolve, reject) => {
  const [host, port] = address.split(":");
  const sent = request({ host, port, path, method, headers, agent }, (answer) => {
    let text = "";
    answer.on("data", (piece) => { text += piece; }).on("end", () => resolve({ status: answer.statusCode, headers: answer.headers, text })).on("error", reject);
  });
  sent.setTimeout(SILENCE, () => sent.destroy(new Error(`no answer to ${method} ${path} for ${SILENCE} ms`)));
  sent.on("error", reject).end(body);
});

/// An error of the box's, with the code that it should have, which is documented.
const assertCode = (answer, status, code) => {
  const is = answer.headers["wasmbox-error"];
  assert.ok(codes.has(is), `a code of docs/errors.md: ${is}, ${answer.status} ${answer.text}`);
  assert.deepEqual([answer.status, is], [status, code], answer.text);
};

class Sample {
  constructor(pid) {
    const field = (name) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]);
    this.resident = (field("RssAnon") + field("RssShmem")) << 10;
    this.descriptors = readdirSync(`/proc/${pid}/fd`).length;
  }
}

test(`a mixed workload for ${SECONDS} seconds`, async () => {
  const box = await new Box({
    "hello.wat": printing("hello"), "report.wat": counting(3000000), "checkout.wat": failing("checkout: no connection to the database\n"),
    "spin.wat": counting(2000000000), "hungry.wat": hungry, "exiting.wat": exiting, "typo.wat": "(module (func <x></func>",
  }, ["--memory-limit=256Mi"]).ready;
  const browser = new Browser(process.env.CHROMIUM, process.env.LIBRARIES);
  const killed = () => {
    for (const { process: child } of [box, browser]) child.kill("SIGKILL");
    process.exit(1);
  };
  process.once("SIGTERM", killed);
  try {
    await mixed(box, browser);
  } finally {
    await Promise.all([browser.end(), box.end()]);
    process.off("SIGTERM", killed);
  }
});

const mixed = async (box, browser) => {
  const page = await browser.open("http://" + box.admin + "/");
  // Compiled before it is counted.
  for (const name of ["hello", "report", "checkout", "spin", "hungry", "exiting"]) await ask(box.address, "/" + name, { headers: { "Invocation-Timeout": "20s", "Memory-Request": "2Mi" } });
  const begun = Date.now();
  let ended = false;
  const over = () => ended || Date.now() - begun > SECONDS * 1000;
  /// 0, 1 or 2.
  const third = () => Math.min(2, Math.floor((Date.now() - begun) / (SECONDS * 1000 / 3)));
  const counts = { healthy: 0, uploads: 0 };
  const count = (name) => { counts[name] = (counts[name] || 0) + 1; };
  const times = [[], [], []];
  const samples = [[], [], []];
  const again = async (ms, step) => {
    for (let round = 0; !over(); round += 1) {
      await step(round);
      await pause(ms);
    }
  };

  const call = (name, options) => ask(box.address, "/" + name, options, box.agent);
  const healthy = (name, expected) => again(20, async () => {
    const started = performance.now();
    const answer = await call(name, { headers: { "Memory-Request": "1Mi" } });
    times[third()].push(performance.now() - started);
    assert.deepEqual([answer.status, answer.text], [200, expected], JSON.stringify(answer.headers));
    count("healthy");
  });
  const faults = [
    ["checkout", {}, 500, "guest-trap"],
    ["exiting", {}, 500, "guest-exit"],
    ["spin", { headers: { "Invocation-Timeout": "200ms", "Cpu-Quota": "500m", "Memory-Request": "1Mi" } }, 504, "deadline-exceeded"],
    ["hungry", { headers: { "Memory-Request": "2Mi" } }, 500, "guest-memory-limit"],
    ["typo", {}, 422, "module-invalid"],
    ["nobody", {}, 404, "module-not-found"],
    ["..%2fhello", {}, 400, "bad-module-name"],
    ["hello", { headers: { "Memory-Request": "much" } }, 400, "bad-limit"],
    ["hello", { headers: { "Memory-Request": "1Gi" } }, 400, "bad-limit"],
    ["hello", { method: "PUT" }, 405, "method-not-allowed"],
  ];
  const faulty = again(10, async (round) => {
    const [name, options, status, code] = faults[round % faults.length];
    assertCode(await call(name, options), status, code);
    count(code);
  });
  /// A client that asks for much, and is gone.
  const leaving = again(200, () => new Promise((resolve) => {
    const [host, port] = box.address.split(":");
    const sent = request({ host, port, path: "/spin", headers: { "Invocation-Timeout": "5s", "Cpu-Quota": "100m", "Memory-Request": "1Mi" } });
    sent.on("error", () => resolve()).end();
    setTimeout(() => { sent.destroy(); count("left"); }, 50);
  }));

  const admin = (method, path, body, headers = {}) => ask(box.admin, path, { method, body, headers: { authorization: "Bearer " + TOKEN, ...headers } });
  const uploads = again(100, async (round) => {
    const said = (number) => `version ${number} `;
    const is = async (number) => {
      const answer = await call("pushed");
      assert.deepEqual([answer.status, answer.text], [200, said(number)], JSON.stringify(answer.headers));
    };
    assert.equal((await admin("PUT", "/functions/pushed", printing(said(2 * round)))).status, 201, "it was taken away");
    await is(2 * round);
    assert.equal((await admin("PUT", "/functions/pushed", printing(said(2 * round + 1)))).status, 200);
    await is(2 * round + 1);
    assertCode(await admin("PUT", "/functions/pushed", "no module"), 422, "module-invalid");
    assertCode(await admin("PUT", "/functions/pushed", printing("late"), { "if-match": '"another"' }), 412, "precondition-failed");
    assertCode(await ask(box.admin, "/functions/pushed", { method: "DELETE", headers: { authorization: "Bearer guessed-guessed-guessed" } }), 401, "unauthorized");
    await is(2 * round + 1);
    assert.equal((await admin("POST", "/functions/pushed/rollback")).status, 200);
    await is(2 * round);
    assert.ok([200, 204].includes((await admin("DELETE", "/functions/pushed")).status));
    assertCode(await call("pushed"), 404, "module-not-found");
    count("uploads");
  });

  const metrics = again(1000, async () => {
    const answer = await ask(box.admin, "/metrics");
    assert.equal(answer.status, 200);
    samples[third()].push(new Sample(box.process.pid));
  });
  const lines = [0, 0, 0];
  let broken;
  const [adminHost, adminPort] = box.admin.split(":");
  const followed = request({ host: adminHost, port: adminPort, path: "/functions/checkout/logs?follow", headers: { authorization: "Bearer " + TOKEN } },
    (answer) => answer.on("data", (piece) => { lines[third()] += String(piece).split("no connection to the database").length - 1; })
      .on("error", (error) => { broken ??= error; }).on("end", () => { broken ??= new Error("the followed log has ended"); }));
  followed.on("error", (error) => { broken ??= error; }).end();
  const shownCalls = `Number([...document.querySelectorAll('#rows tr')].find((row) => row.cells[0].textContent === 'hello').cells[5].textContent.replace(/\\D/g, ''))`;
  let shown = 0;
  const looked = again(5000, async () => {
    const now = await page.until(shownCalls);
    assert.ok(now >= shown, `the page shows ${now} calls after ${shown}`);
    shown = now;
    count("looks");
  });
  const told = setInterval(() => {
    const { resident, descriptors } = new Sample(box.process.pid);
    console.log(`${Math.round((Date.now() - begun) / 1000)} s: ${counts.healthy} healthy calls, ${counts.uploads} uploads, ${resident >> 20} MiB, ${descriptors} descriptors`);
  }, 30000);

  try {
    await Promise.all([healthy("hello", "hello"), healthy("hello", "hello"), healthy("report", ""), faulty, leaving, uploads, metrics, looked]);
    assert.deepEqual(page.complaints().filter((one) => !one.includes("favicon")), []);
    assert.equal(broken, undefined);
    assert.ok(shown > 0 && lines.every((some) => some > 0), `the page shows ${shown} calls; ${lines} lines were followed in each third`);
    const [, middle, last] = samples.map((some) => ({ resident: median(some.map((one) => one.resident)), descriptors: Math.max(...some.map((one) => one.descriptors)) }));
    console.log({ counts, lines, shown, middle, last, p99: times.map((some) => Math.round(p99(some) * 10) / 10) });
    assert.ok(times.every((some) => p99(some) < P99), `99 of 100 healthy calls took at most ${times.map(p99)} ms in each third`);
    assert.ok(last.resident <= middle.resident * (1 + GROWTH.part) + GROWTH.bytes, `memory grows: ${middle.resident} to ${last.resident} bytes`);
    assert.ok(last.descriptors <= middle.descriptors + GROWTH.descriptors, `descriptors grow: ${middle.descriptors} to ${last.descriptors}`);
    assert.equal(box.process.exitCode, null, "the box runs");
    const evicted = /^wasmbox_evicted_total(?:\{[^}]*\})? ([1-9]\d*)$/m.exec((await ask(box.admin, "/metrics")).text);
    assert.equal(evicted, null, "nobody is evicted");
  } finally {
    ended = true;
    clearInterval(told);
    followed.destroy();
  }
};
