// Collects the reader's corrections of labels and offers them as a download, corrections.json.
"use strict";
(() => {
  const bar = document.querySelector(".corrections");
  const status = bar.querySelector("[role=status]");
  const download = bar.querySelector("button");
  const next = bar.querySelector(".next");
  const template = document.querySelector("template.choice").content.firstElementChild;
  const classes = [...template.querySelector("select").options].map((option) => option.value);
  // A list of classes is filled only where it is needed: a page may have hundreds of images and classes.
  template.querySelector("select").replaceChildren();
  const storageKey = `corrections of ${bar.dataset.run}`;
  const choices = new Map(); // key of an image -> its entry in corrections.json
  const places = new Map(); // key of an image -> its places on the page, since several lists may show it

  const keyOf = (image) => JSON.stringify([image.split, image.id]);
  const isUnfinished = (choice) => choice.action === "relabel" && !choice.label;
  const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

  // Some browsers forbid storage to pages that are opened as files. The choices then last as long as the page.
  function load() {
    try {
      return JSON.parse(localStorage.getItem(storageKey)) ?? [];
    } catch {
      return [];
    }
  }

  function save() {
    try {
      localStorage.setItem(storageKey, JSON.stringify([...choices.values()]));
    } catch {}
  }

  function showPlace({ image, fields }, choice) {
    const select = fields.querySelector("select");
    for (const radio of fields.querySelectorAll("input")) {
      radio.checked = choice?.action === radio.value;
    }
    const relabels = choice?.action === "relabel";
    select.hidden = !relabels;
    fields.querySelector("button").hidden = !choice;
    if (relabels) {
      const others = classes.filter((name) => name !== image.label);
      select.replaceChildren(new Option("choose a class", ""), ...others.map((name) => new Option(name, name)));
      select.value = choice.label;
    }
  }

  function showBar() {
    const all = [...choices.values()];
    const number = (action) => all.filter((choice) => choice.action === action).length;
    const unfinished = all.filter(isUnfinished).length;
    bar.classList.toggle("started", all.length > 0);
    download.hidden = !all.length;
    status.textContent = all.length
      ? `${count(all.length, "image", "images")} reviewed: ${number("keep")} right, ${number("relabel")} wrong, ` +
        `${number("remove")} to leave out.` +
        (unfinished ? ` ${count(unfinished, "of them still needs", "of them still need")} its right class.` : "")
      : "No image is reviewed yet.";
  }

  function show(key) {
    for (const place of places.get(key)) showPlace(place, choices.get(key));
  }

  function choose(key, choice) {
    if (choice) choices.set(key, choice);
    else choices.delete(key);
    show(key);
    showBar();
    save();
  }

  function addPlace(element, index) {
    const image = { ...element.dataset };
    const key = keyOf(image);
    const fields = template.cloneNode(true);
    const select = fields.querySelector("select");
    fields.querySelector("legend").textContent = `Image ${image.id} of ${image.split}, labelled ${image.label}`;
    for (const radio of fields.querySelectorAll("input")) radio.name = `choice-${index}`;
    fields.addEventListener("change", ({ target }) => {
      const action = fields.querySelector("input:checked").value;
      const choice = { id: image.id, split: image.split, action };
      if (action === "relabel") choice.label = target === select ? select.value : image.suggested;
      choose(key, choice);
    });
    fields.querySelector("button").addEventListener("click", () => {
      choose(key, null);
      fields.querySelector("input").focus();
    });
    places.set(key, [...(places.get(key) ?? []), { image, fields }]);
    element.append(fields);
  }

  function goToUnfinished(key) {
    const { fields } = places.get(key)[0];
    for (let fold = fields.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    fields.querySelector("select").focus();
  }

  download.addEventListener("click", () => {
    const unfinished = [...choices.keys()].find((key) => isUnfinished(choices.get(key)));
    if (unfinished) {
      goToUnfinished(unfinished);
      return;
    }
    const content = JSON.stringify({ format: "corrections/1", corrections: [...choices.values()] }, null, 2);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${content}\n`], { type: "application/json" }));
    link.download = "corrections.json";
    link.click();
    next.hidden = false;
  });

  document.querySelectorAll(".review").forEach(addPlace);
  for (const choice of load()) {
    if (places.has(keyOf(choice))) choices.set(keyOf(choice), choice);
  }
  for (const key of choices.keys()) show(key);
  showBar();
})();
