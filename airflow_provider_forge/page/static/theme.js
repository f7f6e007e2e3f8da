// Takes light or dark from the Airflow around this page, before anything is drawn.
(function () {
  function isDark() {
    try {
      if (window.parent !== window) return window.parent.document.documentElement.classList.contains("dark");
    } catch {
      // Another origin: this page decides by itself.
    }
    const chosen = localStorage.getItem("theme");
    if (chosen === "dark" || chosen === "light") return chosen === "dark";
    return matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function apply() {
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  }
  apply();
  addEventListener("storage", () => setTimeout(apply));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  try {
    if (window.parent !== window) {
      new MutationObserver(apply).observe(window.parent.document.documentElement, { attributeFilter: ["class"] });
    }
  } catch {
    // As above.
  }
})();
