// Mailboxes: keys, a choice that outlives a live refresh, and drafts that save themselves.
(() => {
  "use strict";

  // Keys. A control names its own with data-key; j, k, x and Enter walk through a list of mails.
  const rows = () => [...document.querySelectorAll("table.mails tbody tr")];
  const threadOf = (row) => row.querySelector("input[name=thread]").value;
  let at = null;
  const go = (step) => {
    const all = rows();
    if (!all.length) return;
    const place = all.findIndex((row) => threadOf(row) === at);
    const next = all[Math.max(0, Math.min(all.length - 1, place + step))];
    at = threadOf(next);
    next.querySelector("a.row").focus();
  };
  const pressed = (name) => {
    const control = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === name);
    if (!control) return false;
    const row = rows().find((one) => threadOf(one) === at);
    const form = control.form;
    if (form && form.id === "mails" && row && !form.querySelector("input[name=thread]:checked")) {
      row.querySelector("input[name=thread]").checked = true;
    }
    control.click();
    return true;
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=checkbox]), textarea, select");
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
      if (pressed("ctrl-enter")) event.preventDefault();
      return;
    }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "j" || event.key === "k") go(event.key === "j" ? 1 : -1);
    else if (event.key === "x") {
      const row = rows().find((one) => threadOf(one) === at);
      if (row) row.querySelector("input[name=thread]").click();
    } else if (!pressed(event.key)) return;
    event.preventDefault();
  });
  document.addEventListener("focusin", (event) => {
    const row = event.target.closest("table.mails tbody tr");
    if (row) at = threadOf(row);
  });

  // A list that is fetched again keeps what was chosen in it, and where one was.
  let chosen = [];
  let focused = false;
  document.addEventListener("htmx:beforeSwap", (event) => {
    const boxes = event.target.querySelectorAll("input[name=thread]:checked");
    chosen = [...boxes].map((box) => box.value);
    focused = event.target.contains(document.activeElement) && document.activeElement.matches("a.row");
  });
  document.addEventListener("htmx:afterSwap", () => {
    for (const row of rows()) {
      const box = row.querySelector("input[name=thread]");
      if (chosen.includes(box.value)) box.checked = true;
      if (focused && box.value === at) row.querySelector("a.row").focus();
    }
  });

  // The draft: a moment after the last key it is saved, one save at a time. When somebody else has
  // saved meanwhile, what is on this page lives on as a version of its own.
  const form = document.getElementById("draft");
  if (!form) return;
  const told = document.getElementById("saved");
  let due = 0;
  let saving = null;
  let dirty = false;
  const settle = (answer) => {
    form.elements.revision.value = answer.revision;
    told.textContent = "Saved";
    const own = form.dataset.box + answer.id;
    if (own !== form.getAttribute("action")) {
      form.setAttribute("action", own);
      form.querySelector("[data-form=send]").setAttribute("formaction", own + "/send");
      history.replaceState(null, "", own);
    }
    if (answer.other) {
      const link = document.createElement("a");
      link.href = form.dataset.box + answer.other;
      link.textContent = "the other one";
      document.getElementById("other").replaceChildren(": ", link);
      document.getElementById("conflict").hidden = false;
    }
  };
  const save = async () => {
    clearTimeout(due);
    if (saving) await saving;
    if (!dirty) return;
    dirty = false;
    told.textContent = "Saving…";
    const body = new URLSearchParams(new FormData(form));
    body.set("quietly", "1");
    saving = fetch(form.getAttribute("action"), { method: "POST", body })
      .then((answer) => answer.ok ? answer.json() : Promise.reject(new Error(String(answer.status))))
      .then(settle)
      .catch((error) => {
        dirty = true;
        told.textContent = "Not saved yet: it will be tried again";
        console.warn("the draft could not be saved", error);
        due = setTimeout(save, 5000);
      })
      .finally(() => { saving = null; });
    await saving;
  };
  form.addEventListener("input", () => {
    dirty = true;
    told.textContent = "Not saved yet";
    clearTimeout(due);
    due = setTimeout(save, 700);
  });
  form.addEventListener("submit", (event) => {
    clearTimeout(due);
    if (!saving) { dirty = false; return; }
    event.preventDefault();  // with the revision that the save under way will answer
    const by = event.submitter;
    saving.then(() => form.requestSubmit(by));
  });
  window.addEventListener("beforeunload", (event) => { if (dirty) event.preventDefault(); });
})();
