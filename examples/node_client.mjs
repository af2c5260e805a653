// Node 18 or later, no package: node examples/node_client.mjs 127.0.0.1:8080 shoe.png
import { readFile } from "node:fs/promises";

const [address, file] = process.argv.slice(2);
const response = await fetch(`http://${address}/v1/predict?top_k=3`, {
  method: "POST",
  body: await readFile(file),
  signal: AbortSignal.timeout(5000),
});
const answer = await response.json();
if (!response.ok) {
  console.error(`no answer: ${response.status}: ${answer.error}`); // a refusal says what to do instead
  process.exit(1);
}
console.log(`${answer.classes[0].label} from ${answer.source} in ${(1000 * answer.total_s).toFixed(1)} ms`);
