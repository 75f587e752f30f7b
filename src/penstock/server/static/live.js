// Fetches the page again whenever something was committed, and swaps its <main>. Nothing depends on it.
const changes = new EventSource("/v1/events");
const logs = import("/static/log.js");
let due = 0;

async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const open = new Set([...document.querySelectorAll("details[open]")].map((item) => item.id));
  const restore = (await logs).keep(page);
  document.querySelector("main").replaceWith(page.querySelector("main"));
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  restore();
}

changes.addEventListener("change", () => {
  clearTimeout(due);
  due = setTimeout(refresh, 200);
});
