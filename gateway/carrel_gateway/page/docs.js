// Draws /openapi.json as a page: one entry per path and method, grouped by tag.

import { element } from "/page/render.js";

const METHODS = ["get", "post", "put", "delete"];

const plain = (text) => text.replace(/`/g, "");

function typeOf(schema = {}) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `[${typeOf(schema.items)}]`;
  return schema.format ? `${schema.type} (${schema.format})` : schema.type || "any";
}

function fields(spec, schema = {}) {
  const found = schema.$ref ? spec.components.schemas[schema.$ref.split("/").pop()] : schema;
  const option = found?.anyOf?.find((item) => item.$ref);
  if (option) return fields(spec, option);
  const required = new Set(found?.required || []);
  return Object.entries(found?.properties || {}).map(([name, value]) => entry(name, value, required.has(name), value.description));
}

function entry(name, schema, required, description) {
  return [element("dt", {}, `${name}: ${typeOf(schema)}${required ? "" : "?"}`), element("dd", {}, plain(description || ""))];
}

function list(heading, entries) {
  return entries.length ? [element("h3", {}, heading), element("dl", {}, ...entries.flat())] : [];
}

function route(spec, path, method, operation) {
  const parameters = (operation.parameters || []).map((item) => entry(`${item.name} (${item.in})`, item.schema, item.required, item.description || item.schema?.description));
  const sent = Object.entries(operation.requestBody?.content || {});
  const answered = Object.entries(operation.responses || {}).filter(([status]) => status.startsWith("2"));
  const body = element("div", { class: "body" },
    element("p", {}, plain(operation.description || "")),
    ...list("Parameters", parameters),
    ...sent.flatMap(([type, content]) => list(`Body, ${type}`, fields(spec, content.schema))),
    ...answered.flatMap(([status, response]) => Object.entries(response.content || { "no content": {} }).flatMap(
      ([type, content]) => [element("h3", {}, `${status}, ${type}`), element("dl", {}, ...fields(spec, content.schema).flat())])));
  return element("details", { class: "route" }, element("summary", {},
    element("span", { class: "method" }, method.toUpperCase()), element("span", { class: "path" }, path),
    element("span", { class: "what" }, plain((operation.description || "").split("\n")[0]))), body);
}

const spec = await (await fetch("/openapi.json")).json();
const groups = new Map();
for (const [path, methods] of Object.entries(spec.paths)) {
  for (const method of METHODS) {
    const operation = methods[method];
    if (!operation) continue;
    const tag = operation.tags?.at(-1) || "other";
    if (!groups.has(tag)) groups.set(tag, []);
    groups.get(tag).push(route(spec, path, method, operation));
  }
}
const drawn = [...groups].flatMap(([tag, routes]) => [element("h2", {}, tag), ...routes]);
document.getElementById("routes").append(...drawn);
