// What the demo looks at: JSON that `pulse … --json` printed, and the server's metrics.
//
//   look.mjs get FILE KEY.KEY…         prints one value; ends with 1 if it is not there
//   look.mjs applied LIST PROXIES      the list's revision, and for each proxy (HOSTNAME=MS) how long after the change it
//                                      said that the list is in force; ends with 1 while one of them has not
//   look.mjs reading TEMPS NODE        when a node's newest temperatures were read; ends with 1 while it has none
//   look.mjs reports ADDRESS CA        how many reports the server took since it started, and for how many seconds it ran
//
// The times are the server's own: when the change was made, and when the proxy's answer came back.
import { readFileSync } from "node:fs";
import { request } from "node:https";

const json = (file) => JSON.parse(readFileSync(file, "utf8"));

function get(file, path) {
  const value = path.split(".").reduce((value, key) => value?.[key], json(file));
  return value === undefined || value === null ? undefined : String(value);
}

function applied(listFile, proxiesFile) {
  const [list] = json(listFile).allowlists;
  const { proxies } = json(proxiesFile);
  const isThere = ({ applied, pushed, state }) =>
    state === "IN_SYNC" && applied?.hash === list.hash && applied.revision === list.revision && pushed?.hash === list.hash;
  if (proxies.length === 0 || !proxies.every(isThere)) return undefined;
  const took = ({ hostname, applied }) => `${hostname}=${Date.parse(applied.at) - Date.parse(list.updated_at)}`;
  return [list.revision, ...proxies.map(took)].join(" ");
}

function reading(tempsFile, name) {
  const node = json(tempsFile).nodes.find(({ node }) => node === name);
  return node?.readings.length > 0 ? node.collected_at : undefined;
}

function fetch(address, caFile) {
  const [host, port] = address.split(":");
  return new Promise((done, failed) => {
    const options = { host, port, path: "/metrics", ca: readFileSync(caFile), agent: false, timeout: 5000 };
    const asked = request(options, (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (part) => (text += part));
      answer.on("end", () => (answer.statusCode === 200 ? done(text) : failed(new Error(`${answer.statusCode}: ${text}`))));
    });
    asked.on("timeout", () => asked.destroy(new Error("no answer within 5 s")));
    asked.on("error", failed);
    asked.end();
  });
}

async function reports(address, caFile) {
  const text = await fetch(address, caFile);
  const value = (name) => Number(text.split("\n").find((line) => line.startsWith(`${name} `))?.slice(name.length) ?? 0);
  const taken = value('pulse_reports_total{result="stored"}') + value('pulse_reports_total{result="partial"}');
  return `${taken} ${Math.round(Date.now() / 1000 - value("process_start_time_seconds"))}`;
}

const [, , what, ...rest] = process.argv;
try {
  const found = await { get, applied, reading, reports }[what](...rest);
  if (found === undefined) process.exitCode = 1;
  else console.log(found);
} catch (error) {
  console.error(`look.mjs ${what}: ${error.message}`);
  process.exitCode = 1;
}
