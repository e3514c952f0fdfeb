"use strict";
// Before the page is painted: the theme that the reader has chosen, if any. A module would come too late.
{
  const chosen = localStorage.getItem("tuner-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
