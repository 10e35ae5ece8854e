// What an admin does in a browser: opens the one-time link, sets a password, looks at the API's description, logs out and in.
// Run by server/tests/browser.rs: node tests/browser/sign_in.mjs LINK

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const link = process.argv[2];
const origin = new URL(link).origin;
const PASSWORD = "correct horse battery";

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  // The server has a certificate of its own authority, which a browser does not know.
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(`error in the page: ${error.message}`));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (!["data:", "blob:"].includes(url.protocol) && url.origin !== origin) faults.push(`loaded from elsewhere: ${url}`);
    if (/pset_|psess_/.test(request.url())) faults.push("a secret in a URL");
  });
  page.on("console", (message) => {
    if (/Content Security Policy/i.test(message.text())) faults.push(message.text());
  });

  await page.goto(link);
  const setUp = page.locator("#set-up");
  await setUp.waitFor();
  assert.ok(!page.url().includes("pset_"), "the secret is out of the address at once");
  await setUp.getByLabel("Name").fill("Ada");
  await setUp.getByLabel(/^Password/).fill(PASSWORD);
  await setUp.getByLabel("Once more").fill("something else!");
  await setUp.getByRole("button").click();
  await page.getByText("the two passwords differ").waitFor();
  await setUp.getByLabel("Once more").fill(PASSWORD);
  await setUp.getByRole("button").click();
  await page.getByText("Logged in as ada").waitFor();
  const [cookie] = await context.cookies(origin);
  assert.deepEqual([cookie.httpOnly, cookie.secure, cookie.sameSite, cookie.path], [true, true, "Strict", "/"]);
  assert.equal(await page.evaluate(() => document.cookie), "", "no script reads the cookie");

  await page.reload();
  await page.getByText("Logged in as ada").waitFor();
  await page.getByRole("link", { name: "What the API can do" }).click();
  await page.getByText("/api/v1/instances", { exact: false }).first().waitFor();

  await page.goto(origin);
  await page.getByRole("button", { name: "Log out" }).click();
  const logIn = page.locator("#log-in");
  await logIn.waitFor();
  await logIn.getByLabel("Name").fill("ada");
  await logIn.getByLabel("Password").fill("not this one at all");
  await logIn.getByRole("button").click();
  await page.getByText("name or password is wrong").waitFor();
  await logIn.getByLabel("Password").fill(PASSWORD);
  await logIn.getByRole("button").click();
  await page.getByText("Logged in as ada").waitFor();
  assert.deepEqual(faults, []);
} finally {
  await browser.close();
}
