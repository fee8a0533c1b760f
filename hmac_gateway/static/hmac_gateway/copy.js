// The copy buttons of the page that shows a secret once. A file of its own, so that a strict
// Content-Security-Policy allows it.
"use strict";
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copies]");
  if (!button) return;
  const field = document.getElementById(button.dataset.copies);
  field.select();
  try {
    // Only there over HTTPS and on localhost.
    await navigator.clipboard.writeText(field.value);
  } catch {
    document.execCommand("copy");
  }
  button.textContent = "Copied";
});
