// The page on which an admin sets a password, logs in and out. What is behind the # of a one-time link is read here and
// taken out of the address at once; it goes to the server in the body of one request.

const API = "/api/v1";
const [said, setUp, logIn, inside] = ["said", "set-up", "log-in", "inside"].map((id) => document.getElementById(id));
let csrfToken = "";

/** Shows one part of the page; what was said before is gone. */
function show(part) {
  for (const one of [setUp, logIn, inside]) one.hidden = one !== part;
  said.hidden = true;
  part.querySelector("input, button")?.focus();
}

function say(text) {
  said.textContent = text;
  said.hidden = false;
}

/** Asks the API. A refusal is thrown with its text. */
async function ask(method, path, body) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (csrfToken) headers["x-csrf-token"] = csrfToken;
  const response = await fetch(API + path, { method, headers, body: body && JSON.stringify(body) });
  const answer = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) throw new Error(answer?.detail ?? `the server answered ${response.status}`);
  return answer;
}

function enter(session) {
  csrfToken = session.csrf_token ?? "";
  document.getElementById("who").textContent = session.name;
  history.replaceState(null, "", "/");
  show(inside);
}

/** What a form does when it is sent; while it does, it cannot be sent again. */
function onSubmit(form, act) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      await act(Object.fromEntries(new FormData(form)));
    } catch (error) {
      say(error.message);
    } finally {
      button.disabled = false;
    }
  });
}

const link = location.pathname === "/set-up" ? location.hash.slice(1) : "";
const linkIsOf = new URLSearchParams(location.search).get("name");
if (link) history.replaceState(null, "", location.pathname);
if (linkIsOf) {
  const name = document.getElementById("first-name");
  name.value = linkIsOf;
  name.readOnly = true;
}

onSubmit(setUp, async ({ name, password, again }) => {
  if (password !== again) throw new Error("the two passwords differ");
  enter(await ask("POST", "/set-up", { link, name, password }));
  setUp.reset();
});

onSubmit(logIn, async ({ name, password }) => {
  enter(await ask("POST", "/session", { name, password }));
  logIn.reset();
});

document.getElementById("log-out").addEventListener("click", async () => {
  try {
    await ask("DELETE", "/session");
    csrfToken = "";
    show(logIn);
  } catch (error) {
    say(error.message);
  }
});

if (link) {
  show(setUp);
} else {
  try {
    enter(await ask("GET", "/session"));
  } catch {
    show(logIn);
  }
}
