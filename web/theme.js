// Sets the light or dark look that was chosen before, ahead of the first paint; that is why it is a plain script in the
// head and no module. The toggle is in settings.js.
(function () {
  try {
    var theme = JSON.parse(localStorage.getItem('chiasm.theme'));
    if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  } catch (error) {
    // No storage, or foreign content in it: the system's look it is.
  }
})();
