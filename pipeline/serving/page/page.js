// The page for people. All text is set as text, never as markup.
"use strict";

const byId = (id) => document.getElementById(id);
const END = "end of sentence";
let running = null; // what stops the request that is under way

async function ask(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (byId("token").value) headers.Authorization = `Bearer ${byId("token").value}`;
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (answer.status === 401) {
    byId("guard").hidden = false;
    byId("token").focus();
    throw new Error("This server wants its token.");
  }
  const said = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  if (answer.ok) return said;
  if (answer.status === 429) {
    throw new Error(`The server is busy; try again in ${answer.headers.get("Retry-After")} s.`);
  }
  throw new Error(said.error);
}

function say(text, wrong = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("wrong", wrong);
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

async function translate() {
  const lines = byId("text").value.split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
  if (!lines.length) return;
  running?.abort();
  const mine = (running = new AbortController());
  byId("translate").setAttribute("aria-disabled", "true");
  say("Translating …");
  const start = performance.now();
  try {
    const said = await ask("translate", { text: lines, ...wanted() }, mine.signal);
    const results = said.translations.map((found, n) => new Result(lines[n], found));
    byId("results").replaceChildren(...results.map((result) => result.element));
    showModel(said.model);
    say(`${lines.length === 1 ? "1 sentence" : `${lines.length} sentences`} in ${
      Math.round(performance.now() - start)} ms`);
  } catch (error) {
    if (error.name === "AbortError") return;
    say(error instanceof TypeError ? "The server does not answer." : error.message, true);
  } finally {
    if (running === mine) byId("translate").removeAttribute("aria-disabled");
  }
}

function wanted() {
  const alternatives = Number(byId("count").value);
  // A beam holds at least as many as are asked for.
  return alternatives > 1 ? { alternatives, beam: Math.max(5, alternatives) } : {};
}

function showModel(model) {
  byId("model").textContent =
    model.version === null ? model.name : `${model.name}, version ${model.version}`;
}

/** A sentence with its translations; the chosen one word by word, each word with its attention. */
class Result {
  constructor(source, found) {
    this.source = source;
    this.element = byId("result").content.firstElementChild.cloneNode(true);
    for (const name of ["source", "target", "alternatives", "heads"]) {
      this[`${name}Box`] = this.element.querySelector(`.${name}`);
    }
    this.caption = this.element.querySelector("figcaption");
    this.invitation = this.caption.textContent;
    this.choices = (found.alternatives ?? []).map((each) => this.makeChoice(each));
    if (this.choices.length > 1) this.alternativesBox.replaceChildren(...this.choices);
    else this.alternativesBox.remove();
    this.targetBox.addEventListener("keydown", (event) => this.walk(event));
    // Asked for before a word is reached, so that it is there then.
    this.targetBox.addEventListener("pointerenter", () => this.look().catch(() => {}));
    this.choose(found.text);
  }

  makeChoice({ text, score }) {
    const item = document.createElement("li");
    const button = make("button", "");
    button.type = "button";
    button.append(make("span", "text", text), make("span", "score", score.toFixed(2).replace("-", "−")));
    button.querySelector(".text").dir = "auto";
    button.querySelector(".score").title = "log-probability for each token";
    button.addEventListener("click", () => this.choose(text));
    button.dataset.text = text;
    item.append(button);
    return item;
  }

  choose(text) {
    this.target = text;
    this.attention = this.word = this.head = null;
    for (const choice of this.choices) {
      const button = choice.firstElementChild;
      button.setAttribute("aria-pressed", String(button.dataset.text === text));
    }
    this.caption.textContent = this.invitation;
    this.headsBox.replaceChildren();
    this.sourceBox.textContent = this.source;
    this.words = text.split(/\s+/).filter(Boolean).map((word, n) => this.makeWord(word, n));
    this.targetBox.replaceChildren(...this.words.flatMap((word) => [word, " "]));
  }

  makeWord(text, number) {
    const button = make("button", "word", text);
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.tabIndex = number ? -1 : 0; // one stop for Tab; arrows go from word to word
    for (const event of ["pointerenter", "focus", "click"]) {
      button.addEventListener(event, () => this.show(number));
    }
    return button;
  }

  walk(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const at = this.words.indexOf(document.activeElement) + steps[event.key];
    this.words[Math.min(Math.max(at, 0), this.words.length - 1)].focus();
  }

  /** The attention of the chosen translation, by words; asked for once. */
  look() {
    this.attention ??= ask("attention", { source: this.source, target: this.target }).then(
      (said) => byWords(said, this.source, this.target),
    );
    return this.attention;
  }

  async show(number) {
    this.word = number;
    this.words.forEach((word, n) => {
      word.setAttribute("aria-pressed", String(n === number));
      word.tabIndex = n === number ? 0 : -1;
    });
    const asked = this.target;
    try {
      const attention = await this.look();
      if (this.target !== asked || this.word !== number) return; // meanwhile at another word
      if (!this.headsBox.childElementCount) this.draw(attention);
      this.paint(attention);
    } catch (error) {
      this.attention = null;
      this.caption.textContent = error.message;
    }
  }

  /** The source's words, and a button for each head, without weights yet. */
  draw(attention) {
    this.sourceWords = attention.source.map((text) =>
      make("span", text === END ? "word end" : "word", text),
    );
    this.sourceBox.replaceChildren(...this.sourceWords.flatMap((word) => [word, " "]));
    const layers = attention.weights.map((heads, layer) => {
      const row = make("div", "layer");
      row.setAttribute("role", "group");
      row.setAttribute("aria-label", `Layer ${layer + 1}`);
      row.append(...heads.map((_, head) => this.makeHead(layer, head, attention)));
      return row;
    });
    this.headsBox.replaceChildren(...layers);
  }

  makeHead(layer, head, attention) {
    const button = byId("head").content.firstElementChild.cloneNode(true);
    button.querySelector(".name").textContent = `layer ${layer + 1}, head ${head + 1}`;
    button.querySelector(".bars").append(...attention.source.map(() => make("span", "")));
    Object.assign(button, { layer, head });
    const look = (at) => {
      this.looked = at;
      this.paint(attention);
    };
    button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && look(button));
    button.addEventListener("pointerleave", () => look(null));
    button.addEventListener("click", () => {
      this.head = this.head === button ? null : button;
      look(null);
    });
    return button;
  }

  /** The weights at the word: of each head as bars, of the chosen head or all of them in the source. */
  paint({ source, weights }) {
    const buttons = [...this.headsBox.querySelectorAll(".head")];
    for (const button of buttons) {
      const row = weights[button.layer][button.head][this.word];
      const most = row.indexOf(Math.max(...row));
      button.setAttribute("aria-pressed", String(button === this.head));
      button.querySelector(".most").textContent = `${bare(source[most])} ${percent(row[most])}`;
      button.querySelectorAll(".bars span").forEach((bar, n) => {
        bar.style.setProperty("--weight", row[n]);
      });
    }
    const one = this.looked ?? this.head;
    const rows = (one ? [one] : buttons).map((b) => weights[b.layer][b.head][this.word]);
    const mean = source.map((_, n) => rows.reduce((sum, row) => sum + row[n], 0) / rows.length);
    this.sourceWords.forEach((word, n) => {
      word.style.setProperty("--weight", mean[n].toFixed(3));
      word.classList.toggle("strong", mean[n] > 0.45);
    });
    const who = one ? `layer ${one.layer + 1}, head ${one.head + 1}` : "all heads together";
    const order = mean.map((_, n) => n).sort((a, b) => mean[b] - mean[a]).slice(0, 3);
    const seen = order.map((n) => `${bare(source[n])} ${percent(mean[n])}`).join(", ");
    const written = bare(this.words[this.word].textContent);
    this.caption.textContent = `For “${written}”, ${who} looked at ${seen}.`;
  }
}

/** A word without the punctuation around it; punctuation alone stays. */
const bare = (word) => word.replace(/^\p{P}+|\p{P}+$/gu, "") || word;
const percent = (weight) => `${Math.round(100 * weight)} %`;

/** Attention of words to words: a target word's is the mean over its tokens, a source word's the sum. */
function byWords(said, source, target) {
  const columns = groupWords(said.source, source);
  const rows = groupWords(said.target, target);
  const weights = said.weights.map((layer) =>
    layer.map((head) =>
      rows.map(({ tokens }) =>
        columns.map(({ tokens: among }) =>
          tokens.reduce((sum, t) => sum + among.reduce((all, s) => all + head[t][s], 0), 0) /
            tokens.length,
        ),
      ),
    ),
  );
  return { source: columns.map(({ text }) => text), weights };
}

/** Tokens as words, with the words as they are written; a word begins with "▁". */
function groupWords(tokens, text) {
  const groups = [];
  tokens.forEach((token, n) => {
    if (n === tokens.length - 1) groups.push({ text: END, tokens: [n] });
    else if (!groups.length || token.startsWith("▁")) groups.push({ text: token, tokens: [n] });
    else {
      groups.at(-1).tokens.push(n);
      groups.at(-1).text += token;
    }
  });
  const written = text.split(/\s+/).filter(Boolean);
  groups.forEach((group, n) => {
    if (written.length === groups.length - 1 && n < written.length) group.text = written[n];
    else group.text = group.text.replaceAll("▁", "");
  });
  return groups;
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  translate();
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    translate();
  }
});
fetch("ready").then((answer) => answer.json()).then(({ version, trouble }) => {
  if (version !== null) byId("model").textContent = `version ${version}`;
  if (trouble) say(`Note: ${trouble}.`);
}).catch(() => say("The server does not answer.", true));
byId("text").focus();
