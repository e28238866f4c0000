// Faults lead to the moment and the page; causes of cycles to their part of the bar.

function linkFaults(timeline, walkTo) {
  document.querySelectorAll("#faults [data-address]").forEach((button) => button.addEventListener("click", () => {
    timeline.goToCycle(Number(button.dataset.cycle));
    walkTo(BigInt("0x" + button.dataset.address), null);
    document.getElementById("walks").scrollIntoView();
  }));
}

function linkCauses() {
  const parts = [...document.querySelectorAll("#summary [data-cause]")];
  const light = (cause) => parts.forEach((part) => part.classList.toggle("hot", part.dataset.cause === cause));
  for (const part of parts) {
    part.addEventListener("pointerenter", () => light(part.dataset.cause));
    part.addEventListener("pointerleave", () => light(null));
  }
}
