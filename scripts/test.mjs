// Runs what `cargo test` would, several test programs side by side, as most of them wait for most of their time:
//
//   node scripts/test.mjs CARGO_TEST_OPTION…        such as --workspace, or -p pulse --test push
//
// Each program's output comes as a whole when it ends. What measures runs alone, at the end. Fails if one program fails.
import { spawn, spawnSync } from "node:child_process";
import { basename, dirname } from "node:path";

const SIDE_BY_SIDE = 3;
// They take longest, so they begin first.
const FIRST = ["server_writes", "proxy_writes", "simulation", "replicas_database", "harness"];
// What else the machine does would be measured with them, or a caller who is meant to be slow would be slower still.
const ALONE = ["latency", "soak", "proxmox_many", "unwritten_reports", "hostile_connections"];

const options = process.argv.slice(2);
const built = spawnSync("cargo", ["test", "--locked", "--no-run", "--message-format=json-render-diagnostics", ...options], {
  stdio: ["ignore", "pipe", "inherit"],
  maxBuffer: 1 << 30,
});
if (built.status !== 0) process.exit(built.status ?? 1);

const programs = built.stdout
  .toString()
  .split("\n")
  .filter((line) => line.startsWith("{"))
  .map((line) => JSON.parse(line))
  .filter((message) => message.reason === "compiler-artifact" && message.executable && message.profile.test)
  .map(({ target, executable, manifest_path }) => ({ name: target.name, executable, folder: dirname(manifest_path) }));
if (programs.length === 0) {
  console.error(`test: nothing to run for ${options.join(" ")}`);
  process.exit(1);
}
const rank = ({ name }) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
programs.sort((a, b) => rank(a) - rank(b));

const failed = [];

/** Runs one program in its package's folder, as cargo does. */
function run({ name, executable, folder }) {
  return new Promise((resolve) => {
    const begun = Date.now();
    const chunks = [];
    const child = spawn(executable, [], {
      cwd: folder,
      env: { ...process.env, CARGO_MANIFEST_DIR: folder },
      stdio: ["ignore", "pipe", "pipe"],
    });
    child.stdout.on("data", (chunk) => chunks.push(chunk));
    child.stderr.on("data", (chunk) => chunks.push(chunk));
    const end = (why) => {
      const seconds = ((Date.now() - begun) / 1000).toFixed(1);
      process.stdout.write(`\n     Running ${name} (${basename(executable)}), ${seconds} s\n`);
      process.stdout.write(Buffer.concat(chunks));
      if (why) {
        process.stdout.write(`FAILED: ${name}: ${why}\n`);
        failed.push(name);
      }
      resolve();
    };
    child.on("error", (error) => end(error.message));
    child.on("close", (code, signal) => end(code === 0 ? "" : signal ? `ended by ${signal}` : `exit code ${code}`));
  });
}

async function runAll(list, sideBySide) {
  const left = [...list];
  const worker = async () => {
    for (let next = left.shift(); next; next = left.shift()) await run(next);
  };
  await Promise.all(Array.from({ length: sideBySide }, worker));
}

const isAlone = ({ name }) => ALONE.includes(name);
await runAll(programs.filter((one) => !isAlone(one)), SIDE_BY_SIDE);
await runAll(programs.filter(isAlone), 1);

if (failed.length > 0) {
  console.error(`test: ${failed.length} of ${programs.length} programs failed: ${failed.join(", ")}`);
  process.exit(1);
}
console.log(`test: ${programs.length} programs passed`);
