// Keeps the list (or a study that is still being read) up to date. The page works without it.
"use strict";
(function () {
  var every = 2000;
  var lost = document.getElementById("lost");
  var live = document.getElementById("live");

  // A box whose clock is not set takes the phone's time, at the moment of the tap.
  document.addEventListener("submit", function (event) {
    var field = event.target.elements.namedItem("phone_unix_s");
    if (field) field.value = String(Date.now() / 1000);
  });

  if (!live) return;
  var tag = live.getAttribute("data-tag");

  function show(text) {
    var fresh = new DOMParser().parseFromString(text, "text/html").getElementById("live");
    if (!fresh) return;
    var focused = document.activeElement && live.contains(document.activeElement) ? document.activeElement.id : "";
    live.replaceWith(fresh);
    live = fresh;
    if (focused && document.getElementById(focused)) document.getElementById(focused).focus();
  }

  function changed(text) {
    if (live.hasAttribute("data-notice")) {
      document.getElementById("changed").hidden = false;
      return false; // the reader decides when the page under their eyes moves
    }
    show(text);
    return true;
  }

  function look() {
    if (document.hidden) return again();
    var headers = tag ? { "If-None-Match": tag } : {};
    fetch(live.getAttribute("data-live"), { headers: headers, cache: "no-store" })
      .then(function (answer) {
        if (answer.status === 304) return true;
        if (!answer.ok) throw new Error("status " + answer.status);
        var next = answer.headers.get("ETag");
        return answer.text().then(function (text) {
          tag = next;
          return changed(text);
        });
      })
      .then(function (more) {
        lost.hidden = true;
        if (more) again();
      })
      .catch(function () {
        lost.hidden = false;
        again();
      });
  }

  function again() {
    setTimeout(look, every);
  }

  again();
})();
