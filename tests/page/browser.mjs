// A headless Chromium, driven by the DevTools protocol over a pipe: no port that others could reach, and no library.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PATIENCE = 20000;

export class Browser {
  constructor(binary, libraries) {
    this.profile = mkdtempSync(join(tmpdir(), "wasmbox-browser-"));
    // Its own sandbox takes rights that builders do not have; it shows nothing but the page under test.
    this.process = spawn(binary, [
      "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--user-data-dir=" + this.profile, "about:blank",
    ], { stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"], env: { LD_LIBRARY_PATH: libraries, HOME: this.profile, LANG: "C.UTF-8" } });
    this.number = 0;
    this.waiting = new Map();
    this.heard = [];
    this.said = "";
    this.process.stderr.on("data", (piece) => { if (this.said.length < 65536) this.said += piece; });
    this.ended = new Promise((resolve) => this.process.on("exit", resolve));
    this.ended.then(() => { for (const { reject } of this.waiting.values()) reject(new Error("the browser has ended:\n" + this.said)); });
    let rest = "";
    this.process.stdio[4].on("data", (piece) => {
      const messages = (rest + piece).split("\0");
      rest = messages.pop();
      for (const text of messages) this.receive(JSON.parse(text));
    });
  }

  receive(message) {
    const waiting = this.waiting.get(message.id);
    if (!waiting) { this.heard.push(message); return; }
    this.waiting.delete(message.id);
    if (message.error) waiting.reject(new Error(message.error.message));
    else waiting.resolve(message.result);
  }

  send(method, params = {}, sessionId = undefined) {
    const id = ++this.number;
    this.process.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  /// A page of its own, with nothing that others have stored.
  async open(url) {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId);
    await page.send("Page.enable");
    await page.send("Runtime.enable");
    await page.send("Log.enable");
    await page.send("DOM.enable");
    await page.send("Page.navigate", { url });
    return page;
  }

  async end() {
    await this.send("Browser.close").catch(() => {});
    await this.ended;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

class Page {
  constructor(browser, session) {
    this.browser = browser;
    this.session = session;
  }

  send(method, params) {
    return this.browser.send(method, params, this.session);
  }

  /// What an expression is, computed beside the page's own policy.
  async value(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(expression.slice(0, 200) + ": " + (exceptionDetails.exception?.description || exceptionDetails.text));
    return result.value;
  }

  /// Waits until an expression is true.
  async until(expression) {
    const end = Date.now() + PATIENCE;
    for (;;) {
      const value = await this.value(expression).catch(() => undefined);
      if (value) return value;
      if (Date.now() > end) throw new Error("this does not happen: " + expression + "\n" + await this.value("document.body.innerText"));
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /// Presses a key that has a name, or types a text.
  async press(key, code = 0, modifiers = 0) {
    const text = key === "Enter" ? "\r" : key === " " ? " " : undefined;
    const event = { key, code: key === " " ? "Space" : key, windowsVirtualKeyCode: code, modifiers, text };
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", ...event });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...event, text: undefined });
  }

  tab() {
    return this.press("Tab", 9);
  }

  enter() {
    return this.press("Enter", 13);
  }

  type(text) {
    return this.send("Input.insertText", { text });
  }

  /// Presses Tab until the element with that id, or that text, has the focus.
  async tabTo(wanted) {
    for (let presses = 0; presses < 200; presses += 1) {
      await this.tab();
      const focus = "(document.activeElement.id || document.activeElement.textContent)";
      if (await this.value(focus) === wanted) return;
    }
    throw new Error("Tab does not lead to " + wanted);
  }

  /// A file for an input.
  async choose(id, file) {
    const { root } = await this.send("DOM.getDocument");
    const { nodeId } = await this.send("DOM.querySelector", { nodeId: root.nodeId, selector: "#" + id });
    await this.send("DOM.setFileInputFiles", { nodeId, files: [file] });
  }

  media(features) {
    return this.send("Emulation.setEmulatedMedia", { features: Object.entries(features).map(([name, value]) => ({ name, value })) });
  }

  size(width, height) {
    return this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
  }

  async screenshot() {
    const { data } = await this.send("Page.captureScreenshot", { format: "png" });
    return Buffer.from(data, "base64");
  }

  /// What the page has complained about: exceptions, and errors in its log.
  complaints() {
    const mine = this.browser.heard.filter((message) => message.sessionId === this.session);
    return mine.flatMap(({ method, params }) => {
      if (method === "Runtime.exceptionThrown") return [params.exceptionDetails.exception?.description || params.exceptionDetails.text];
      if (method === "Log.entryAdded" && params.entry.level === "error") return [params.entry.text + " " + (params.entry.url || "")];
      return [];
    });
  }
}
