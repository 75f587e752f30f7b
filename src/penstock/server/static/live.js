// Fetches the page again whenever something was committed, and swaps its <main>. Nothing depends on it.
const changes = new EventSource("/v1/events");
let due = 0;

async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const open = new Set([...document.querySelectorAll("details[open]")].map((item) => item.id));
  const kept = [...document.querySelectorAll("[data-log]")].map((box) => keep(box, page)).filter(Boolean);
  document.querySelector("main").replaceWith(page.querySelector("main"));
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  for (const [pre, top] of kept) pre.scrollTop = top;
  watchLogs();
}

// The output that is being read stays as it is; only what is said about it is new.
function keep(box, page) {
  const fresh = page.getElementById(box.id);
  if (!fresh) return null;
  const pre = box.querySelector("pre");
  const top = pre.scrollTop;
  box.querySelector("summary").replaceWith(fresh.querySelector("summary"));
  fresh.replaceWith(box);
  return [pre, top];
}

async function watchLogs() {
  const boxes = document.querySelectorAll("[data-log]");
  if (!boxes.length) return;
  const { watch } = await import("/static/log.js");
  boxes.forEach((box) => {
    if (box.open && !box.dataset.watched) watch(box);
    box.dataset.watched = "yes";
    box.ontoggle = () => watch(box);
  });
}

changes.addEventListener("change", () => {
  clearTimeout(due);
  due = setTimeout(refresh, 200);
});
watchLogs();
