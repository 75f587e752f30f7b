// The output of one stage: its end first, then whatever comes, and earlier lines when they are asked for.
// Loaded by live.js where a page has such a box. It never holds more than MOST characters of an output.
const PIECE = 64 * 1024;
const BLOCK = 16 * 1024;
const MOST = 1024 * 1024;
const ESCAPES = /\x1b\[[0-9;?]*[ -/]*[@-~]/g;
const shown = new WeakMap();

class Log {
  constructor(box) {
    this.url = box.dataset.log;
    this.pre = box.querySelector("pre");
    this.words = box.querySelector(".log-state");
    this.earlier = box.querySelector(".log-earlier");
    this.latest = box.querySelector(".log-latest");
    this.earlier.addEventListener("click", () => this.back());
    this.latest.addEventListener("click", () => this.open());
  }

  async open() {
    if (this.opening) return;
    this.opening = true;
    this.close();
    const piece = await this.fetch({ limit: PIECE });
    this.opening = false;
    if (!piece) return;
    this.pre.replaceChildren();
    this.begin = piece.begin;
    this.end = piece.next;
    if (piece.text) this.append(piece.text, piece.begin);
    this.latest.hidden = true;
    this.look();
    this.pre.scrollTop = this.pre.scrollHeight;
    this.follow();
  }

  close() {
    this.source?.close();
    this.source = null;
  }

  follow() {
    const source = new EventSource(`${this.url}/events?offset=${this.end}&behind=${4 * PIECE}`);
    this.source = source;
    this.words.textContent = "live";
    source.onmessage = (event) => this.came(JSON.parse(event.data));
    source.onerror = () => {
      const refused = source.readyState === EventSource.CLOSED;
      this.words.textContent = refused ? "not live: load the page again" : "the connection is lost; trying again";
    };
    source.onopen = () => { this.words.textContent = "live"; };
    source.addEventListener("end", () => {
      this.close();
      this.words.textContent = this.end ? "whole output" : "no output";
    });
  }

  came({ offset, next, text }) {
    const atEnd = this.pre.scrollTop + this.pre.clientHeight > this.pre.scrollHeight - 40;
    if (offset > this.end) {
      // Faster than anybody reads: the lines between are still there for whoever goes back.
      this.pre.replaceChildren();
      this.begin = offset;
    }
    this.append(text, offset);
    this.end = next;
    while (this.pre.textLength > MOST && this.pre.children.length > 1) this.drop(this.pre.firstElementChild);
    this.begin = Number(this.pre.firstElementChild.dataset.begin);
    this.look();
    if (atEnd) this.pre.scrollTop = this.pre.scrollHeight;
  }

  async back() {
    if (!this.begin || this.earlier.disabled) return;
    const offset = Math.max(0, this.begin - PIECE);
    this.earlier.disabled = true;
    const piece = await this.fetch({ offset, limit: this.begin - offset });
    this.earlier.disabled = false;
    if (!piece) return;
    const height = this.pre.scrollHeight;
    this.pre.prepend(this.block(piece.text, piece.begin));
    this.begin = piece.begin;
    this.pre.scrollTop += this.pre.scrollHeight - height;
    this.pre.textLength += piece.text.length;
    while (this.pre.textLength > MOST && this.pre.children.length > 1) {
      this.close();
      this.drop(this.pre.lastElementChild);
      this.latest.hidden = false;
      this.words.textContent = "an earlier part";
    }
    this.look();
  }

  // A piece begins with a whole line, unless it begins with the line about what is not kept.
  async fetch(query) {
    const answer = await fetch(`${this.url}?${new URLSearchParams(query)}`);
    if (!answer.ok) {
      this.words.textContent = `the server answered ${answer.status}`;
      return null;
    }
    let bytes = new Uint8Array(await answer.arrayBuffer());
    let begin = Number(answer.headers.get("penstock-log-begin"));
    const next = Number(answer.headers.get("penstock-log-next"));
    const line = bytes.indexOf(10) + 1;
    if (begin > 0 && line > 0 && line < bytes.length && bytes.length === next - begin) {
      bytes = bytes.subarray(line);
      begin += line;
    }
    return { begin, next, text: clean(new TextDecoder().decode(bytes)) };
  }

  // Blocks end with lines: a browser lays out again only the one that grows, and whole ones are dropped.
  append(text, offset) {
    text = clean(text);
    const last = this.pre.lastElementChild;
    const full = last && last.firstChild.length > BLOCK;
    if (!last || (full && (last.firstChild.data.endsWith("\n") || last.firstChild.length > MOST / 4))) {
      this.pre.append(this.block(text, offset));
    } else {
      last.firstChild.appendData(text);
    }
    this.pre.textLength = (last ? this.pre.textLength : 0) + text.length;
  }

  block(text, offset) {
    const made = document.createElement("div");
    made.dataset.begin = offset;
    made.append(document.createTextNode(text));
    return made;
  }

  drop(block) {
    this.pre.textLength -= block.firstChild.length;
    block.remove();
  }

  look() {
    this.earlier.hidden = !(this.begin > 0);
  }
}

function clean(text) {
  return text.replace(ESCAPES, "");
}

function watch(box) {
  if (!shown.has(box)) {
    shown.set(box, new Log(box));
    box.addEventListener("toggle", () => watch(box));
  }
  const log = shown.get(box);
  if (box.open && !log.source) log.open();
  else if (!box.open) log.close();
}

function watchNew() {
  for (const box of document.querySelectorAll("[data-log]")) if (!shown.has(box)) watch(box);
}

// Moves the outputs that are being read into a newer page; only what is said about them is new.
// Gives what is to be called once that page is shown.
export function keep(page) {
  const tops = new Map();
  for (const box of document.querySelectorAll("[data-log]")) {
    const fresh = page.getElementById(box.id);
    if (!fresh) continue;
    const pre = box.querySelector("pre");
    tops.set(pre, pre.scrollTop);
    box.querySelector("summary").replaceWith(fresh.querySelector("summary"));
    fresh.replaceWith(box);
  }
  return () => {
    for (const [pre, top] of tops) pre.scrollTop = top;
    watchNew();
  };
}

watchNew();
