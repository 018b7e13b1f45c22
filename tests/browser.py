"""A real browser for the tests of the page, and what every page must pass in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium-headless-shell"
PHONE, DESK = (360, 740), (1280, 900)
EVERY_VIEW = [(size, script) for size in (PHONE, DESK) for script in (True, False)]
NEEDS_BROWSER = pytest.mark.skipif(
    shutil.which(CHROMIUM) is None and "CI" not in os.environ, reason=f"no browser at {CHROMIUM}"
)
expect.set_options(timeout=15_000)  # milliseconds; the page looks every two seconds, and the machine may be busy


@contextmanager
def chromium() -> Iterator[Browser]:
    """One headless Chromium."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@contextmanager
def opened(browser: Browser, size: tuple[int, int], script: bool = True) -> Iterator[Page]:
    """A page that fails the test on a console error, a script error, or a request that leaves this machine."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, java_script_enabled=script)
    faults: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request",
        lambda request: faults.append(request.url) if urlsplit(request.url).hostname != "127.0.0.1" else None,
    )
    yield page
    context.close()
    assert not [fault for fault in faults if "404 (Not Found)" not in fault]


SMALL_TEXT = """() => [...document.querySelectorAll('body *')]
    .filter(one => one.checkVisibility() && [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
    .filter(one => parseFloat(getComputedStyle(one).fontSize) < 16)
    .map(one => one.outerHTML.slice(0, 80))"""

SMALL_TARGETS = """() => [...document.querySelectorAll('a, label, summary, button')]
    .filter(one => one.checkVisibility() && one.getBoundingClientRect().left >= 0)
    .filter(one => one.getBoundingClientRect().height < 43.5 && !one.matches('.name'))
    .map(one => one.outerHTML.slice(0, 80) + one.getBoundingClientRect().height)"""

# WCAG 2.2, relative luminance and contrast ratio (1.4.3); the nearest background that is not transparent counts.
LOW_CONTRAST = """() => {
    const parts = text => text.match(/[\\d.]+/g).map(Number);
    const ground = one => {
        for (; one; one = one.parentElement) {
            const [r, g, b, a = 1] = parts(getComputedStyle(one).backgroundColor);
            if (a > 0) return [r, g, b];
        }
        return [255, 255, 255];
    };
    const luminance = rgb => {
        const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    return [...document.querySelectorAll('body *')]
        .filter(one => one.checkVisibility() && !one.closest('svg'))
        .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
        .map(one => {
            const [high, low] = [luminance(parts(getComputedStyle(one).color).slice(0, 3)), luminance(ground(one))]
                .sort((a, b) => b - a);
            return [(high + 0.05) / (low + 0.05), one.outerHTML.slice(0, 80)];
        })
        .filter(([ratio]) => ratio < 4.5);
}"""
