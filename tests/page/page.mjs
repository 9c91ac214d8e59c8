// The live page as its users have it: with a keyboard, in the dark, read aloud, with hostile functions, and with ten thousand of them.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { Box, HOSTILE, TOKEN, counting, failing, holding, large, printing } from "./box.mjs";
import { Browser } from "./browser.mjs";

const FIGURE = process.argv.includes("--figure");
const SHOTS = "target/screenshots";
const MANY = 10000;
const axe = readFileSync(join(process.env.MODULES, "node_modules/axe-core/axe.min.js"), "utf8");

let box, browser;

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  browser = new Browser(process.env.CHROMIUM, process.env.LIBRARIES);
  box = await new Box({
    "hello.wat": printing("hello"),
    "resize.wat": counting(30000000),
    "report.wat": counting(3000000),
    "checkout.wat": failing("checkout: no connection to the database\n"),
    "constructor.wat": failing(HOSTILE),
    "__proto__.wat": printing(HOSTILE),
    ["n".repeat(128) + ".wat"]: printing("long"),
    "limited.wat": counting(3000000),
    "limited.toml": "[limits]\ncpu-quota = \"250m\"\nmemory-request = \"128Ki\"\n",
    "idle.wat": printing("never called"),
    "typo.wat": "(module (func <b onclick=alert(1)>x</b>",
  }, ["--upload-max-functions=20000", "--module-memory=1Gi"]).ready;
});

after(async () => {
  await browser.end();
  await box.end();
});

const open = async (width = 1280, height = 900) => {
  const page = await browser.open("http://" + box.admin + "/");
  await page.size(width, height);
  await page.until("document.getElementById('rows').childElementCount > 0 || document.getElementById('shown').textContent");
  return page;
};
const shot = async (page, name) => writeFileSync(join(SHOTS, name + ".png"), await page.screenshot());
const text = (id) => `document.getElementById(${JSON.stringify(id)}).textContent`;

/// No rule of WCAG 2.2 A and AA, nor of good practice, is broken.
const assertAccessible = async (page) => {
  await page.value(axe + "; true");
  const found = await page.value("axe.run(document, { resultTypes: ['violations'], rules: { 'target-size': { enabled: true } } }).then(({ violations, passes }) => " +
    "({ passes: passes.length, violations: violations.map((one) => one.id + ': ' + one.nodes.map((node) => node.html + ' ' + node.failureSummary).join('; ')) }))");
  assert.deepEqual(found.violations, []);
  assert.ok(found.passes > 20, "rules were looked at: " + found.passes);
};

if (FIGURE) {
  test("the figure of the README", async () => {
    const page = await open(1100, 800);
    const end = Date.now() + 25000;
    while (Date.now() < end) await box.callAll(["hello", "hello", "hello", "hello", "resize", "report", "report", ...(Math.random() < 0.1 ? ["checkout"] : [])]);
    writeFileSync("docs/images/live-page.png", await page.screenshot());
  });
} else {
  test("hostile names and texts are text", async () => {
    await box.callAll(["hello", "hello", "constructor", "__proto__", "n".repeat(128), "typo", "resize"]);
    const page = await open();
    await page.until(`${text("failures")}.includes("window.hurt")`);
    await page.until(`${text("rows")}.includes("__proto__") && ${text("rows")}.includes("constructor") && ${text("rows")}.includes("failed")`);
    const said = await page.value("document.querySelector('#failures pre').textContent");
    assert.ok(said.includes("<img src=x onerror=") && said.includes("\\u{1b}[2J\\u{202e}"), said);
    assert.equal(await page.value("document.querySelectorAll('main img, main b, main script').length"), 0);
    assert.equal(await page.value("window.hurt"), undefined);
    const failure = await page.value("document.querySelector('#failures').innerText");
    const [id] = /[0-9a-f]{32}/.exec(failure);
    assert.ok((await box.overview()).failures.some((one) => one.invocation_id === id));
    // What somebody managed to put into the page would not run, nor load, nor send anything.
    await page.value("window.refused = []; document.addEventListener('securitypolicyviolation', (event) => window.refused.push(event.effectiveDirective)); true");
    await page.value("document.body.append(Object.assign(document.createElement('script'), { text: 'window.hurt = 1' }))").catch(() => {});
    await page.value("fetch('http://127.0.0.1:9/').catch(() => {})");
    await page.until("window.refused.length >= 2");
    assert.deepEqual(await page.value("window.refused"), ["require-trusted-types-for", "connect-src"]);
    assert.equal(await page.value("window.hurt"), undefined);
    await shot(page, "light");
  });

  test("what happens is shown", async () => {
    const page = await open();
    const before = (await box.overview()).totals.calls;
    await box.callAll(Array(50).fill("hello"));
    await page.until(`${text("latency-text")}.includes("calls: half")`);
    await page.until(`[...document.querySelectorAll('#rows tr')].some((row) => row.cells[0].textContent === 'hello' && Number(row.cells[5].textContent) >= 50)`);
    assert.ok((await box.overview()).totals.calls >= before + 50);
    assert.match(await page.value(text("cpu")), /^[\d.]+ of \d+ cores?$/);
    assert.match(await page.value(text("memory")), / of [\d.]+ [MGT]iB$/);
    assert.equal(await page.value(text("state")), "ready");
    assert.deepEqual(page.complaints().filter((one) => !one.includes("favicon")), []);
  });

  test("functions are shown against their limits, and before they are called", async () => {
    const page = await open();
    await page.until("[...document.querySelectorAll('#rows tr')].some((row) => row.cells[0].textContent === 'idle')");
    const rowOf = (name) => `[...document.querySelectorAll('#rows tr')].find((row) => row.cells[0].textContent === '${name}')`;
    // What a function has in a column: its text, and its meter's name, value and text for who listens.
    const cell = (name, column, is = "true") => page.until(`(() => { const [said, meter] = ${rowOf(name)}.cells[${column}].children;
      const now = { said: said.textContent, hidden: meter.hidden, name: meter.getAttribute("aria-label"), value: meter.value, share: meter.getAttribute("aria-valuetext") };
      return ${is} && now; })()`);
    await box.callAll(Array(20).fill("limited"));
    const memory = await cell("limited", 8, "now.said.includes(' of ')");
    assert.deepEqual(memory, { said: "64 KiB of 128 KiB", hidden: false, name: "Peak memory of limited, of its limit", value: 0.5, share: "50 %" });
    // One after the other: a quarter of a core is the limit.
    for (let call = 0; call < 20; call++) await box.call("limited");
    const cpu = await cell("limited", 7, "/^0\\.\\d+ of 0\\.25$/.test(now.said) && now.value > 0");
    assert.deepEqual([cpu.hidden, cpu.name], [false, "CPU of limited, of its limit"]);
    assert.match(cpu.share, /^\d+ %$/);
    assert.deepEqual(await page.value(`${rowOf("idle")}.cells[1].textContent + ${rowOf("idle")}.cells[5].textContent`), "unloaded0");
    const idle = await cell("idle", 8);
    assert.deepEqual([idle.said, idle.hidden], ["0 B", true]);
    assert.equal(await page.value(`getComputedStyle(${rowOf("idle")}.cells[8].children[1]).display`), "none");
    assert.equal(await page.value(text("directory")), "");
    // Who reads it aloud is told the share.
    const { nodes } = await page.send("Accessibility.getFullAXTree");
    const meters = nodes.filter((node) => node.role?.value === "meter" && node.name?.value === "Peak memory of limited, of its limit");
    assert.equal(meters.length, 1);
    // The bar is seen before what is behind it, in the light and in the dark.
    for (const scheme of ["light", "dark"]) {
      await page.media({ "prefers-color-scheme": scheme });
      const contrasts = await page.value(`(() => {
        const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
        const luminance = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16) / 255)
          .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
          .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
        return ["--accent", "--bad", "--soft"].map((name) => {
          const [dark, light] = [luminance(variable(name)), luminance(variable("--back"))].sort((a, b) => a - b);
          return (light + 0.05) / (dark + 0.05);
        });
      })()`);
      assert.ok(contrasts.every((contrast) => contrast >= 3), scheme + ": " + contrasts);
      await assertAccessible(page);
      await shot(page, "limits-" + scheme);
    }
  });

  test("who waits, who was evicted and what is compiled is shown", async () => {
    // Its requests fit in what it admits, and not in its memory.
    const small = await new Box({ "holding.wat": holding(150), "large.wasm": large(1400) },
      ["--memory-limit=256Mi", "--concurrent-resource-request=512", "--memory-high=0.94", "--module-memory=32Mi", "--tiers=off", "--compile-jobs=1"]).ready;
    // More than its memory lets it look at.
    for (let number = 0; number < 17000; number++) small.add("many-" + number + ".wasm", "");
    const left = [];
    const begin = (memory) => {
      const [sent, answered] = small.begin("holding", { method: "POST", headers: { "memory-request": memory, "transfer-encoding": "chunked" } });
      // With the first of its body it asks for admission.
      sent.write("x");
      left.push(answered);
      return [sent, answered];
    };
    try {
      const page = await browser.open("http://" + small.admin + "/");
      await page.until(`${text("evicted")} === "0" && ${text("waiting")} === "0"`);
      await page.until(`${text("directory")}.includes("more entries than are looked at")`);
      const [older] = begin("200Mi");
      await page.until(`${text("running")}.startsWith("1 of")`);
      const [younger, answered] = begin("200Mi");
      younger.write("x");
      await page.until(`/^1\\d\\d/.test(${text("memory")})`);
      older.write("x");
      const [status, problem] = await answered;
      assert.deepEqual([status, JSON.parse(problem).code], [503, "evicted"]);
      await page.until(`${text("evicted")} === "1"`);
      // One of them finds a place beside the older one.
      for (let number = 0; number < 4; number++) begin("250Mi");
      await page.until(`${text("waiting")} === "3"`);
      left.push(small.call("large"));
      await page.until(`${text("compiling")}.startsWith("1 of") && /^large.wasm: about \\d+ s left$/.test(${text("loading")})`);
    } finally {
      // Those that wait are told that the box ends.
      for (const one of left) one.catch(() => {});
      await small.end();
    }
  });

  test("with a keyboard functions are put here and rolled back", async () => {
    const page = await open();
    const module = join(box.directory, "pushed.wat");
    for (const [said, result] of [["one", "created, version 1"], ["two", "replaced, version 2"]]) {
      writeFileSync(module, printing(said));
      await page.tabTo("token");
      await page.value("document.activeElement.select()");
      await page.type(said === "one" ? "wrong-token-wrong" : TOKEN);
      await page.tabTo("name");
      await page.value("document.activeElement.select()");
      await page.type("pushed");
      await page.choose("module", module);
      await page.tabTo("Put it here");
      await page.enter();
      if (said === "one") {
        await page.until(`${text("result")}.includes("is none of the box")`);
        await page.value("document.getElementById('token').focus(); document.activeElement.select()");
        await page.type(TOKEN);
        await page.tabTo("Put it here");
        await page.enter();
      }
      await page.until(`${text("result")}.startsWith("pushed: ${result}")`);
      assert.deepEqual(await box.call("pushed"), [200, said]);
    }
    await page.tabTo("versions");
    await page.enter();
    await page.until(`${text("version-list")}.includes("Go back to version 1")`);
    // They are shown as long as they are those of the function that is named.
    await page.tabTo("name");
    await page.value("document.activeElement.select()");
    await page.type("hello");
    await page.until(`${text("version-list")} === ""`);
    await page.value("document.activeElement.select()");
    await page.type("pushed");
    await page.tabTo("versions");
    await page.enter();
    await page.until(`${text("version-list")}.includes("Go back to version 1 of pushed")`);
    await page.tabTo("Go back to version 1 of pushed");
    await page.enter();
    await page.until(`${text("result")} === "pushed: version 3 serves."`);
    assert.deepEqual(await box.call("pushed"), [200, "one"]);
    await page.tabTo("rollback");
    await page.enter();
    await page.until(`${text("result")} === "pushed: version 4 serves."`);
    assert.deepEqual(await box.call("pushed"), [200, "two"]);
    writeFileSync(module, "no module");
    await page.choose("module", module);
    await page.tabTo("Put it here");
    await page.enter();
    await page.until(`${text("result")}.startsWith("pushed: ") && !${text("result")}.includes("version")`);
    assert.deepEqual(await box.call("pushed"), [200, "two"]);
    // The token is nowhere but in its field.
    assert.equal(await page.value("document.cookie + localStorage.length + sessionStorage.length + location.href.includes('token')"), "00false");
    await shot(page, "put");
  });

  test("with a keyboard functions are sorted and filtered, and the focus stays", async () => {
    const page = await open();
    await page.tab();
    assert.equal(await page.value("document.activeElement.textContent"), "Skip to the functions");
    await page.enter();
    await page.tabTo("filter");
    await page.type("hel");
    await page.until("document.getElementById('rows').childElementCount === 1");
    await page.tabTo("Calls/s");
    await page.enter();
    await page.until("document.querySelector('[aria-sort]').textContent === 'Calls/s'");
    await page.tabTo("Choose");
    const calls = await page.value("document.querySelector('#rows tr').cells[5].textContent");
    await box.callAll(Array(20).fill("hello"));
    await page.until(`document.querySelector('#rows tr').cells[5].textContent !== ${JSON.stringify(calls)}`);
    assert.equal(await page.value("document.activeElement.textContent"), "Choose");
    await page.enter();
    assert.equal(await page.value("document.getElementById('name').value"), "hello");
    await page.value("document.getElementById('pause').focus()");
    await page.press(" ", 32);
    assert.equal(await page.value("document.getElementById('pause').getAttribute('aria-pressed')"), "true");
  });

  test("it is accessible in the light, in the dark and on a telephone", async () => {
    const page = await open();
    await assertAccessible(page);
    const light = await page.value("getComputedStyle(document.body).backgroundColor");
    await page.media({ "prefers-color-scheme": "dark", "prefers-reduced-motion": "reduce" });
    const dark = await page.value("getComputedStyle(document.body).backgroundColor");
    assert.notEqual(light, dark);
    assert.equal(await page.value("getComputedStyle(document.querySelector('rect')).transitionDuration"), "0s");
    await assertAccessible(page);
    await shot(page, "dark");
    await page.media({ "prefers-color-scheme": "light" });
    await page.size(360, 800);
    await assertAccessible(page);
    assert.ok(await page.value("document.documentElement.scrollWidth <= 360"), "it is not wider than the screen");
    await shot(page, "telephone");
  });

  test("ten thousand functions are as quick as ten", async () => {
    const hello = printing("hello");
    const names = Array.from({ length: MANY }, (_, number) => "many-" + String(number).padStart(5, "0"));
    for (const name of names) box.add(name + ".wat", hello);
    await box.callAll(names);
    const now = await box.overview("sort=name&filter=many-&limit=200");
    assert.deepEqual([now.functions.matching, now.functions.rows.length, now.functions.rows[0].name], [MANY, 200, "many-00000"]);
    const answer = await fetch("http://" + box.admin + "/overview.json?limit=200&failures=128");
    assert.ok((await answer.text()).length < 500000);
    const page = await open();
    // Those of the tests before are there, too.
    await page.until(`Number(${text("shown")}.split(" of ")[1].replace(",", "")) >= ${MANY}`);
    assert.equal(await page.value("document.getElementById('rows').childElementCount"), 50);
    await page.tabTo("filter");
    await page.type("many-09999");
    await page.until("document.getElementById('rows').textContent.startsWith('many-09999')");
    await page.value("document.activeElement.select()");
    await page.type("many-");
    await page.tabTo("Name");
    await page.enter();
    await page.until("document.querySelector('#rows tr').cells[0].textContent === 'many-00000'");
    await page.value("document.getElementById('next').focus()");
    await page.enter();
    await page.until("document.querySelector('#rows tr').cells[0].textContent === 'many-00050'");
    await assertAccessible(page);
    await shot(page, "ten-thousand");
  });

  test("a box that does not answer is said to", async () => {
    const page = await open();
    await page.value("window.fetch = () => Promise.reject(new Error('it is away')); 0");
    await page.until("!document.getElementById('trouble').hidden");
    assert.match(await page.value(text("trouble")), /does not answer: it is away/);
    await assertAccessible(page);
  });
}
