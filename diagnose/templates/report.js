"use strict";
function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let node = target.parentElement; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  target.scrollIntoView({ block: "center" });
}
addEventListener("hashchange", openTarget);
openTarget();
addEventListener("beforeprint", () => { for (const d of document.querySelectorAll("details")) d.open = true; });
for (const code of document.querySelectorAll(".cmd")) {
  const button = document.createElement("button");
  const label = code.dataset.copy;
  button.type = "button";
  button.textContent = label;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = code.dataset.copied;
      setTimeout(() => { button.textContent = label; }, 2000);
    } catch {
      getSelection().selectAllChildren(code);
    }
  });
  code.after(button);
}
