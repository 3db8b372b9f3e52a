// openapi.json as a page: each path with what it takes, what it answers, and how to ask.
"use strict";

const EXAMPLES = {
  "/translate": { text: "A dog barks.", alternatives: 3 },
  "/attention": { source: "A dog barks.", target: "Ein Hund bellt." },
};

function make(tag, text, ...children) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

function show(api) {
  document.getElementById("about").textContent = api.info.description;
  const articles = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => describe(api, path, method, operation)),
  );
  document.getElementById("paths").append(...articles);
}

function describe(api, path, method, operation) {
  const article = make("article", "", make("h2", `${method.toUpperCase()} ${path}`));
  article.append(make("p", operation.description));
  const body = operation.requestBody?.content["application/json"].schema;
  if (body) article.append(make("h3", "takes"), fields(api, body, "optional"));
  const answers = Object.entries(operation.responses).filter(([status]) => status < 300);
  for (const [, answer] of answers) {
    const schema = resolve(api, answer.content?.["application/json"]?.schema);
    if (schema?.properties) article.append(make("h3", "answers"), fields(api, schema));
  }
  const refused = Object.keys(operation.responses).filter((status) => status >= 300);
  if (refused.length) article.append(make("h3", "refuses with"), make("p", refused.join(", ")));
  article.append(make("pre", example(path, method)));
  return article;
}

function fields(api, schema, note = "") {
  const rows = Object.entries(schema.properties).map(([name, field]) => {
    const optional = schema.required?.includes(name) ? "" : note;
    return make("tr", "", make("td", "", make("code", name)), make("td", kind(api, field)),
      make("td", [optional, field.description].filter(Boolean).join(": ").replaceAll("`", "")));
  });
  return make("table", "", make("tbody", "", ...rows));
}

function kind(api, field) {
  if (field.$ref) return kind(api, resolve(api, field));
  if (field.anyOf) return field.anyOf.map((each) => kind(api, each)).join(" or ");
  if (field.type === "array") return `list of ${kind(api, field.items)}`;
  if (field.properties) return `{${Object.keys(field.properties).join(", ")}}`;
  const least = field.minimum === undefined ? "" : ` from ${field.minimum}`;
  return `${field.type}${least}${field.maximum === undefined ? "" : ` to ${field.maximum}`}`;
}

function resolve(api, schema) {
  return schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema;
}

function example(path, method) {
  const url = new URL(path.slice(1), location.href).href;
  if (method === "get") return `curl ${url}`;
  return `curl ${url} -H 'content-type: application/json' -d '${JSON.stringify(EXAMPLES[path])}'`;
}

fetch("openapi.json").then((answer) => answer.json()).then(show);
