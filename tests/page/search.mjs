// The documentation site, target/site, as somebody has it who opens its files without a network: words are found, and lead to the pages that have them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";

import { Browser } from "./browser.mjs";

const SITE = pathToFileURL("target/site/").href;
const RESULTS = "document.querySelectorAll('#mdbook-searchresults li a')";

let browser;

before(() => { browser = new Browser(process.env.CHROMIUM, process.env.LIBRARIES); });
after(() => browser.end());

/// A page of the site, in a browser without a network.
const open = async (path) => {
  const page = await browser.open("about:blank");
  await page.send("Network.enable");
  await page.send("Network.emulateNetworkConditions", { offline: true, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  await page.send("Page.navigate", { url: SITE + path });
  await page.until(`location.href === ${JSON.stringify(SITE + path)} && document.readyState === 'complete'`);
  return page;
};

/// What it has asked for.
const asked = (page) => browser.heard.flatMap(({ sessionId, method, params }) =>
  sessionId === page.session && method === "Network.requestWillBeSent" ? [params.request.url] : []);

for (const [from, word, to] of [
  ["index.html", "throttled", "docs/runbook.html"],
  ["docs/tutorials/rust.html", "queue-timeout", "docs/errors.html"],
  ["benches/index.html", "cosign", "docs/registries.html"],
]) {
  test(`from ${from}, ${word} leads to ${to}`, async () => {
    const page = await open(from);
    await page.press("/");
    await page.until("document.activeElement.id === 'mdbook-searchbar'");
    await page.type(word);
    await page.until(`${RESULTS}.length > 0`);
    const found = await page.value(`[...${RESULTS}].map((link) => link.href)`);
    const leads = found.findIndex((link) => link.startsWith(SITE + to));
    assert.ok(leads >= 0 && found.every((link) => link.startsWith(SITE)), found.join("\n"));
    await page.value(`${RESULTS}[${leads}].click()`);
    await page.until(`location.href.startsWith(${JSON.stringify(SITE + to)}) && document.readyState === 'complete'`);
    // The page shows the word, marked.
    await page.until(`[...document.querySelectorAll('main mark')].some((mark) => ${JSON.stringify(word)}.includes(mark.textContent.toLowerCase()))`);
    const requests = asked(page);
    assert.ok(requests.some((url) => url.includes("/searchindex-")), requests.join("\n"));
    for (const url of requests) assert.ok(url.startsWith(SITE) || url.startsWith("data:"), url);
    assert.deepEqual(page.complaints(), []);
  });
}
