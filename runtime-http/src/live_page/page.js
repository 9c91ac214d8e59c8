"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const PERIOD = 1000, SLOWEST = 30000, LATELY = 60;
  const LIMIT = 50;
  const columns = [
    ["Name", "name"], ["State", null], ["Running", "running"], ["Calls/s", "calls"], ["Errors/s", "errors"], ["Calls", null], ["Errors", null],
    ["CPU", "cpu"], ["Peak memory", "memory"], ["50 %", null], ["99 %", "latency"], ["Code", null], ["", null],
  ];
  // What is shown with a meter, by its column.
  const measured = new Map([[7, "CPU"], [8, "Peak memory"]]);
  const asked = { sort: "cpu", offset: 0, filter: "" };
  // The last minute: when, by the box's own clock in seconds, and what had happened by then.
  const past = [];
  const GAP = 5;
  let paused = false, wait = PERIOD, timer = 0, turn = 0;

  const element = (name, text, type) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (type) made.className = type;
    return made;
  };
  const say = (id, text) => {
    // What has not changed is not said again to who listens.
    if ($(id).textContent !== text) $(id).textContent = text;
  };
  const number = (value, digits = 0) => value.toLocaleString("en", { maximumFractionDigits: digits });
  const rate = (value) => number(value, value < 10 ? 2 : value < 100 ? 1 : 0);
  const size = (bytes) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = 0;
    while (bytes >= 1024 && power < units.length - 1) { bytes /= 1024; power += 1; }
    return number(bytes, power && bytes < 100 ? 1 : 0) + " " + units[power];
  };
  const time = (seconds) => {
    if (seconds === null) return "–";
    if (seconds < 0.001) return number(seconds * 1e6) + " µs";
    if (seconds < 1) return number(seconds * 1e3, 1) + " ms";
    return number(seconds, 1) + " s";
  };
  // What took longer than all classes has a day as its bound.
  const within = (seconds) => seconds === null ? "–" : seconds >= 86400 ? "> 60 s" : "≤ " + time(seconds);
  const span = (seconds) => {
    const [d, h, m] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
    return d ? d + " d " + h + " h" : h ? h + " h " + m + " min" : m ? m + " min" : Math.floor(seconds) + " s";
  };

  const shape = (name, attributes, text) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const line = (id, values) => {
    const most = Math.max(...values, 1e-9), width = LATELY;
    const points = values.map((value, at) => (at + width - values.length) + " " + (19 - 18 * value / most).toFixed(2));
    $(id).setAttribute("viewBox", "0 0 " + (width - 1) + " 20");
    $(id).setAttribute("preserveAspectRatio", "none");
    $(id).replaceChildren(shape("path", { d: points.length > 1 ? "M" + points.join("L") : "" }));
  };
  const latencies = (latency, before) => {
    const counts = latency.counts.map((count, at) => Math.max(0, count - before[at]));
    const calls = counts.reduce((sum, count) => sum + count, 0);
    const bound = (at) => at < latency.bounds_us.length ? "≤ " + time(latency.bounds_us[at] / 1e6) : "longer";
    const within = (share) => {
      let seen = 0;
      return bound(counts.findIndex((count) => (seen += count) >= calls * share));
    };
    say("latency-text", calls ? number(calls) + " calls: half " + within(0.5) + ", 95 % " + within(0.95) + ", 99 % " + within(0.99) : "No calls.");
    const most = Math.max(...counts, 1), step = 500 / counts.length;
    const chart = $("latency");
    chart.setAttribute("viewBox", "0 0 500 120");
    if (chart.childElementCount !== counts.length * 2) {
      chart.replaceChildren(...counts.flatMap((_, at) => [
        shape("rect", { x: at * step + 2, width: step - 4, y: 100, height: 0 }),
        shape("text", { x: (at + 0.5) * step, y: 114 }, at % 3 ? "" : bound(at).replace("≤ ", "")),
      ]));
    }
    counts.forEach((count, at) => {
      const height = count ? Math.max(1, 96 * count / most) : 0;
      const bar = chart.children[at * 2];
      bar.setAttribute("height", height.toFixed(1));
      bar.setAttribute("y", (100 - height).toFixed(1));
    });
  };

  const list = (id, texts, none) => {
    const wanted = texts.length ? texts : [none];
    const shown = $(id);
    while (shown.childElementCount > wanted.length) shown.lastChild.remove();
    wanted.forEach((text, at) => {
      if (!shown.children[at]) shown.append(element("li"));
      if (shown.children[at].textContent !== text) shown.children[at].textContent = text;
    });
  };

  // Each row keeps its elements, and so the focus that may be in it.
  const rows = new Map();
  const incomplete = {
    cut: "The functions directory has more entries than are looked at: functions that were not called may be missing.",
    unknown: "The functions directory is not known: it cannot be read, or that takes long. Functions that were not called may be missing.",
  };
  const row = (name) => {
    const made = element("tr");
    const head = element("th");
    head.scope = "row";
    made.append(head, ...columns.slice(1, -1).map(() => element("td")));
    const choose = element("button", "Choose");
    choose.type = "button";
    choose.setAttribute("aria-label", "Choose " + name + " to be put here or rolled back");
    choose.addEventListener("click", () => { $("name").value = name; named(); $("token").focus(); });
    for (const [column, what] of measured) {
      const meter = element("meter");
      meter.high = 0.9;
      meter.setAttribute("aria-label", what + " of " + name + ", of its limit");
      made.children[column].append(element("span"), meter);
    }
    const last = element("td");
    last.append(choose);
    made.append(last);
    return made;
  };
  // A value beside its limit, if that is known.
  const measure = (cell, used, limit, written) => {
    const [said, meter] = cell.children;
    const text = written(used) + (limit ? " of " + written(limit) : "");
    if (said.textContent !== text) said.textContent = text;
    meter.hidden = !limit;
    if (!limit) return;
    meter.value = used / limit;
    const share = number(100 * used / limit) + " %";
    if (meter.getAttribute("aria-valuetext") !== share) meter.setAttribute("aria-valuetext", share);
  };
  const table = (functions) => {
    const names = new Set(functions.rows.map((one) => one.name));
    for (const [name, made] of rows) if (!names.has(name)) { made.remove(); rows.delete(name); }
    const body = $("rows");
    functions.rows.forEach((one, at) => {
      if (!rows.has(one.name)) rows.set(one.name, row(one.name));
      const made = rows.get(one.name);
      // A row with the focus stays where it is; the others go around it.
      if (body.children[at] !== made && !made.contains(document.activeElement)) body.insertBefore(made, body.children[at] || null);
      const state = one.tier === "baseline" ? one.state + ", baseline" : one.state;
      const texts = [
        one.name, state, number(one.running), rate(one.calls_per_second), rate(one.errors_per_second), number(one.calls), number(one.errors),
        null, null, within(one.p50_seconds), within(one.p99_seconds), size(one.code_bytes),
      ];
      texts.forEach((text, column) => {
        if (text !== null && made.children[column].textContent !== text) made.children[column].textContent = text;
      });
      measure(made.children[7], one.cpu_cores, one.cpu_limit_cores, (cores) => number(cores, 3));
      measure(made.children[8], one.memory_peak_bytes, one.memory_limit_bytes, size);
      made.children[0].title = one.reason || one.file || "";
      made.children[1].className = one.state === "failed" ? "bad" : "";
      made.children[6].className = one.errors ? "bad" : "";
    });
    const end = functions.offset + functions.rows.length;
    say("shown", functions.matching ? number(functions.offset + 1) + " to " + number(end) + " of " + number(functions.matching) : "None of " + number(functions.all));
    say("directory", incomplete[functions.directory] || "");
    $("previous").disabled = functions.offset === 0;
    $("next").disabled = end >= functions.matching;
    if (!functions.rows.length && functions.offset) { asked.offset = 0; soon(); }
  };

  let shownFailures = "";
  const failures = (all) => {
    const ids = all.map((one) => one.invocation_id).join();
    if (ids === shownFailures && $("failures").childElementCount) return;
    shownFailures = ids;
    $("failures").replaceChildren(...all.map((one) => {
      const made = element("li");
      made.append(
        element("strong", one.function), " " + new Date(one.at_unix_ms).toLocaleTimeString("en-GB") + ", answered " + one.status + " " + one.code,
        element("br"), one.reason, element("br"), "invocation ", element("code", one.invocation_id));
      if (one.stderr) {
        const words = element("pre", one.stderr);
        // It scrolls, by keys, too.
        words.tabIndex = 0;
        made.append(words);
      }
      return made;
    }));
    if (!all.length) $("failures").append(element("li", "None."));
  };

  const show = (now) => {
    const status = now.status;
    const state = status.readiness.draining ? "draining" : status.readiness.ready ? "ready" : "unready";
    say("pod", status.pod);
    say("state", state);
    say("about", "version " + status.version + ", up " + span(status.uptime_seconds) + ", " + number(status.connections) + " connections");
    document.title = status.pod + " – WasmBox";
    say("calls", rate(now.totals.calls_per_second));
    say("errors", rate(now.totals.errors_per_second));
    $("errors").className = now.totals.errors_per_second > 0 ? "bad" : "";
    const cores = status.cpu_cores || 0;
    say("cpu", number(cores, 2) + " of " + number(now.cpu_limit_cores) + (now.cpu_limit_cores === 1 ? " core" : " cores"));
    $("cpu-meter").value = cores / now.cpu_limit_cores;
    const { working_set_bytes: used, limit_bytes: most } = status.memory;
    say("memory", (used === null ? "unknown" : size(used)) + " of " + size(most));
    $("memory-meter").value = (used || 0) / most;
    say("running", number(status.in_flight.invocations) + " of " + number(status.capacity.invocations));
    say("running-units", size(status.in_flight.units * 1048576) + " of " + size(status.capacity.units * 1048576) + " requested");
    say("waiting", number(status.queued.invocations));
    say("gates", status.closed_gates.length ? "nothing starts, for want of " + status.closed_gates.join(" and ") : size(status.queued.units * 1048576) + " requested");
    say("evicted", number(now.evicted));
    say("growth", number(now.growth_waits) + " growths waited");
    say("compiling", now.compiling.running + " of " + now.compiling.places);
    say("compiling-waiting", now.compiling.waiting + " waiting, " + now.compiling.baseline + " to be optimised");
    list("loading", now.compiling.loading.map((one) => one.file + ": about " + Math.ceil(one.seconds_left) + " s left"), "Nothing.");
    list("rejected", Object.entries(status.rejected).sort((a, b) => b[1] - a[1]).map(([code, count]) => code + ": " + number(count)), "Nothing.");
    const at = status.uptime_seconds, last = past[past.length - 1];
    // Another process counts from zero; and nothing is known of a time in which nobody looked.
    if (last && (last.pid !== status.pid || at - last.at > GAP)) past.length = 0;
    else if (last && at - last.at < 0.9) past.pop();
    past.push({ at, pid: status.pid, calls: now.totals.calls_per_second, errors: now.totals.errors_per_second, counts: now.latency.counts });
    while (past[0].at < at - LATELY) past.shift();
    line("calls-chart", past.map((one) => one.calls));
    line("errors-chart", past.map((one) => one.errors));
    latencies(now.latency, past[0].counts);
    table(now.functions);
    failures(now.failures);
    $("functions").classList.toggle("read-only", !now.uploads);
    $("put").hidden = !now.uploads;
    $("put-off").hidden = now.uploads;
  };

  const trouble = (text) => { say("trouble", text); $("trouble").hidden = !text; };
  const look = async () => {
    const mine = ++turn;
    const query = new URLSearchParams({ sort: asked.sort, limit: LIMIT, offset: asked.offset, filter: asked.filter });
    try {
      const answer = await fetch("overview.json?" + query, { credentials: "omit", redirect: "error", cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error("it answers " + answer.status);
      const now = await answer.json();
      // Somebody has sorted or filtered meanwhile.
      if (mine !== turn) return;
      show(now);
      trouble("");
      wait = PERIOD;
    } catch (error) {
      if (mine !== turn) return;
      say("state", "no answer");
      trouble("The box does not answer: " + error.message + ". What is shown is what was last known.");
      wait = Math.min(wait * 2, SLOWEST);
    }
    clearTimeout(timer);
    if (!paused && !document.hidden) timer = setTimeout(look, wait);
  };
  const soon = (after = 0) => { clearTimeout(timer); timer = setTimeout(look, after); };

  const sorted = () => {
    for (const head of $("heads").children) {
      if (head.dataset.sort === asked.sort) head.setAttribute("aria-sort", asked.sort === "name" ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
  };
  $("heads").append(...columns.map(([text, sort]) => {
    if (!text) return element("td");
    const head = element("th");
    head.scope = "col";
    if (!sort) { head.textContent = text; return head; }
    head.dataset.sort = sort;
    const button = element("button", text);
    button.type = "button";
    button.addEventListener("click", () => { asked.sort = sort; asked.offset = 0; sorted(); soon(); });
    head.append(button);
    return head;
  }));
  sorted();
  $("filter").addEventListener("input", () => {
    // Names have no other letters.
    asked.filter = $("filter").value.replace(/[^\x21-\x7e]/g, "");
    asked.offset = 0;
    soon(250);
  });
  $("previous").addEventListener("click", () => { asked.offset = Math.max(0, asked.offset - LIMIT); soon(); });
  $("next").addEventListener("click", () => { asked.offset += LIMIT; soon(); });
  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").setAttribute("aria-pressed", String(paused));
    if (!paused) soon();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) soon(); });

  // Functions are put here through the API that `wasmbox push` has. The token is in its field, and nowhere else.
  const ask = async (method, below, body, name = $("name").value.trim()) => {
    if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]*$/.test(name)) { say("result", "Give the function's name."); $("name").focus(); return null; }
    if (!/^[\x21-\x7e]+$/.test($("token").value)) { say("result", "Give the token."); $("token").focus(); return null; }
    say("result", method === "GET" ? "Asking." : "Working on " + name + ".");
    try {
      const answer = await fetch("functions/" + encodeURIComponent(name) + below, {
        method, body, credentials: "omit", redirect: "error", cache: "no-store", headers: { Authorization: "Bearer " + $("token").value },
      });
      const text = await answer.text();
      let document = {};
      try { document = JSON.parse(text); } catch { /* It has no document. */ }
      if (!answer.ok) { say("result", name + ": " + (document.detail || "answered " + answer.status)); return null; }
      return { name, document };
    } catch (error) {
      say("result", name + ": " + error.message);
      return null;
    }
  };
  const versions = async () => {
    const done = await ask("GET", "/versions");
    if (!done) return;
    say("result", done.name + " has " + done.document.length + " versions.");
    $("version-list").replaceChildren(...done.document.map((one) => {
      const made = element("li", "version " + one.version + ", " + size(one.bytes) + ", " + new Date(one.created_unix * 1000).toLocaleString("en-GB") + (one.serving ? ", serves " : " "));
      if (!one.serving) {
        const back = element("button", "Go back to version " + one.version + " of " + done.name);
        back.type = "button";
        back.addEventListener("click", () => rollback("?version=" + one.version, done.name));
        made.append(back);
      }
      return made;
    }));
  };
  // Whose versions are shown is whose name is in the field.
  const named = () => $("version-list").replaceChildren();
  const rollback = async (query, name) => {
    const done = await ask("POST", "/rollback" + query, undefined, name);
    if (!done) return;
    $("version-list").replaceChildren();
    say("result", done.name + ": version " + done.document.version + " serves.");
  };
  $("put").addEventListener("submit", async (event) => {
    event.preventDefault();
    const file = $("module").files[0];
    if (!file) { say("result", "Choose a module."); $("module").focus(); return; }
    if (!$("name").value) $("name").value = file.name.replace(/\.(wasm|wat)$/, "");
    const done = await ask("PUT", "", file);
    if (!done) return;
    $("version-list").replaceChildren();
    say("result", done.name + ": " + done.document.result + ", version " + done.document.version + ", " + size(done.document.bytes) + ".");
  });
  $("name").addEventListener("input", named);
  $("versions").addEventListener("click", versions);
  $("rollback").addEventListener("click", () => rollback(""));
  look();
})();
