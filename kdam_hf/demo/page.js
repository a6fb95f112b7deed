// Runs once, on the element that holds the results; the results themselves come and go, so events are taken here.
const known = new WeakMap();

function numbersOf(image) {
  if (!known.has(image)) {
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    known.set(image, context.getImageData(0, 0, canvas.width, canvas.height));
  }
  return known.get(image);
}

function valueAt(view, x, y) {
  const image = view.querySelector(".kdam-numbers");
  if (!image.complete || !image.naturalWidth) return "";
  const { data, width, height } = numbersOf(image);
  const column = Math.min(width - 1, Math.floor(x * width));
  const row = Math.min(height - 1, Math.floor(y * height));
  const [r, g, b] = data.subarray(4 * (row * width + column));
  const reading = JSON.parse(view.dataset.reading);
  if (reading.vector) {
    return [r, g, b].map((v) => ((2 * v) / 255 - 1).toFixed(2)).join(", ");
  }
  const number = (256 * r + g) / reading.scale;
  if (reading.names.length) return reading.names[number].replaceAll("_", " ");
  return `${(number * reading.factor).toFixed(reading.digits)} ${reading.unit}`;
}

function clear() {
  for (const view of element.querySelectorAll(".kdam-view")) {
    view.classList.remove("kdam-pointed");
    view.parentElement.querySelector("output").textContent = "";
  }
}

function point(event) {
  const pointed = event.target.closest(".kdam-view");
  if (!pointed) return clear();
  const box = pointed.getBoundingClientRect();
  const x = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  const y = Math.min(1, Math.max(0, (event.clientY - box.top) / box.height));
  for (const view of element.querySelectorAll(".kdam-view")) {
    view.classList.add("kdam-pointed");
    view.style.setProperty("--x", `${100 * x}%`);
    view.style.setProperty("--y", `${100 * y}%`);
    view.parentElement.querySelector("output").textContent = valueAt(view, x, y);
  }
}

element.addEventListener("pointermove", point);
element.addEventListener("pointerdown", point);
element.addEventListener("pointerleave", clear);
