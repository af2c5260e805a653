// Draws /openapi.json: one section for each route, with its parameters, body and statuses.
"use strict";

function table(parent, columns, rows) {
  if (rows.length) fill(add(parent, "table"), columns.map((name) => [name]), rows);
}

function typeOf(schema, schemas) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map((one) => typeOf(one, schemas)).join(" or ");
  if (schema.enum) return schema.enum.join(", ");
  if (schema.items) return "list of " + (typeOf(schema.items, schemas) || "any");
  return [].concat(schema.type || "any").join(" or ") + (schema.format ? ` (${schema.format})` : "");
}

function operation(parent, methods, path, item, it) {
  const section = add(parent, "section", "", "card");
  add(section, "h2", `${methods.join(" or ").toUpperCase()} ${path}`);
  add(section, "p", it.summary + (it.description ? ". " + it.description : ""));
  const parameters = [...(item.parameters || []), ...(it.parameters || [])];
  table(section, ["parameter", "in", "type", "meaning"],
    parameters.map((one) => [one.name, one.in, typeOf(one.schema), one.description || ""]));
  const bodies = Object.entries((it.requestBody || {}).content || {});
  table(section, ["body", "type"], bodies.map(([kind, one]) => [kind === "*/*" ? "any content type" : kind, typeOf(one.schema)]));
  table(section, ["status", "meaning"], Object.entries(it.responses).map(([status, one]) => [status, one.description]));
}

async function draw() {
  const main = document.getElementById("routes");
  const document_ = await (await fetch("/openapi.json")).json();
  for (const [path, item] of Object.entries(document_.paths)) {
    const seen = new Map();
    for (const method of ["get", "post", "put"]) {
      if (!item[method]) continue;
      const known = JSON.stringify(item[method]);
      seen.set(known, [...(seen.get(known) || []), method]);
    }
    for (const [known, methods] of seen) operation(main, methods, path, item, JSON.parse(known));
  }
  for (const [name, schema] of Object.entries(document_.components.schemas)) {
    const section = add(main, "section", "", "card");
    add(section, "h2", name);
    table(section, ["field", "type", "meaning"],
      Object.entries(schema.properties || {}).map(([field, one]) => [field, typeOf(one), one.description || ""]));
  }
}

draw();
