// Shows the OpenAPI document. What the document says is set as text, never as markup.
"use strict";

const BOUNDS = {
  minimum: "from", exclusiveMinimum: "above", maximum: "to", minLength: "characters from", maxLength: "characters to",
  minItems: "items from", minProperties: "fields from", pattern: "like", default: "without it:",
};

/** Returns an element with these children, which are nodes or texts. */
function element(tag, name, ...children) {
  const made = document.createElement(tag);
  made.className = name;
  made.append(...children);
  return made;
}

/** What is known of schemas: those that the document names. */
class Schemas {
  constructor(named) {
    this.named = named;
  }

  resolved(schema) {
    return schema.$ref ? this.named[schema.$ref.split("/").pop()] : schema;
  }

  /** Returns a type in words: `integer or null, from 1, to 500`. */
  words(given) {
    const schema = this.resolved(given);
    const variants = schema.anyOf || schema.oneOf;
    let type = schema.title || [schema.type || "anything"].flat().join(" or ");
    if (variants) type = variants.map((one) => this.words(one)).join(" or ");
    else if (schema.enum) type = schema.enum.map((one) => JSON.stringify(one)).join(" or ");
    else if ("const" in schema) type = JSON.stringify(schema.const);
    else if (schema.type === "array") type = `list of ${this.words(schema.items || {})}`;
    const bounds = Object.keys(BOUNDS).filter((key) => key in schema);
    return [type, ...bounds.map((key) => `${BOUNDS[key]} ${JSON.stringify(schema[key])}`)].join(", ");
  }

  /** Returns the lists of fields of whatever objects are in a schema; `above` are those that it is within. */
  fields(given, above = []) {
    const schema = this.resolved(given);
    if (above.includes(schema)) return [];
    const within = [...above, schema];
    const inner = [...(schema.anyOf || schema.oneOf || []), schema.items, schema.additionalProperties];
    const lists = inner.filter((one) => one instanceof Object).flatMap((one) => this.fields(one, within));
    const required = schema.required || [];
    const items = Object.entries(schema.properties || {}).map(([name, field]) =>
      this.item(name, required.includes(name) ? "required" : "", field, within));
    return items.length ? [element("ul", "", ...items), ...lists] : lists;
  }

  item(name, note, schema, above = []) {
    const text = this.resolved(schema).description || "";
    return element("li", "", element("code", "", name), ` ${this.words(schema)} `,
      element("span", "note", [note, text].filter(Boolean).join(". ")), ...this.fields(schema, above));
  }

  /** Returns what a body may be: each media type, its fields and its example. */
  content(content) {
    return Object.entries(content || {}).flatMap(([type, { schema = {}, example }]) => [
      element("p", "", element("code", "", type), ` ${this.words(schema)}`),
      ...this.fields(schema),
      ...(example === undefined ? [] : [element("pre", "", JSON.stringify(example, null, 2))]),
    ]);
  }
}

/** Returns a command that calls an operation; the token goes along where one is asked for. */
function command(method, path, operation) {
  const words = ["curl", ...(method === "get" ? [] : ["-X", method.toUpperCase()])];
  if (!isOpen(operation)) words.push('-H "Authorization: Bearer $ADMIN_TOKEN"');
  const body = operation.requestBody?.content["application/json"];
  if (body) {
    const example = JSON.stringify(body.example ?? {}).replaceAll("'", "'\\''");
    words.push("-H 'Content-Type: application/json'", `-d '${example}'`);
  }
  return [...words, `'${location.origin}${path}'`].join(" ");
}

function isOpen(operation) {
  return (operation.security || []).some((one) => Object.keys(one).length === 0);
}

function section(title, nodes) {
  return nodes.length ? [element("h3", "", title), ...nodes] : [];
}

function shown(schemas, method, path, operation) {
  const parameters = (operation.parameters || []).map((one) =>
    schemas.item(one.name, `in ${one.in}${one.required ? ", required" : ""}`, one.schema || {}));
  const answers = Object.entries(operation.responses).sort().map(([status, answer]) =>
    element("details", "", element("summary", "", element("code", "", status), ` ${answer.description}`),
      ...Object.entries(answer.headers || {}).map(([name, header]) =>
        element("p", "", element("code", "", name), ` ${header.description || ""}`)),
      ...schemas.content(answer.content)));
  const heading = element("summary", "", element("span", "method", method.toUpperCase()), " ", element("code", "", path),
    element("span", "note", ` ${operation.description || operation.summary || ""}`));
  const made = element("details", "operation", heading,
    element("p", "note", isOpen(operation) ? "Anybody may call it." : "Asks for the admin token, or a session's cookie."),
    element("pre", "", command(method, path, operation)),
    ...section("Parameters", parameters.length ? [element("ul", "", ...parameters)] : []),
    ...section("Body", schemas.content(operation.requestBody?.content)),
    ...section("Answers", answers));
  made.id = operation.operationId;
  made.dataset.words = `${method} ${path} ${operation.description || ""} ${operation.summary || ""}`.toLowerCase();
  return made;
}

async function show() {
  const place = document.getElementById("operations");
  try {
    const answer = await fetch("/schema/openapi.json");
    if (!answer.ok) throw new Error(`the document was answered with ${answer.status}`);
    const api = await answer.json();
    const schemas = new Schemas(api.components?.schemas || {});
    document.title = api.info.title;
    document.getElementById("title").textContent = `${api.info.title} ${api.info.version}`;
    place.replaceChildren(...Object.entries(api.paths).sort().flatMap(([path, operations]) =>
      Object.entries(operations).map(([method, operation]) => shown(schemas, method, path, operation))));
    document.getElementById(location.hash.slice(1))?.setAttribute("open", "");
  } catch (error) {
    place.replaceChildren(element("p", "", `The document could not be shown: ${error.message}.`));
  }
}

document.getElementById("find").addEventListener("input", ({ target }) => {
  for (const one of document.querySelectorAll(".operation")) one.hidden = !one.dataset.words.includes(target.value.toLowerCase());
});
show();
